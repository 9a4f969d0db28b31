#!/usr/bin/env python3
"""The reference step in PyTorch: layers of a residual transformer whose sublayers are compiled, forward and backward, bf16.

torch_step.py [--layers 4 --hidden 2560 --heads 20 --intermediate 6912 --length 4096]: prints ms a step and tokens a second."""
import argparse
import statistics

import torch

from torch_model import Attention, FeedForward, rotary_tables

parser = argparse.ArgumentParser()
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--hidden", type=int, default=2560)
parser.add_argument("--heads", type=int, default=20)
parser.add_argument("--intermediate", type=int, default=6912)
parser.add_argument("--length", type=int, default=4096)
parser.add_argument("--repetitions", type=int, default=20)
given = parser.parse_args()

torch.manual_seed(1)
where = {"device": "cuda", "dtype": torch.bfloat16}
cosine, sine = rotary_tables(given.length, given.hidden // given.heads, **where)
attention = [Attention(given.hidden, given.heads, **where) for _ in range(given.layers)]
feed_forward = [FeedForward(given.hidden, given.intermediate, **where) for _ in range(given.layers)]
for sublayer in attention + feed_forward:
    sublayer.compile()
parameters = [p for sublayer in attention + feed_forward for p in sublayer.parameters()]
state = torch.randn(1, given.length, given.hidden, requires_grad=True, **where)
gradient = torch.randn_like(state) * 1e-3


def step():
    x = state
    for one, other in zip(attention, feed_forward):
        x = other(one(x, cosine, sine))
    x.backward(gradient)


for parameter in parameters:        # gradients accumulate, as in a pipeline's step
    parameter.grad = torch.zeros_like(parameter)
for _ in range(5):
    step()
torch.cuda.synchronize()
times = []
for _ in range(given.repetitions):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize()
    times.append(begin.elapsed_time(end))
median = statistics.median(times)
print(f"step {median:.3f} ms, {given.length / median * 1e3:.0f} tokens/s (PyTorch {torch.__version__})")
