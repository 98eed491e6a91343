#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Ends `lockstep train` at random moments in every way there is: Ctrl-C, SIGTERM, SIGKILL of a worker, SIGKILL of the
# launcher. No process and no shared memory may be left, and the exit code tells what happened.
# Usage: kill_train.sh ROUNDS
set -u
: "${LOCKSTEP_BINARY:=build-dev/lockstep}"
rounds=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# A run that would take minutes; its output folder, which is in every process's command line, is its mark.
start() {
    mark=$work/$1
    "$LOCKSTEP_BINARY" train examples/digits.yaml -n 3 epochs=auto steps=100000000 --output "$mark" \
        >"$mark.out" 2>"$mark.err" &
    launcher=$!
}

marked_processes() {
    for entry in /proc/[0-9]*; do
        if tr '\0' ' ' <"$entry/cmdline" 2>/dev/null | grep -q -F -- "$mark"; then echo "${entry#/proc/}"; fi
    done
}

# Up to 5 s, far above the second that is promised: this looks for processes that stay, not for slow ones.
wait_until_gone() {
    tries=0
    while [ -n "$(marked_processes)" ]; do
        tries=$((tries + 1))
        if [ $tries -gt 100 ]; then complain "processes are left: $(marked_processes | paste -s -d ' ')"; return; fi
        sleep 0.05
    done
}

complain() {
    echo "round $round ($how after 0.$delay s): $*"
    sed 's/^/    /' "$mark.err"
    failed=1
}

expect_code() {
    case " $* " in *" $code "*) ;; *) complain "exit code $code; wanted one of: $*" ;; esac
}

expect_text() {
    grep -q -- "$1" "$mark.err" || complain "stderr lacks \"$1\""
}

random_byte() { od -An -N1 -tu1 /dev/urandom | tr -d ' '; }

round=0
while [ $round -lt "$rounds" ]; do
    round=$((round + 1))
    delay=$(printf '%03d' $(($(random_byte) * 2)))
    start $round
    sleep "0.$delay"
    case $((round % 4)) in
    0) how=SIGINT; kill -INT $launcher ;;
    1) how=SIGTERM; kill -TERM $launcher ;;
    2) how='SIGKILL of a worker'
        worker=$(marked_processes | grep -v -x "$launcher" | tail -n 1)
        if [ -n "$worker" ]; then kill -KILL "$worker"; else kill -TERM $launcher; how=SIGTERM; fi ;;
    3) how='SIGKILL of the launcher'; kill -KILL $launcher ;;
    esac
    wait $launcher 2>/dev/null
    code=$?
    wait_until_gone
    case $how in # a shell's background job ignores SIGINT, so the launcher does too: then it has to be asked otherwise
    SIGTERM) expect_code 143 ;;
    'SIGKILL of a worker') expect_code 1; expect_text 'signal 9' ;;
    'SIGKILL of the launcher') expect_code 137 ;;
    esac
done

[ $failed = 0 ] && echo "$rounds rounds: nothing left"
exit $failed
