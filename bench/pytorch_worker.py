# SPDX-License-Identifier: Apache-2.0
"""One worker of the PyTorch side of bench/vs_pytorch: the MLP trained with DDP over Gloo, or without DDP.

Started once per worker with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set, as torchrun does. Rank 0 prints one JSON
object. With --one-step the process ends right after its first step.

What makes it fast was measured with PyTorch 2.13 on 2 cores of an AMD EPYC with AVX-512: all variants in one process, in
turns of 5 steps, 200 times. Their speed, by the median over the turns, as a fraction of what is used here:

                                                              1 worker   2 workers
    used here: fused SGD, gradients as views of buckets,
        gradients set to None, index_select, 0.6 MB buckets     1.00        1.00
    SGD with foreach=False                                      0.96        0.98
    SGD with foreach=True                                       0.95        0.96
    x[indices]                                                  0.98        0.98
    gradient_as_bucket_view=False                               0.95        0.96
    zero_grad(set_to_none=False)                                0.95        0.96
    static_graph=True                                           0.99        0.99
    bucket_cap_mb left out (25: one bucket, no overlap)         0.97        0.99

torch.compile gained nothing that stood out of the noise and took half a minute to start.
"""

import argparse
import json
import os
import resource
import struct
import time
from pathlib import Path

import torch
from torch import nn

IDX_IMAGES_HEADER, IDX_LABELS_HEADER = 16, 8
MEAN, STD = 0.1307, 0.3081


def read_samples(folder):
    """The training set: normalised floats and labels. In pieces, so that the bytes add nothing to the peak of memory."""
    labels = (folder / "train-labels-idx1-ubyte").read_bytes()[IDX_LABELS_HEADER:]
    y = torch.frombuffer(bytearray(labels), dtype=torch.uint8).long()
    with open(folder / "train-images-idx3-ubyte", "rb") as images:
        n, rows, columns = struct.unpack(">4I", images.read(IDX_IMAGES_HEADER))[1:]
        x = torch.empty(n, rows * columns)
        for piece in x.split(1000):
            pixels = bytearray(images.read(piece.numel()))
            piece.copy_(torch.frombuffer(pixels, dtype=torch.uint8).view_as(piece))
    return x.mul_(1 / (255 * STD)).sub_(MEAN / STD), y


def read_safetensors(path):
    data = bytearray(path.read_bytes())
    start = 8 + struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:start])
    values = torch.frombuffer(data, dtype=torch.float32, offset=start)
    tensors = {}
    for name, tensor in header.items():
        begin, end = (offset // 4 for offset in tensor["data_offsets"])
        tensors[name] = values[begin:end].view(tensor["shape"])
    return tensors


def make_model(initial):
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    model.load_state_dict(initial)
    return model


def epoch_indices(n_samples, epoch, rank, world, batch):
    """This worker's samples of each step: DistributedSampler's, with seed 0, and those that are left at the end."""
    order = torch.randperm(n_samples, generator=torch.Generator().manual_seed(epoch))
    return order[rank::world].contiguous().split(batch)


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--init", type=Path, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--momentum", type=float, required=True)
    parser.add_argument("--one-step", action="store_true")
    parser.add_argument("--plain", action="store_true", help="no process group, no DDP")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    x, y = read_samples(arguments.data)
    model = net = make_model(read_safetensors(arguments.init))
    if not arguments.plain:
        torch.distributed.init_process_group("gloo")
        net = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True, bucket_cap_mb=0.6)
    optimizer = torch.optim.SGD(model.parameters(), lr=arguments.lr, momentum=arguments.momentum, fused=True)

    epoch_seconds = []
    for epoch in range(arguments.epochs):
        start = time.monotonic()
        steps = epoch_indices(len(x), epoch, rank, world, arguments.batch)
        losses = []
        for indices in steps:
            loss = nn.functional.cross_entropy(net(x.index_select(0, indices)), y.index_select(0, indices))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            if arguments.one_step:
                os._exit(0)
        epoch_seconds.append(time.monotonic() - start)

    loss_sum = sum(loss.double() * len(indices) for loss, indices in zip(losses, steps))
    if not arguments.plain:
        torch.distributed.all_reduce(loss_sum)
        torch.distributed.destroy_process_group()
    if rank == 0:
        result = {
            "samples_per_second": (arguments.epochs - 1) * len(x) / sum(epoch_seconds[1:]),
            "train_loss": loss_sum.item() / len(x),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "version": torch.__version__,
        }
        print(json.dumps(result))


main()
