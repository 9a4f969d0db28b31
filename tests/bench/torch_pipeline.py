#!/usr/bin/env python3
"""What a user can assemble with PyTorch for the shapes of pipeline.sh: torch.distributed.pipelining's 1F1B (or interleaved 1F1B with two
stages a rank), forward and backward, bf16. The residual model's sublayers are compiled; of mhc, whole layers.

python3 -m torch.distributed.run --standalone --nproc-per-node P torch_pipeline.py [--connections residual|mhc] ...: prints one line."""
import argparse
import os
import statistics
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B
from torch.nn import functional

from torch_model import Attention, Connected, FeedForward, Readout, rotary_tables

parser = argparse.ArgumentParser()
parser.add_argument("--connections", choices=["residual", "mhc"], default="residual")
parser.add_argument("--schedule", choices=["1f1b", "interleaved"], default="1f1b")
parser.add_argument("--streams", type=int, default=4)
parser.add_argument("--layers", type=int, default=16)
parser.add_argument("--hidden", type=int, default=2560)
parser.add_argument("--heads", type=int, default=20)
parser.add_argument("--intermediate", type=int, default=6912)
parser.add_argument("--vocabulary", type=int, default=32768)
parser.add_argument("--length", type=int, default=4096)
parser.add_argument("--microbatches", type=int, default=8)
parser.add_argument("--warm-ups", type=int, default=3)
parser.add_argument("--repetitions", type=int, default=5)
parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
parser.add_argument("--eager", action="store_true", help="without the compiler")
given = parser.parse_args()

rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
device = torch.device(given.device, rank) if given.device == "cuda" else torch.device("cpu")
mhc = given.connections == "mhc"
where = {"device": device, "dtype": torch.bfloat16}


def compiled(module):
    if not given.eager:
        module.compile()
    return module


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        sublayers = [Attention(given.hidden, given.heads, **where), FeedForward(given.hidden, given.intermediate, **where)]
        if mhc:
            sublayers = [Connected(sublayer, given.hidden, given.streams, device) for sublayer in sublayers]
        else:
            sublayers = [compiled(sublayer) for sublayer in sublayers]
        self.attention, self.feed_forward = sublayers

    def forward(self, x, cosine, sine):
        return self.feed_forward(self.attention(x, cosine, sine))


class Head(nn.Module):
    """The loss of a micro-batch: [1]."""

    def __init__(self):
        super().__init__()
        self.readout = Readout(given.hidden, given.streams, device) if mhc else nn.Identity()
        self.norm = nn.RMSNorm(given.hidden, **where)
        self.out = nn.Linear(given.hidden, given.vocabulary, bias=False, **where)

    def forward(self, x, labels):
        logits = self.out(self.norm(self.readout(x)))
        return functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten()).unsqueeze(0) / given.microbatches


class Stage(nn.Module):
    def __init__(self, index, count):
        super().__init__()
        layers = given.layers // count + (index < given.layers % count)
        self.embedding = nn.Embedding(given.vocabulary, given.hidden, **where) if index == 0 else None
        self.layers = nn.ModuleList([compiled(Layer()) if mhc else Layer() for _ in range(layers)])
        self.head = compiled(Head()) if index == count - 1 else None
        self.tables = rotary_tables(given.length, given.hidden // given.heads, **where)

    def forward(self, x, labels=None):
        if self.embedding is not None:
            x = self.embedding(x)
            if mhc:
                x = x.unsqueeze(2).repeat(1, 1, given.streams, 1)
        for layer in self.layers:
            x = layer(x, *self.tables)
        return x if self.head is None else self.head(x, labels)


def make_schedule():
    chunks = 2 if given.schedule == "interleaved" else 1
    modules = [Stage(rank + chunk * ranks, chunks * ranks) for chunk in range(chunks)]
    stages = [PipelineStage(module, rank + chunk * ranks, chunks * ranks, device) for chunk, module in enumerate(modules)]
    for module in modules:
        for parameter in module.parameters():    # gradients accumulate over steps: their zeroing is no part of the time
            parameter.grad = torch.zeros_like(parameter)
    # The head makes the loss, so that no logits are kept; it is divided by the micro-batches there.
    options = {"loss_fn": lambda loss, _: loss.sum(), "scale_grads": False}
    if chunks == 1:
        return Schedule1F1B(stages[0], given.microbatches, **options)
    return ScheduleInterleaved1F1B(stages, given.microbatches, **options)


def synchronize():
    if given.device == "cuda":
        torch.cuda.synchronize()


def most_memory():
    most = torch.tensor([torch.cuda.max_memory_allocated() / 2**30 if given.device == "cuda" else 0.0], device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return most.item()


if given.device == "cuda":
    torch.cuda.set_device(device)
dist.init_process_group("nccl" if given.device == "cuda" else "gloo", device_id=device if given.device == "cuda" else None)
torch.set_float32_matmul_precision("high")
torch.manual_seed(1 + rank)
schedule = make_schedule()
generator = torch.Generator().manual_seed(1)
tokens, targets = torch.randint(given.vocabulary, (2, given.microbatches, given.length), generator=generator).to(device)


def step():
    """The loss, on the last rank."""
    inputs = [tokens] if rank == 0 else []
    if rank < ranks - 1:
        schedule.step(*inputs, return_outputs=False)
        return None
    losses = []
    schedule.step(*inputs, labels=targets, target=targets, losses=losses, return_outputs=False)
    return losses


losses = None
for _ in range(given.warm_ups):
    losses = step()
times = []
for _ in range(given.repetitions):
    synchronize()
    dist.barrier()
    begin = time.perf_counter()
    losses = step()
    synchronize()
    times.append(time.perf_counter() - begin)
loss = torch.stack(losses).sum() if losses else torch.zeros((), device=device)
dist.all_reduce(loss)                       # the last rank's
longest = torch.tensor([statistics.median(times)], device=device, dtype=torch.float64)
dist.all_reduce(longest, dist.ReduceOp.MAX)
memory = most_memory()
if not torch.isfinite(loss):
    raise SystemExit(f"the loss is {loss.item()}")
if rank == 0:
    seconds = longest.item()
    print(f"{given.connections}, {given.schedule}, {given.microbatches} micro-batches: forward and backward {1e3 * seconds:.1f} ms, "
          f"{given.microbatches * given.length / seconds:.0f} tokens/s, {memory:.1f} GiB, loss {loss.item():.3f} (PyTorch {torch.__version__}"
          f"{', eager' if given.eager else ''})", flush=True)
dist.destroy_process_group()
