"""What the peers in PyTorch are made of: the sublayers of a residual transformer, and manifold-constrained hyper-connections
(docs/model.md) in plain PyTorch."""
import torch
from torch import nn
from torch.nn import functional

EPS = 1e-6
SINKHORN_ITERATIONS = 20


def rotate(x, cosine, sine):
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat((-second, first), -1) * sine


def rotary_tables(length, size, device, dtype):
    angle = torch.outer(torch.arange(length), 10000 ** (-torch.arange(0, size, 2) / size)).repeat(1, 2).to(device)
    return angle.cos().to(dtype), angle.sin().to(dtype)


class Attention(nn.Module):
    def __init__(self, hidden, heads, **where):
        super().__init__()
        self.heads = heads
        self.norm = nn.RMSNorm(hidden, **where)
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False, **where)
        self.out = nn.Linear(hidden, hidden, bias=False, **where)

    def branch(self, x, cosine, sine):
        batch, length, hidden = x.shape
        q, k, v = self.qkv(self.norm(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(rotate(q, cosine, sine), rotate(k, cosine, sine), v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, hidden))

    def forward(self, x, cosine, sine):
        return x + self.branch(x, cosine, sine)


class FeedForward(nn.Module):
    def __init__(self, hidden, intermediate, **where):
        super().__init__()
        self.norm = nn.RMSNorm(hidden, **where)
        self.gate_up = nn.Linear(hidden, 2 * intermediate, bias=False, **where)
        self.down = nn.Linear(intermediate, hidden, bias=False, **where)

    def branch(self, x):
        gate, up = self.gate_up(self.norm(x)).chunk(2, -1)
        return self.down(functional.silu(gate) * up)

    def forward(self, x):
        return x + self.branch(x)


class Coefficients(nn.Module):
    """h = scale * (fn v) / r + base of the streams [B, T, n, C], in f32: [B, T, rows]."""

    def __init__(self, hidden, streams, rows, groups, device):
        super().__init__()
        self.sizes = [rows] if groups == 1 else [streams, streams, streams * streams]
        self.fn = nn.Parameter(torch.randn(rows, streams * hidden, device=device) * 0.02)
        self.base = nn.Parameter(torch.zeros(rows, device=device))
        self.scale = nn.Parameter(torch.full((groups,), 0.01, device=device))

    def forward(self, x):
        v = x.flatten(2).float()
        u = functional.linear(v, self.fn) * torch.rsqrt(v.square().mean(-1, keepdim=True) + EPS)
        scale = torch.cat([self.scale[g].expand(size) for g, size in enumerate(self.sizes)])
        return scale * u + self.base


class Connected(nn.Module):
    """A sublayer between n streams: mixes them for it, and merges what it makes."""

    def __init__(self, sublayer, hidden, streams, device):
        super().__init__()
        self.streams = streams
        self.sublayer = sublayer
        self.coefficients = Coefficients(hidden, streams, streams * streams + 2 * streams, 3, device)

    def forward(self, x, *tables):
        n = self.streams
        h = self.coefficients(x)
        pre = torch.sigmoid(h[..., :n]) + EPS
        post = 2 * torch.sigmoid(h[..., n:2 * n])
        comb = torch.softmax(h[..., 2 * n:].unflatten(-1, (n, n)), -1) + EPS
        comb = comb / (comb.sum(-2, keepdim=True) + EPS)
        for _ in range(SINKHORN_ITERATIONS - 1):
            comb = comb / (comb.sum(-1, keepdim=True) + EPS)
            comb = comb / (comb.sum(-2, keepdim=True) + EPS)
        stream = [x[:, :, j].float() for j in range(n)]
        mixed = sum(pre[..., j, None] * stream[j] for j in range(n)).to(x.dtype)
        y = self.sublayer.branch(mixed, *tables).float()
        merged = [sum(comb[..., j, k, None] * stream[j] for j in range(n)) + post[..., k, None] * y for k in range(n)]
        return torch.stack(merged, 2).to(x.dtype)


class Readout(nn.Module):
    """Collapses the streams in front of the head."""

    def __init__(self, hidden, streams, device):
        super().__init__()
        self.coefficients = Coefficients(hidden, streams, streams, 1, device)

    def forward(self, x):
        weight = torch.sigmoid(self.coefficients(x)) + EPS
        return sum(weight[..., j, None] * x[:, :, j].float() for j in range(x.shape[2])).to(x.dtype)
