#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes lr_vectors.txt: the learning rates of torch.optim.lr_scheduler.

usage: python3 make_lr_vectors.py > lr_vectors.txt    (needs PyTorch)

A run of 8 epochs of 5 steps. One line per schedule: its settings in lockstep's words, joined by semicolons, warm-up steps,
number of rates, and the rate of each step. Schedulers over the run step after every step, the others after every
epoch, which is how lockstep's clock of samples counts. A warm-up goes from 0.1 to 0.4; it is LinearLR's, followed by
the schedule over the steps that are left.
"""
import torch
from torch.optim import lr_scheduler as lr

EPOCHS, STEPS = 8, 5
TOTAL = EPOCHS * STEPS
BASE, SCALED = 0.1, 0.4

# settings, scheduler over n steps
PER_STEP = [
    ("lr.schedule=cosine", lambda o, n: lr.CosineAnnealingLR(o, T_max=n)),
    ("lr.schedule=cosine;lr.end_factor=0.1", lambda o, n: lr.CosineAnnealingLR(o, T_max=n, eta_min=0.1 * SCALED)),
    ("lr.schedule=linear", lambda o, n: lr.LinearLR(o, start_factor=1, end_factor=0, total_iters=n)),
    ("lr.schedule=linear;lr.end_factor=0.25", lambda o, n: lr.LinearLR(o, start_factor=1, end_factor=0.25, total_iters=n)),
    ("lr.schedule=polynomial", lambda o, n: lr.PolynomialLR(o, total_iters=n)),
    ("lr.schedule=polynomial;lr.power=2.5", lambda o, n: lr.PolynomialLR(o, total_iters=n, power=2.5)),
]
PER_EPOCH = [
    ("lr.schedule=step;lr.step_epochs=3", lambda o: lr.StepLR(o, step_size=3)),
    ("lr.schedule=step;lr.step_epochs=1;lr.gamma=0.7", lambda o: lr.StepLR(o, step_size=1, gamma=0.7)),
    ("lr.schedule=multistep;lr.milestones=2,3,7", lambda o: lr.MultiStepLR(o, milestones=[2, 3, 7])),
    ("lr.schedule=multistep;lr.milestones=1;lr.gamma=0.5", lambda o: lr.MultiStepLR(o, milestones=[1], gamma=0.5)),
    ("lr.schedule=exponential;lr.gamma=0.9", lambda o: lr.ExponentialLR(o, gamma=0.9)),
]


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=SCALED)


def rates(opt, scheduler, every):
    out = []
    for step in range(TOTAL):
        out.append(opt.param_groups[0]["lr"])
        opt.step()
        if (step + 1) % every == 0:
            scheduler.step()
    return out


def warmed_up(opt, make, warmup):
    ramp = lr.LinearLR(opt, start_factor=BASE / SCALED, total_iters=warmup)
    return lr.SequentialLR(opt, [ramp, make(opt, TOTAL - warmup)], milestones=[warmup])


def line(settings, warmup, values):
    return " ".join([settings, str(warmup), str(len(values)), *(f"{v:.17g}" for v in values)])


def main():
    print(f"# torch {torch.__version__}, make_lr_vectors.py")
    for settings, make in PER_STEP:
        opt = optimizer()
        print(line(settings, 0, rates(opt, make(opt, TOTAL), 1)))
        opt = optimizer()
        print(line(settings, 10, rates(opt, warmed_up(opt, make, 10), 1)))
    for settings, make in PER_EPOCH:
        opt = optimizer()
        print(line(settings, 0, rates(opt, make(opt), STEPS)))


if __name__ == "__main__":
    main()
