#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes safetensors_sample.safetensors: a file of the format's reference implementation (package safetensors 0.8.0, with
numpy), which tests/unit/test_safetensors.c reads. Prints what it holds.

Values are small integers and fractions of powers of two, so that the test can state them by hand. One tensor has another type,
one is a scalar, one is empty.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

TENSORS = {
    "0.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 4 - 0.5,
    "0.bias": np.array([-1.0, 1024.0], dtype=np.float32),
    "scale": np.array(0.125, dtype=np.float32),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "half": np.array([1.5, -2.0, 3.25], dtype=np.float16),
    "steps": np.array([7], dtype=np.int64),
}

path = Path(__file__).resolve().parent / "safetensors_sample.safetensors"
save_file(TENSORS, path, metadata={"format": "pt", "author": "Grüße"})
for name, tensor in TENSORS.items():
    print(name, tensor.dtype, tensor.shape, tensor.tolist())
