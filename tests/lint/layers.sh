#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every #include keeps to the table of folders in docs/architecture.md; oneDNN is called in src/nn/onednn/ alone, MPI in
# src/comm/mpi/plugin/.
. "$(dirname "$0")/lint.sh"

table=docs/architecture.md
# shellcheck disable=SC2046 # a list of files
awk -v table=$table '
# ours(path): the folder that a file or an include belongs to: src/nn/onednn/x.c -> nn, cli/main.c -> cli
function ours(path) {
    sub(/^src\//, "", path)
    sub(/\/.*/, "", path)
    return path
}

# a row: | `src/plan/` | one sentence | base, conf |
FILENAME == table {
    if ($0 !~ /^\| `(src\/[a-z]+|cli)\/` \|/)
        next
    split($0, cell, "|")
    gsub(/[` ]/, "", cell[2])
    folder = ours(cell[2])
    if (cell[4] ~ /all above/)
        for (other in says)
            may[folder, other] = 1
    n = split(cell[4], word, /[ ,]+/)
    for (i = 1; i <= n; i++)
        may[folder, word[i]] = 1
    says[folder] = cell[4]
    next
}

FNR == 1 {
    folder = ours(FILENAME)
    if (folder != "include" && !(folder in says))
        print FILENAME ":1: the folder " folder " has no row in " table
}

/^[ \t]*#[ \t]*include[ \t]*["<]/ {
    match($0, /["<][^">]*/)
    kind = substr($0, RSTART, 1)
    path = substr($0, RSTART + 1, RLENGTH - 1)
    at = FILENAME ":" FNR ": "
    if (folder == "include") {
        if (kind != "<" || path !~ /^(lockstep\/|std[a-z]+\.h$)/)
            print at "a public header includes public and standard headers only, not " path
    } else if (kind == "<") {
        if (path ~ /^(oneapi\/)?dnnl/ && FILENAME !~ /^src\/nn\/onednn\//)
            print at "oneDNN belongs in src/nn/onednn/ alone"
        if (path == "mpi.h" && FILENAME !~ /^src\/comm\/mpi\/plugin\//)
            print at "MPI belongs in src/comm/mpi/plugin/ alone"
    } else if (path ~ /\.\./) {
        print at "paths are relative to src/ or to the file, without .."
    } else if (path ~ /\// && ours(path) != folder && !((folder, ours(path)) in may)) {
        print at folder " may not include " path "; it may include:" says[folder]
    }
}' $table $(c_files include src cli) | finish layers
