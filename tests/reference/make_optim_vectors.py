#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes optim_vectors.h: what torch.optim makes of a fixed sequence of gradients and learning rates.

    python3 make_optim_vectors.py > optim_vectors.h

Parameters and gradients come from a 32-bit linear congruential generator (Numerical Recipes' constants) that the test
repeats: x = 1664525 x + 1013904223, value = signed(x) >> 8 over 2^23, exact in float32. The parameters are drawn first,
then one gradient per step. The rate falls with the step, so that a momentum which contained it would show.
"""
import numpy as np
import torch

N, STEPS, RECORDED = 37, 200, (1, 10, 200)

CASES = {
    "sgd": (torch.optim.SGD, 0.05, {}),
    "sgd_weight_decay": (torch.optim.SGD, 0.05, {"weight_decay": 1e-2}),
    "momentum": (torch.optim.SGD, 0.02, {"momentum": 0.9}),
    "momentum_weight_decay": (torch.optim.SGD, 0.02, {"momentum": 0.9, "weight_decay": 1e-2}),
    "nesterov": (torch.optim.SGD, 0.02, {"momentum": 0.9, "nesterov": True}),
    "nesterov_weight_decay": (torch.optim.SGD, 0.02, {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}),
    "adam": (torch.optim.Adam, 0.01, {}),
    "adam_weight_decay": (torch.optim.Adam, 0.01, {"weight_decay": 1e-2}),
    "adam_small_betas": (torch.optim.Adam, 0.01, {"betas": (0.3, 0.9), "eps": 1e-3}),
    "adamw": (torch.optim.AdamW, 0.01, {}),
    "adamw_weight_decay": (torch.optim.AdamW, 0.01, {"weight_decay": 0.1}),
}


class Generator:
    def __init__(self):
        self.state = 12345

    def vector(self):
        values = np.empty(N, np.float32)
        for i in range(N):
            self.state = (1664525 * self.state + 1013904223) % 2**32
            signed = self.state - 2**32 if self.state >= 2**31 else self.state
            values[i] = np.float32((signed >> 8) / 2**23)
        return torch.from_numpy(values)


def trajectory(kind, lr, arguments):
    generator = Generator()
    w = torch.nn.Parameter(generator.vector())
    optimizer = kind([w], lr=lr, foreach=False, **arguments)
    for step in range(1, STEPS + 1):
        optimizer.param_groups[0]["lr"] = lr * (1 - (step - 1) / 400)
        w.grad = generator.vector()
        optimizer.step()
        if step in RECORDED:
            yield w.detach().numpy().copy()


def number(x):
    text = f"{x:.9g}"
    return text + ("f" if "." in text or "e" in text else ".0f")


def rows(vectors):
    for vector in vectors:
        yield "        {" + ", ".join(number(x) for x in vector) + "},"


print("/* SPDX-License-Identifier: Apache-2.0 */")
print(f"/* Written by make_optim_vectors.py with PyTorch {torch.__version__}. Do not edit. */")
print("/* clang-format off */")
print(f"enum {{ VECTOR_ELEMS = {N}, VECTOR_STEPS = {STEPS}, VECTORS_RECORDED = {len(RECORDED)} }};")
print(f"static const int recorded_steps[VECTORS_RECORDED] = {{{', '.join(map(str, RECORDED))}}};")
print("static const struct {")
print("    const char *name;")
print("    double lr;")
print("    float w[VECTORS_RECORDED][VECTOR_ELEMS]; /* after those steps */")
print("} vectors[] = {")
for name, (kind, lr, arguments) in CASES.items():
    print(f'    {{"{name}", {lr}, {{')
    print("\n".join(rows(trajectory(kind, lr, arguments))))
    print("    }},")
print("};")
