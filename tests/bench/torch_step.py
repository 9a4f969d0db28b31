#!/usr/bin/env python3
"""The reference step in PyTorch: layers of a residual transformer whose sublayers are compiled, forward and backward, bf16.

torch_step.py [--layers 4 --hidden 2560 --heads 20 --intermediate 6912 --length 4096]: prints ms a step and tokens a second."""
import argparse
import statistics

import torch
from torch import nn
from torch.nn import functional

parser = argparse.ArgumentParser()
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--hidden", type=int, default=2560)
parser.add_argument("--heads", type=int, default=20)
parser.add_argument("--intermediate", type=int, default=6912)
parser.add_argument("--length", type=int, default=4096)
parser.add_argument("--repetitions", type=int, default=20)
given = parser.parse_args()


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False, device="cuda", dtype=torch.bfloat16)


def rotate(x, cosine, sine):
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat((-second, first), -1) * sine


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(given.hidden, device="cuda", dtype=torch.bfloat16)
        self.qkv = linear(given.hidden, 3 * given.hidden)
        self.out = linear(given.hidden, given.hidden)

    def forward(self, x, cosine, sine):
        q, k, v = self.qkv(self.norm(x)).view(1, given.length, 3, given.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(rotate(q, cosine, sine), rotate(k, cosine, sine), v, is_causal=True)
        return x + self.out(mixed.transpose(1, 2).reshape(1, given.length, given.hidden))


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(given.hidden, device="cuda", dtype=torch.bfloat16)
        self.gate_up = linear(given.hidden, 2 * given.intermediate)
        self.down = linear(given.intermediate, given.hidden)

    def forward(self, x):
        gate, up = self.gate_up(self.norm(x)).chunk(2, -1)
        return x + self.down(functional.silu(gate) * up)


torch.manual_seed(1)
size = given.hidden // given.heads
angle = torch.outer(torch.arange(given.length), 10000 ** (-torch.arange(0, size, 2) / size)).repeat(1, 2).cuda()
cosine, sine = angle.cos().bfloat16(), angle.sin().bfloat16()
attention = [Attention() for _ in range(given.layers)]
feed_forward = [FeedForward() for _ in range(given.layers)]
for sublayer in attention + feed_forward:
    sublayer.compile()
parameters = [p for sublayer in attention + feed_forward for p in sublayer.parameters()]
state = torch.randn(1, given.length, given.hidden, device="cuda", dtype=torch.bfloat16, requires_grad=True)
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
