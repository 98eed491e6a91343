# SPDX-License-Identifier: Apache-2.0
"""One worker of the PyTorch side of bench/vs_pytorch: the MLP trained with DDP over Gloo, or without DDP.

Started once per worker with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set, as torchrun does. Rank 0 prints one JSON
object. With --one-step the process ends right after its first step.

What makes it fast. Steps of each variant were timed in turns within one process, on 2 cores of an AMD EPYC with AVX-512,
PyTorch 2.13; the fastest tenth in samples per second at 1 and 2 workers, where others used the machine too, so
differences of less than 5 % mean little:

    this program, except SGD with foreach=False        26,700   21,600
    SGD with fused=True (used here)                    28,200   21,500
    SGD with foreach=True                              27,500   20,900
    x[idx] instead of x.index_select(0, idx)           26,700   20,200
    gradient_as_bucket_view=False                      26,900   19,400
    the same and zero_grad(set_to_none=False)          25,600   18,200
    zero_grad(set_to_none=False)                       26,400   19,400
    static_graph=True                                  27,500   21,400
    static_graph=True, fused=True                      28,000   19,500
    buckets of 0.6 MB or 1.2 MB instead of 25 MB       27,500   22,500, 18,800
    torch.compile: within the noise at 1 and 2 workers, and half a minute of start-up
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
        net = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
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
