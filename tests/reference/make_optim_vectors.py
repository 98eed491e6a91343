#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes optim_vectors.safetensors: what PyTorch's optimizers make of 200 steps of recorded gradients.

    python3 make_optim_vectors.py

Nothing but the outcome is stored: parameters and gradients are a function of (stream, element) that the test repeats, with
values k / 2^23 times a power of two, exact in float32 (see draw). Gradients change their size by a factor of 1,024 from
step to step, the learning rate rises for 20 steps and then falls, one tensor's gradient is zero for a step, and the bias
starts at zero, so that there is no norm to make a trust ratio of.

Every optimizer runs without weight decay, with decay on everything, and with decay on weights alone (two parameter groups),
and each of these without clipping, clipped by global norm and clipped by value. LARS and LAMB, which PyTorch does not have,
are written here from the papers' formulas (Lars, Lamb). All runs are made in float32 and in float64.
"""
import json
import struct
from pathlib import Path

import torch

OUTPUT = Path(__file__).resolve().parent / "optim_vectors.safetensors"
SHAPES = ((101, 97), (31, 9), (597,))
STEPS, EARLY_STEP, ZERO_STEP = 200, 10, 50
STRIDE = 37  # every so many elements one is recorded, counted over all tensors
MAX_NORM, MAX_VALUE = 4.0, 0.05


def norm(x):
    """In double precision: in float32 torch's norm of 9,797 elements is 8e-6 wrong when clipping made them equal, and so would be the trust ratio."""
    return torch.linalg.vector_norm(x, dtype=torch.float64).item()


class Lars(torch.optim.Optimizer):
    """You et al. 2017 (arXiv 1708.03888), with the learning rate outside the velocity as in torch.optim.SGD."""

    def __init__(self, groups, lr, momentum, trust_coefficient):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "eta": trust_coefficient, "weight_decay": 0, "trust": True})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in group["params"]:
                state, decay = self.state[w], group["weight_decay"]
                w_norm, g_norm = norm(w), norm(w.grad)
                trust = 1.0
                if group["trust"] and w_norm > 0 and g_norm > 0:
                    trust = group["eta"] * w_norm / (g_norm + decay * w_norm)
                u = state.setdefault("momentum_buffer", torch.zeros_like(w))
                u.mul_(group["momentum"]).add_(trust * (w.grad + decay * w))
                w.sub_(group["lr"] * u)


class Lamb(torch.optim.Optimizer):
    """You et al. 2019 (arXiv 1904.00962), algorithm 2: Adam's moments with both bias corrections."""

    def __init__(self, groups, lr, betas, eps):
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0, "trust": True})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for w in group["params"]:
                state = self.state[w]
                t = state["step"] = state.get("step", 0) + 1
                m = state.setdefault("exp_avg", torch.zeros_like(w))
                v = state.setdefault("exp_avg_sq", torch.zeros_like(w))
                m.mul_(beta1).add_((1 - beta1) * w.grad)
                v.mul_(beta2).add_((1 - beta2) * w.grad * w.grad)
                m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
                d = m_hat / (v_hat.sqrt() + group["eps"]) + group["weight_decay"] * w
                w_norm, d_norm = norm(w), norm(d)
                trust = w_norm / d_norm if group["trust"] and w_norm > 0 and d_norm > 0 else 1.0
                w.sub_(group["lr"] * trust * d)


SINGLE = {"foreach": False}
# name: class, learning rate, weight decay where there is one, the rest
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, 0.05, 1e-2, SINGLE),
    "momentum": (torch.optim.SGD, 0.02, 1e-2, {"momentum": 0.9, **SINGLE}),
    "nesterov": (torch.optim.SGD, 0.02, 1e-2, {"momentum": 0.9, "nesterov": True, **SINGLE}),
    "adam": (torch.optim.Adam, 0.01, 1e-2, SINGLE),
    "adam_small_betas": (torch.optim.Adam, 0.01, 1e-2, {"betas": (0.3, 0.9), "eps": 1e-3, **SINGLE}),
    "adamw": (torch.optim.AdamW, 0.01, 0.1, SINGLE),
    "lars": (Lars, 0.1, 1e-2, {"momentum": 0.9, "trust_coefficient": 0.02}),
    "lamb": (Lamb, 0.01, 1e-2, {"betas": (0.9, 0.999), "eps": 1e-6}),
}
DECAYS = ("no_decay", "decay", "weights_decay")
CLIPS = ("no_clip", "clip_norm", "clip_value")


def draw(stream, shape):
    """Uniform in [-1, 1): a hash (lowbias32) of stream and element number, its upper 24 bits over 2^23."""
    n = torch.Size(shape).numel()
    x = torch.arange(n, dtype=torch.int64) ^ (stream * 0x9E3779B9 & 0xFFFFFFFF)
    x = (x ^ x >> 16) * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ x >> 15) * 0x846CA68B & 0xFFFFFFFF
    x = x ^ x >> 16
    signed = torch.where(x >= 2**31, x - 2**32, x)
    return ((signed >> 8).to(torch.float64) / 2**23).reshape(shape)


def initial(tensor):
    return draw(tensor + 1, SHAPES[tensor]) / 2 if len(SHAPES[tensor]) > 1 else torch.zeros(SHAPES[tensor], dtype=torch.float64)


def gradient(step, tensor):
    if step == ZERO_STEP and tensor == 1:
        return torch.zeros(SHAPES[tensor], dtype=torch.float64)
    return draw(16 * step + tensor + 1, SHAPES[tensor]) * 2.0 ** ((5 * step + 3 * tensor) % 11 - 8)


GRADIENTS = [[gradient(step, tensor) for tensor in range(len(SHAPES))] for step in range(1, STEPS + 1)]


def rate_factor(step):
    return step / 20 if step < 20 else 1 - (step - 20) / 400


def groups_of(parameters, decay, weight_decay, has_trust):
    if decay == "no_decay":
        return [{"params": parameters, "weight_decay": 0.0}]
    if decay == "decay":
        return [{"params": parameters, "weight_decay": weight_decay}]
    biases = {"params": [w for w in parameters if w.ndim < 2], "weight_decay": 0.0}
    if has_trust:
        biases["trust"] = False
    return [{"params": [w for w in parameters if w.ndim >= 2], "weight_decay": weight_decay}, biases]


def record(parameters):
    """The recorded elements, and the norm of each tensor."""
    elements = torch.cat([w.detach().flatten() for w in parameters])[::STRIDE]
    norms = torch.stack([torch.linalg.vector_norm(w.detach().double()) for w in parameters])
    return elements.to(torch.float32), norms.to(torch.float32)


def trajectory(name, decay, clip, dtype):
    make, lr, weight_decay, options = OPTIMIZERS[name]
    parameters = [torch.nn.Parameter(initial(i).to(dtype)) for i in range(len(SHAPES))]
    optimizer = make(groups_of(parameters, decay, weight_decay, make in (Lars, Lamb)), lr=lr, **options)
    recorded = {}
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = lr * rate_factor(step)
        for w, g in zip(parameters, GRADIENTS[step - 1]):
            w.grad = g.to(dtype, copy=True)  # clipping works in place
        if clip == "clip_norm":
            torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM, foreach=False)
        elif clip == "clip_value":
            torch.nn.utils.clip_grad_value_(parameters, MAX_VALUE, foreach=False)
        optimizer.step()
        if step in (EARLY_STEP, STEPS):
            recorded[step] = record(parameters)
    return recorded


def write_safetensors(path, tensors, metadata):
    """8 bytes header length, a JSON header, the tensors' bytes one after the other."""
    header, data = {"__metadata__": metadata}, b""
    for name, tensor in tensors.items():
        bytes_ = tensor.contiguous().numpy().astype("<f4").tobytes()
        offsets = [len(data), len(data) + len(bytes_)]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
        data += bytes_
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size} bytes")


def main():
    torch.set_num_threads(1)
    tensors, apart = {}, {}
    for name in OPTIMIZERS:
        for decay in DECAYS:
            for clip in CLIPS:
                single = trajectory(name, decay, clip, torch.float32)
                double = trajectory(name, decay, clip, torch.float64)
                rows = (single[EARLY_STEP], single[STEPS], double[STEPS])
                tensors[f"{name}.{decay}.{clip}"] = torch.stack([elements for elements, _ in rows])
                tensors[f"{name}.{decay}.{clip}.norms"] = torch.stack([norms for _, norms in rows])
                difference = (rows[1][0] - rows[2][0]).abs().max() / rows[2][0].abs().max()
                apart[name] = max(apart.get(name, 0.0), difference.item())
    for name, difference in apart.items():
        print(f"{name}: float32 and float64 are {difference:.1e} of the largest parameter apart")
    write_safetensors(OUTPUT, tensors, {"torch": torch.__version__})


if __name__ == "__main__":
    main()
