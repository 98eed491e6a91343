#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every C file is as clang-format leaves it. Versions differ in their taste: ours is that of Debian 12.
. "$(dirname "$0")/lint.sh"

wanted=14
for program in clang-format-$wanted clang-format none; do
    if "$program" --version 2>/dev/null | grep -q "version $wanted\."; then break; fi
done
if [ $program = none ]; then
    echo "format: skipped, there is no clang-format $wanted"
    exit 77
fi
# shellcheck disable=SC2046 # a list of files
"$program" --dry-run -Werror $(c_files include src cli examples bench tests) 2>&1 | grep 'error:' | finish format
