#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# File names are unique in the tree, upper and lower case alike, but for those that tools and habits prescribe.
. "$(dirname "$0")/lint.sh"

files . '*' | awk -F / '{
    name = tolower($NF)
    if (name == "cmakelists.txt" || name == "readme.md")
        next
    if (name in first)
        print $0 ": has the name of " first[name]
    else
        first[name] = $0
}' | finish file_names
