#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes sampler_vectors.txt: the index lists of torch.utils.data.DistributedSampler.

usage: python3 make_sampler_vectors.py > sampler_vectors.txt    (needs PyTorch)

One line per rank: samples, world, seed, epoch, tail (pad: drop_last=False, drop: drop_last=True), rank, length of the
list, CRC-32 of the list as little-endian int32, number of indices that follow, and those: the whole list where it is
short, else its first and last 16.
"""
import struct
import zlib

import torch
from torch.utils.data import DistributedSampler

# The second seed has more than 32 bits; the generator takes the low 32 of seed + epoch.
SEEDS = (0, 2**32 - 3)
ENDS = 16


def indices(n, world, seed, epoch, drop, rank):
    sampler = DistributedSampler(range(n), num_replicas=world, rank=rank, shuffle=True, seed=seed, drop_last=drop)
    sampler.set_epoch(epoch)
    return list(sampler)


def line(n, world, seed, epoch, drop, rank):
    order = indices(n, world, seed, epoch, drop, rank)
    crc = zlib.crc32(struct.pack(f"<{len(order)}i", *order))
    whole = n <= 1000 and seed == 0 or len(order) <= 2 * ENDS
    shown = order if whole else order[:ENDS] + order[-ENDS:]
    fields = [n, world, seed, epoch, "drop" if drop else "pad", rank, len(order), crc, len(shown), *shown]
    return " ".join(map(str, fields))


def main():
    print(f"# torch {torch.__version__}, make_sampler_vectors.py")
    for n in (7, 1000, 60000):
        for world in (1, 2, 3, 8):
            for seed in SEEDS:
                for epoch in (0, 1, 5):
                    for drop in (False, True):
                        for rank in range(world):
                            print(line(n, world, seed, epoch, drop, rank))


if __name__ == "__main__":
    main()
