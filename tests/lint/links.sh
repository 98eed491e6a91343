#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Links between the project's pages lead to files that are there.
. "$(dirname "$0")/lint.sh"

for page in $(files . '*.md'); do
    grep -noE '\]\([^)#: ]+[)#]' "$page" | tr -d '])(#' | while IFS=: read -r line link; do
        target=$(dirname "$page")/$link
        if [ ! -e "$target" ]; then echo "$page:$line: there is no $target"; fi
    done
done | finish links
