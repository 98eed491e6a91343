#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sources and scripts say their licence on the first line, or on the second after "#!".
. "$(dirname "$0")/lint.sh"

scripts=$(files . '*' | while read -r file; do
    if head -c 2 "$file" | grep -q '#!'; then echo "$file"; fi
done)
# shellcheck disable=SC2046,SC2086 # lists of files
for file in $(files . '*.[ch]' '*.awk' '*.cmake' '*.in' '*.py' '*.sh' CMakeLists.txt Makefile) $scripts; do
    head -n 2 "$file" | awk -v file="$file" '
        /SPDX-License-Identifier: Apache-2\.0/ && (NR == 1 || shebang) { found = 1 }
        NR == 1 { shebang = /^#!/ }
        END { if (!found) print file ":1: the SPDX line is missing" }'
done | finish spdx
