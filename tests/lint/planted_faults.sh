#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The lint tests see what they are there for: in a small tree that passes, each fault that is planted is found.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0

# plant FILE TEXT: writes a file of the tree; the text is for printf
plant() {
    mkdir -p "$tree/$(dirname "$1")"
    # shellcheck disable=SC2059
    printf "$2" >"$tree/$1"
}

sound_tree() {
    rm -rf "$tree/docs" "$tree/include" "$tree/src" "$tree/cli" "$tree/scripts"
    plant docs/architecture.md "$(printf '%s\\n' \
        '| folder | one sentence | may include |' '|---|---|---|' \
        '| `include/lockstep/` | public headers | each other |' \
        '| `src/base/` | base | libc |' \
        '| `src/comm/` | comm | base |' \
        '| `src/nn/` | nn | base |' \
        '| `src/train/` | train | all above |' \
        '| `cli/` | cli | public headers |')"
    plant include/lockstep/area.h "$spdx"'#include <stddef.h>\n\nsize_t lks_area(void);\n'
    plant src/base/text.h "$spdx"'typedef int lks__text;\n'
    plant src/nn/graph.c "$spdx"'#include <lockstep/area.h>\n\n#include "base/text.h"\n'
    plant src/train/loop.c "$spdx"'#include "nn/graph.h"\n/* printf(x) // "exit(1)" */\nconst char *p = "exit(1) \\" atoi(2)";\n'
    plant src/nn/graph.h "$spdx"'#include "base/text.h"\n\nlks__text lks__graph(void);\n'
}

# run LINT: its output, and its exit code in $code
run() {
    code=0
    output=$(cd "$tree" && sh "$here/$1.sh" 2>&1) || code=$?
}

# names_of CODE: runs the names test on an archive with lks_version and CODE
names_of() {
    plant library.c "__attribute__((visibility(\"default\"))) int lks_version;\n$1"
    (cd "$tree" && ${CC:-cc} -fPIC -fvisibility=hidden -c library.c && rm -f library.a && ar rc library.a library.o)
    code=0
    output=$(cd "$tree" && sh "$here/names.sh" library.a 2>&1) || code=$?
    rm -f "$tree"/library.*
}

# found LINT FILE TEXT: with the fault in FILE, LINT fails and names it; then the tree is sound again
found() {
    plant "$2" "$3"
    run "$1"
    if [ $code = 77 ]; then
        echo "$1: skipped"
    elif [ $code != 1 ] || ! echo "$output" | grep -qF "$2"; then
        echo "$1: exit code $code; the fault planted in $2 was not found: $3"
        echo "$output"
        failures=$((failures + 1))
    fi
    rm -f "$tree/$2"
    sound_tree
}

spdx='/* SPDX-License-Identifier: Apache-2.0 */\n'
sound_tree
for lint in layers format headers calls spdx file_names leftovers links; do
    run $lint
    if [ $code != 0 ] && [ $code != 77 ]; then
        echo "$lint: exit code $code in a tree without faults"
        echo "$output"
        failures=$((failures + 1))
    fi
done

found layers src/nn/bad.c "$spdx"'#include "comm/group.h"\n'
found layers src/base/bad.h "$spdx"'#include "nn/graph.h"\n'
found layers src/nn/bad.c "$spdx"'#include "../comm/group.h"\n'
found layers src/train/bad.c "$spdx"'#include <dnnl.h>\n'
found layers src/unknown/bad.c "$spdx"
found layers include/lockstep/bad.h "$spdx"'#include <jansson.h>\n'
found layers include/lockstep/bad.h "$spdx"'#include "base/text.h"\n'
found layers cli/bad.c "$spdx"'# include "train/loop.h"\n'
found format src/nn/bad.c "$spdx"'int  f(void);\n'
found headers include/lockstep/bad.h "$spdx"'int64_t lks_bad(void);\n'
found headers include/lockstep/bad.h "$spdx"'int lks_bad(int new, int class);\n'
found headers src/nn/bad.h "$spdx"'lks__text lks__bad(void);\n'
found calls src/nn/bad.c "$spdx"'void f(char *a) { strcpy(a, "x"); }\n'
found calls cli/bad.c "$spdx"'int f(void) { return  atoi ("1"); }\n'
found calls src/nn/bad.c "$spdx"'void f(void) { /* said */ printf("x"); }\n'
found calls src/nn/bad.c "$spdx"'void f(void) { fputs("x", stdout); }\n'
found calls src/nn/bad.c "$spdx"'char quote = 34; void f(void) { exit(1); }\n'
found calls src/nn/bad.c "$spdx"'void f(void)\n{\n    signal(2, 0);\n}\n'
found calls src/nn/bad.c "$spdx"'void *f(void) { return malloc(1); }\n'
found spdx src/nn/bad.c 'int f(void);\n'
found spdx scripts/bad '#!/bin/sh\n\n# SPDX-License-Identifier: Apache-2.0\n'
found file_names src/train/graph.c "$spdx"
found leftovers src/nn/bad.c "$spdx"'/* TO''DO: later */\n'
found leftovers docs/bad.md 'see /ho''me/me/data\n'
found leftovers docs/bad.md 'blank \n'
found leftovers docs/bad.md '\ttab\n'
found leftovers docs/bad.md 'no end'
found links docs/bad.md 'see [this](architecture.md) and [that](nowhere.md#part)\n'

names_of 'int lks__hidden; static int local;\n'
if [ $code != 0 ]; then
    echo "names: exit code $code in a library without faults: $output"
    failures=$((failures + 1))
fi
for fault in 'int other;' '__attribute__((visibility("default"))) int lks__shown;'; do
    names_of "$fault\n"
    if [ $code != 1 ]; then
        echo "names: exit code $code; not found: $fault"
        failures=$((failures + 1))
    fi
done

[ $failures = 0 ]
