#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Loads files that lockstep has exported into PyTorch, strictly, and compares what the models say. Run by hand, from the
folder of the source tree (torch, numpy, safetensors):

    python3 tests/reference/load_exported.py build/lockstep

Trains a small network on data/digits, with and without dropout, and exports its checkpoint. PyTorch must accept the file
with strict=True and come to the same number of hits and, to 1e-6, the same loss on the test set; it must refuse the
checkpoint itself, whose optimizer state no model has; and what PyTorch writes must be the same model to lockstep again.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn

LOCKSTEP = sys.argv[1]
CONFIG = "examples/digits.yaml"
MEAN, STD, FEATURES, HIDDEN, CLASSES = 0.0192, 0.0236, 64, 64, 10  # of that config


def lockstep(*arguments):
    return subprocess.run([LOCKSTEP, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def test_set():
    images = np.fromfile("data/digits/t10k-images-idx3-ubyte", dtype=np.uint8)[16:]
    labels = np.fromfile("data/digits/t10k-labels-idx1-ubyte", dtype=np.uint8)[8:]
    x = (images.reshape(-1, FEATURES).astype(np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(labels.astype(np.int64))


def sequential(dropout):
    between = [nn.ReLU(), nn.Dropout(dropout)] if dropout > 0 else [nn.ReLU()]
    return nn.Sequential(nn.Linear(FEATURES, HIDDEN), *between, nn.Linear(HIDDEN, CLASSES)).eval()


def evaluate(settings, path):
    found = json.loads(lockstep("eval", CONFIG, "--model", path, "--json", *settings))
    return found["correct"], found["loss"]


def check(dropout, folder):
    settings = [f"model.dropout={dropout}"]
    lockstep("train", CONFIG, "-n", 2, "--output", folder / "run", "epochs=3", "checkpoint.every_steps=100", *settings)
    checkpoint, exported, back = folder / "run/checkpoints/step-00000100.safetensors", folder / "e", folder / "back"
    lockstep("export", checkpoint, exported)

    model = sequential(dropout)
    print(f"dropout {dropout}:", model.load_state_dict(safetensors.torch.load_file(exported), strict=True))
    x, y = test_set()
    with torch.no_grad():
        logits = model(x)
    loss, hits = nn.functional.cross_entropy(logits, y).item(), int((logits.argmax(1) == y).sum())
    ours, our_loss = evaluate(settings, exported)
    print(f"  hits {hits} in PyTorch, {ours} in lockstep; loss {loss:.7f}, {our_loss:.7f}")
    assert hits == ours and abs(loss - our_loss) <= 1e-6 * our_loss

    try:
        model.load_state_dict(safetensors.torch.load_file(checkpoint), strict=True)
        raise AssertionError("PyTorch has taken a checkpoint with optimizer state")
    except RuntimeError as error:
        print("  the checkpoint itself:", str(error).splitlines()[1].strip()[:70])

    safetensors.torch.save_file(model.state_dict(), back)
    assert evaluate(settings, back) == (ours, our_loss)


print("PyTorch", torch.__version__, "safetensors", safetensors.__version__)
for p in (0, 0.1):
    with tempfile.TemporaryDirectory() as name:
        check(p, Path(name))
print("all is well")
