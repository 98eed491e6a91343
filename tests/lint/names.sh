#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Global names of the library start with lks_, and a shared library shows the public ones (lks_x, not lks__x) only.
# Usage: names.sh LIBRARY, static or shared
. "$(dirname "$0")/lint.sh"

library=$1 cc=${CC:-cc}
if [ ! -f "$library" ]; then
    echo "names: skipped, $library is not built"
    exit 77
fi

# Visibility was decided when the objects were compiled, so that an archive can be looked at as a shared library.
shared=$(mktemp)
trap 'rm -f "$shared"' EXIT
case $library in
*.a) "$cc" -shared -o "$shared" -Wl,--whole-archive "$library" -Wl,--no-whole-archive ;;
*) cp "$library" "$shared" ;;
esac || exit 1

{
    if [ "${library%.a}" != "$library" ]; then
        nm -g --defined-only "$library" |
            awk -v at="$library" 'NF == 3 && $3 !~ /^lks_/ { print at ": " $3 " does not start with lks_" }'
    fi
    nm -D --defined-only "$shared" |
        awk -v at="$library" '$3 !~ /^lks_[a-z0-9]/ { print at ": " $3 " is visible and not public" }'
    if ! nm -D --defined-only "$shared" | grep -q ' lks_version$'; then echo "$library: lks_version is not visible"; fi
} | finish names
