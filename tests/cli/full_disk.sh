#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A disk that fills up while a run writes checkpoints: one message, exit code 1, nothing half-written, the newest whole
# checkpoint loads; with room again the run goes on and ends as one that always had room.
. "$(dirname "$0")/cli_test.sh"

# The disk is a small one in memory, mounted for this test alone: as root, or where users may have a namespace.
if [ "${FULL_DISK:-}" = "" ]; then
    for as in "" "--map-root-user"; do
        # shellcheck disable=SC2086 # nothing or one word
        if unshare --mount $as mount -t tmpfs -o size=4k none "$work" 2>"$work/mount.err"; then
            code=0
            # shellcheck disable=SC2086
            FULL_DISK=$work unshare --mount $as sh "$0" || code=$?
            exit $code
        fi
    done
    skip "nobody may mount here: $(cat "$work/mount.err")"
fi
disk=$FULL_DISK

# A checkpoint of this model has about 60 KiB (4,810 parameters and two values of Adam for each).
settings='world=4 batch.local=8 epochs=auto steps=60 optimizer.kind=adam optimizer.momentum=auto optimizer.lr=0.001
    metrics.every_steps=1000 checkpoint.keep=1000'

# train PROCESSES DIR ARGUMENTS ...
train() {
    processes=$1
    output=$2
    shift 2
    # shellcheck disable=SC2086 # a list
    "$lockstep" train examples/digits.yaml -n "$processes" --json --output "$output" $settings "$@" >"$work/json" \
        2>"$work/train.err"
}

# expect CODE WHERE: the exit code of the last run, and that nothing is half-written in its folder
expect() {
    [ "$code" = "$1" ] || fail "$2: exit code $code, not $1"
    [ -z "$(find "$2" -name '*.tmp')" ] || fail "$2: a half-written file is left"
    for file in "$2"/checkpoints/*; do
        "$lockstep" inspect "$file" >"$work/inspect" 2>"$work/inspect.err" || fail "$file does not load"
    done
}

train 1 "$work/peaceful" || fail "without a limit: exit code $?"
peaceful=$(member parameters_hash "$work/json")
n=0
for processes in 1 2 4; do
    for last in "" checkpoint.best=train_loss; do
        n=$((n + 1))
        mount -t tmpfs -o size=400k none "$disk"
        code=0
        # shellcheck disable=SC2086
        train $processes "$disk/run" checkpoint.every_steps=5 $last || code=$?
        expect 1 "$disk/run"
        grep -q "^lockstep: cannot write $disk/run/.*: No space left on device$" "$work/train.err" ||
            fail "$processes processes: the message is not that the disk is full"
        [ "$(grep -c 'No space' "$work/train.err")" = 1 ] || fail "$processes processes: the message comes more than once"
        [ ! -e "$disk/run/model.safetensors" ] || fail "a run that has failed has left a model"
        [ -e "$disk/run/checkpoints/step-00000005.safetensors" ] || fail "the first checkpoint is not there"

        # still full: the same again, and what is there stays
        newest=$(find "$disk/run/checkpoints" -name 'step-*' | sort | tail -n 1)
        dd if=/dev/zero of="$disk/filler" bs=1k 2>/dev/null || true
        code=0
        # shellcheck disable=SC2086
        train 2 "$disk/run" --resume checkpoint.every_steps=5 $last || code=$?
        expect 1 "$disk/run"
        [ -e "$newest" ] || fail "$newest has gone"

        rm "$disk/filler"
        mount -o remount,size=8m "$disk"
        code=0
        # shellcheck disable=SC2086
        train $((4 / processes)) "$disk/run" --resume checkpoint.every_steps=5 $last || code=$?
        expect 0 "$disk/run"
        [ "$(member parameters_hash "$work/json")" = "$peaceful" ] || fail "the run has come to other parameters"
        umount "$disk"
    done
done
echo "$n runs met a full disk and went on"
