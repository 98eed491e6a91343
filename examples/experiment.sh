# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# What the experiments share (examples/goyal, examples/chimera). Sourced, after `name` and `usage` are set:
#
#   . "$(dirname "$0")/../experiment.sh"
#
# Sets $lockstep, the program (LOCKSTEP_BINARY, else build/lockstep), and goes to the source folder, where the configs'
# data sets are found.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
lockstep=${LOCKSTEP_BINARY:-$root/build/lockstep}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$root"

say() { printf '%s: %s\n' "$name" "$*" >&2; }

# bad_usage MESSAGE
bad_usage() {
    say "$*"
    printf '%s\n' "$usage" >&2
    exit 2
}

# whole_numbers FLAG TEXT: a list of at least one
whole_numbers() {
    if ! printf '%s\n' "$2" | grep -qE '^ *[0-9]+( +[0-9]+)* *$'; then
        bad_usage "$1 takes whole numbers, as in $1 \"0 1 2\", not \"$2\""
    fi
}

# read_flags LISTS ARGUMENT ...: sets `output` from --output, and each of the named lists of whole numbers from its flag;
# $n_flags is how many arguments they are. What follows are settings.
read_flags() {
    lists=$1 n_flags=0
    shift
    while [ $# -gt 0 ]; do
        case $1 in
        -h | --help) printf '%s\n' "$usage" && exit 0 ;;
        [a-z]*=*) return ;;
        esac
        case " --output$(printf ' --%s' $lists) " in *" $1 "*) ;; *) bad_usage "there is no $1" ;; esac
        [ $# -ge 2 ] || bad_usage "$1 needs a value"
        [ "$1" = --output ] || whole_numbers "$1" "$2"
        eval "${1#--}=\$2"
        shift 2
        n_flags=$((n_flags + 2))
    done
}

# has_mnist SETTING ...: MNIST is there, or was fetched, or the settings name another data set
has_mnist() {
    for setting; do
        case $setting in data.path=*) return 0 ;; esac
    done
    scripts/get-data mnist >&2
}

# member KEY FILE: a number, or a text without its quotes, from an object that --json has printed
member() {
    sed -n 's/^  "'"$1"'": "\{0,1\}\([^",]*\)"\{0,1\},\{0,1\}$/\1/p' "$2"
}

# short NUMBER: with four digits at most, as people write it
short() {
    awk -v number="$1" 'BEGIN { printf "%.4g\n", number }'
}

# train RUN CONFIG SETTING ...: one run on two processes, in the folder RUN. Leaves its result in RUN.json and what it
# has said in RUN.err. Returns 0, or 1 for a run that has failed on its way; anything else ends the experiment.
train() {
    run=$1
    shift
    mkdir -p "$(dirname "$run")"
    code=0
    "$lockstep" train -n 2 --json --overwrite --output "$run" -- "$@" >"$run.json" 2>"$run.err" || code=$?
    if [ $code -gt 1 ]; then
        message "$run" >&2
        say "$run: lockstep train has ended with exit code $code"
        exit $code
    fi
    return $code
}

# message RUN: what lockstep says at the end of a run that has failed
message() {
    sed -n '/^lockstep: /,$p' "$1.err"
}

# mean FORMAT: of the numbers on the standard input, one on a line; "-" for none
mean() {
    awk -v format="$1\n" '{ sum += $1 } END { if (NR == 0) print "-"; else printf format, sum / NR }'
}

# mean_and_deviation: of the numbers on the standard input, one on a line; "-" for none, no deviation for one
mean_and_deviation() {
    awk '{ x[NR] = $1; sum += $1 }
        END {
            if (NR == 0) { print "-"; exit }
            mean = sum / NR
            for (i = 1; i <= NR; i++) squares += (x[i] - mean) ^ 2
            if (NR == 1) printf "%.2f\n", mean
            else printf "%.2f +- %.2f\n", mean, sqrt(squares / (NR - 1))
        }'
}
