#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds lockstep as a static or a shared library, installs it, and builds and runs a program against the installed files:
# once by pkg-config, once by find_package. Usage, in the source folder: install.sh static|shared [cmake [cc]]
set -eu

kind=$1 cmake=${2:-cmake} cc=${3:-cc}
source=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

say() { echo "install ($kind): $*"; }

shared=OFF
if [ "$kind" = shared ]; then shared=ON; fi
"$cmake" -S "$source" -B "$work/build" -DCMAKE_C_COMPILER="$cc" -DCMAKE_BUILD_TYPE=Debug \
    -DLOCKSTEP_TESTS=OFF -DBUILD_SHARED_LIBS=$shared >"$work/configure.log"
"$cmake" --build "$work/build" --parallel "$(nproc)" >"$work/build.log" 2>&1 || { tail -n 40 "$work/build.log"; exit 1; }
"$cmake" --install "$work/build" --prefix "$prefix" >"$work/install.log"
rm -rf "$work/build" # nothing may be found there

say "the installed program starts"
"$prefix/bin/lockstep" --help >"$work/help.txt"
grep -q train "$work/help.txt"

libdir=$(dirname "$(find "$prefix" -name 'liblockstep.*' | head -n 1)")
expected=$(sed -n 's/^#define LKS_VERSION_[A-Z]* \([0-9]*\)$/\1/p' "$source/include/lockstep/version.h" | paste -s -d .)

# check PROGRAM: it runs and prints the version that the headers state
check() {
    printed=$(LD_LIBRARY_PATH=$libdir "$1")
    if [ "$printed" != "$expected" ]; then
        say "$1 printed \"$printed\", wanted \"$expected\""
        exit 1
    fi
}

say "the library shows public names only"
CC=$cc sh "$source/tests/lint/names.sh" "$(find "$libdir" -type f -name 'liblockstep.*')"

say "a program built by find_package"
"$cmake" -S "$source/tests/install/consumer" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$cc" -Dversion="$expected" >"$work/consumer.log"
"$cmake" --build "$work/consumer" >>"$work/consumer.log" || { cat "$work/consumer.log"; exit 1; }
check "$work/consumer/consumer"

say "a program built by pkg-config"
flags=$(PKG_CONFIG_PATH=$libdir/pkgconfig pkg-config --cflags --libs lockstep)
# shellcheck disable=SC2086 # a list of words
"$cc" "$source/tests/install/consumer.c" $flags -o "$work/by_pkg_config"
check "$work/by_pkg_config"

say "the program in README.md, two processes of it"
sed -n '/^```c$/,/^```$/{/^```/!p}' "$source/README.md" >"$work/readme.c"
# shellcheck disable=SC2086
"$cc" -Wall -Wextra -Werror "$work/readme.c" $flags -o "$work/readme"
cd "$work" # where it may write
ln -s "$source/examples" "$source/data" .
printed=$(LD_LIBRARY_PATH=$libdir "$prefix/bin/lockstep" run -n 2 "$work/readme")
if [ "$(echo "$printed" | grep -c 'test accuracy')" != 2 ]; then
    say "the program in README.md printed: $printed"
    exit 1
fi
