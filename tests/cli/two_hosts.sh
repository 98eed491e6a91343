#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two hosts, which are two network namespaces of this machine joined by a virtual cable, train MNIST under Open MPI over TCP
# to the same bytes as one host does: two processes, one on each, and four, two on each.
. "$(dirname "$0")/cli_test.sh"
. "$(dirname "$0")/../mpi_launch.sh"
mpi_choose openmpi
near=lockstep-near-$$ far=lockstep-far-$$
leave() {
    ip netns del "$near" 2>/dev/null || true
    ip netns del "$far" 2>/dev/null || true
    rm -rf "$work"
}

[ "$(id -u)" = 0 ] || skip "network namespaces need root"
command -v ip >/dev/null || skip "there is no ip (Debian: iproute2)"
ip netns add "$near" 2>"$work/netns.err" || skip "no network namespaces here: $(cat "$work/netns.err")"
trap leave EXIT
ip netns add "$far"
ip link add cable netns "$near" type veth peer name cable netns "$far" 2>"$work/link.err" ||
    skip "no virtual cable here: $(cat "$work/link.err")"
for host in "$near 10.77.1.1" "$far 10.77.1.2"; do
    name=${host% *}
    ip -n "$name" link set lo up
    ip -n "$name" addr add "${host#* }/24" dev cable
    ip -n "$name" link set cable up
done

# on NAMESPACE COMMAND ...: there, with a host name of its own, by which Open MPI names the files that a host's processes share
cat >"$work/on" <<'END'
#!/bin/sh
host=$1
shift
exec ip netns exec "$host" unshare --uts sh -c 'hostname "$0" && exec "$@"' "$host" "$@"
END
# What mpirun calls in place of ssh: HOST COMMAND ...
cat >"$work/agent" <<END
#!/bin/sh
shift
exec "$work/on" $far sh -c "\$*"
END
chmod +x "$work/on" "$work/agent"
"$work/on" "$near" true 2>"$work/uts.err" || skip "no host names of their own here: $(cat "$work/uts.err")"

if [ -z "${LOCKSTEP_SANITIZE:-}" ] && scripts/get-data mnist 2>"$work/get-data.err"; then
    what="examples/mnist.yaml epochs=auto steps=60"
else
    echo "with the digits: MNIST is not there or too slow under sanitizers"
    what="examples/digits.yaml epochs=2"
fi

# shellcheck disable=SC2086 # words
for each in 1 2; do
    n=$((2 * each))
    "$lockstep" train $what world=4 -n $n --json --output "$work/one" --overwrite >"$work/one.json" 2>"$work/one.err" ||
        fail "$n processes on one host: exit code $?"
    "$work/on" "$near" $mpirun --mca plm_rsh_agent "$work/agent" --mca btl tcp,vader,self --mca btl_tcp_if_include cable \
        --mca oob_tcp_if_include cable --host 10.77.1.1:$each,10.77.1.2:$each -n $n \
        "$lockstep" train $what world=4 --json --output "$work/two" --overwrite >"$work/two.json" 2>"$work/two.err" ||
        fail "$n processes on two hosts: exit code $?"
    for key in steps processes same_bits parameters_hash train_loss test_loss; do
        same $key "$work/one.json" "$work/two.json"
    done
    cmp "$work/one/model.safetensors" "$work/two/model.safetensors" || fail "one host and two have written different models"
    # the bytes have gone over the cable
    sent=$(ip netns exec "$near" cat /sys/class/net/cable/statistics/tx_bytes)
    [ "$sent" -gt 100000 ] || fail "only $sent bytes have gone over the cable"
done
