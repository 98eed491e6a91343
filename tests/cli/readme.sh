#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The README's table of commands is that of `lockstep --help`, and it leads to every page of docs/.
. "$(dirname "$0")/cli_test.sh"

"$lockstep" --help | sed -n '/^commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' >"$work/commands"
sed -n '/^## The program/,/^## Settings/s/^| `\([a-z]*\)` | .*/\1/p' README.md >"$work/rows"
[ -s "$work/commands" ] || fail "lockstep --help lists no commands"
diff -u "$work/commands" "$work/rows" || fail "the README has other commands than lockstep --help"
for command in $(cat "$work/commands"); do
    "$lockstep" help "$command" >"$work/help" || fail "lockstep help $command: exit code $?"
    [ "$command" = help ] || grep -q "^usage: lockstep $command " "$work/help" || fail "no help for $command"
done

for page in docs/*.md; do
    grep -q "^\* \[$page\]($page): " README.md || fail "the README's list lacks $page"
done
