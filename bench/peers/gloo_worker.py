# SPDX-License-Identifier: Apache-2.0
"""One process of the Gloo side of bench/vs_peers: what `lockstep bench` does (src/bench/bench_measure.c), with
torch.distributed over Gloo.

    lockstep run -n P python gloo_worker.py OPERATION MIN_BYTES MAX_BYTES FACTOR        barrier: - for the sizes

Rank 0 prints what `lockstep bench --json` prints of rows.
"""

import json
import statistics
import sys
import time

import torch
import torch.distributed as dist

WARMUP, LEAST_CALLS, MOST_CALLS, SECONDS_OF_A_SIZE = 5, 5, 5000, 0.25
OPERATIONS = {
    "all_reduce": dist.all_reduce,
    "broadcast": lambda data: dist.broadcast(data, 0),
    "barrier": lambda data: dist.barrier(),
}


def size_of(text):
    units = {"K": 10, "M": 20, "G": 30}
    return int(text[:-1]) << units[text[-1]] if text[-1] in units else int(text)


class Bench:
    def __init__(self, name):
        self.name, self.operation = name, OPERATIONS[name]
        self.rank, self.size, self.call = dist.get_rank(), dist.get_world_size(), 0

    def value(self):
        """Small whole numbers: what each writes, and what it must find."""
        found = self.call % 61
        if self.name == "all_reduce":
            return found + self.rank, self.size * found + self.size * (self.size - 1) // 2
        return (found, found) if self.rank == 0 else (-1, found)

    def run_call(self, data):
        self.call += 1
        data.fill_(self.value()[0])
        dist.barrier()
        start = time.perf_counter_ns()
        self.operation(data)
        return (time.perf_counter_ns() - start) * 1e-9

    def wrong(self, data):
        return 0 if self.name == "barrier" else int((data != self.value()[1]).sum())

    def measure(self, data):
        for _ in range(WARMUP):
            start = time.perf_counter()
            self.run_call(data)
            cycle = torch.tensor([time.perf_counter() - start], dtype=torch.float64)
        dist.all_reduce(cycle, dist.ReduceOp.MAX)
        calls = int(min(max(SECONDS_OF_A_SIZE / cycle.item(), LEAST_CALLS), MOST_CALLS))
        wrong = self.wrong(data)
        seconds = torch.tensor([self.run_call(data) for _ in range(calls)], dtype=torch.float64)
        wrong = torch.tensor([wrong + self.wrong(data)])
        dist.all_reduce(wrong)
        dist.all_reduce(seconds, dist.ReduceOp.MAX)
        median = statistics.median(seconds.tolist())
        return {"bytes": 4 * len(data), "median_us": 1e6 * median, "wrong_elements": wrong.item()}


def main():
    operation, factor = sys.argv[1], int(sys.argv[4])
    first, last = (0, 0) if operation == "barrier" else map(size_of, sys.argv[2:4])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    bench, rows, data = Bench(operation), [], torch.zeros(max(last // 4, 1))
    while first <= last:
        rows.append(bench.measure(data[: first // 4]))
        first = first * factor if first > 0 else 1
    if bench.rank == 0:
        wrong = sum(row["wrong_elements"] for row in rows)
        print(json.dumps({"wrong_elements": wrong, "rows": rows, "version": torch.__version__}))
    dist.destroy_process_group()


main()
