#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the four IDX files of this folder from scikit-learn's copy of the data.

usage: python3 make_digits.py .../sklearn/datasets/data/digits.csv.gz
"""
import gzip
import pathlib
import struct
import sys


def write(prefix, samples):
    here = pathlib.Path(__file__).parent
    images = struct.pack(">IIII", 0x803, len(samples), 8, 8) + b"".join(bytes(s[:64]) for s in samples)
    labels = struct.pack(">II", 0x801, len(samples)) + bytes(s[64] for s in samples)
    (here / f"{prefix}-images-idx3-ubyte").write_bytes(images)
    (here / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)
    pixels = [v for s in samples for v in s[:64]]
    mean = sum(pixels) / len(pixels)
    std = (sum(v * v for v in pixels) / len(pixels) - mean**2) ** 0.5
    classes = [sum(s[64] == c for s in samples) for c in range(10)]
    print(f"{prefix}: {len(samples)} samples {classes}, mean {mean / 255:.6f}, std {std / 255:.6f} of value / 255")


def main():
    with gzip.open(sys.argv[1], "rt") as file:
        samples = [[int(float(v)) for v in line.split(",")] for line in file]
    assert len(samples) == 1797 and all(len(s) == 65 for s in samples)
    write("train", [s for i, s in enumerate(samples) if i % 5 != 4])
    write("t10k", [s for i, s in enumerate(samples) if i % 5 == 4])


if __name__ == "__main__":
    main()
