"""DiT in PyTorch, in the names and the order of numbers of facebookresearch/DiT and willisma/SiT.

Written from the paper and the published names, apart from fmjax and from the official code, to make
the golden files; nothing in fmjax and none of its tests imports it.
"""

import math

import numpy as np
import torch
from torch import nn


class Attention(nn.Module):
    """Self-attention; rows of qkv are all queries, all keys, all values, each head by head."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        rows, tokens, width = h.shape
        parts = self.qkv(h).chunk(3, dim=-1)
        q, k, v = (x.view(rows, tokens, self.heads, -1).permute(0, 2, 1, 3) for x in parts)
        weights = (q @ k.mT / math.sqrt(width // self.heads)).softmax(-1)
        return self.proj((weights @ v).permute(0, 2, 1, 3).reshape(rows, tokens, width))


class FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(h), approximate="tanh"))


def _modulation(width: int, parts: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


def _modulated(h: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    normed = nn.functional.layer_norm(h, h.shape[-1:], eps=1e-6)
    return normed * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn, self.mlp = Attention(width, heads), FeedForward(width)
        self.adaLN_modulation = _modulation(width, 6)

    def forward(self, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.adaLN_modulation(c).chunk(6, 1)
        h = h + gate_1[:, None] * self.attn(_modulated(h, shift_1, scale_1))
        return h + gate_2[:, None] * self.mlp(_modulated(h, shift_2, scale_2))


class Final(nn.Module):
    def __init__(self, width: int, numbers: int):
        super().__init__()
        self.linear = nn.Linear(width, numbers)
        self.adaLN_modulation = _modulation(width, 2)

    def forward(self, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.linear(_modulated(h, *self.adaLN_modulation(c).chunk(2, 1)))


def _positions(side: int, width: int) -> np.ndarray:
    """First the column of a patch, then its row; sines, then cosines, of each."""
    frequencies = 1.0 / 10_000.0 ** (np.arange(width // 4, dtype=np.float64) / (width / 4.0))
    rows, columns = np.divmod(np.arange(side**2), side)
    halves = []
    for place in (columns, rows):
        angles = np.einsum("m,d->md", place.astype(np.float64), frequencies)
        halves += [np.sin(angles), np.cos(angles)]
    return np.concatenate(halves, axis=1)[None].astype(np.float32)


class OfficialDiT(nn.Module):
    """x (rows, channels, side, side), t (rows,), labels (rows,) -> the first half of the output."""

    def __init__(
        self,
        *,
        side: int,
        patch: int,
        channels: int,
        width: int,
        depth: int,
        heads: int,
        classes: int,
    ):
        super().__init__()
        self.patch, self.channels = patch, channels
        positions = torch.from_numpy(_positions(side // patch, width))
        self.pos_embed = nn.Parameter(positions, requires_grad=False)
        self.x_embedder = nn.Module()
        self.x_embedder.proj = nn.Conv2d(channels, width, patch, stride=patch)
        self.t_embedder = nn.Module()
        layers = nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width)
        self.t_embedder.mlp = nn.Sequential(*layers)
        self.y_embedder = nn.Module()
        self.y_embedder.embedding_table = nn.Embedding(classes + 1, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.final_layer = Final(width, patch * patch * 2 * channels)

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        frequencies = torch.exp(-math.log(10_000) * torch.arange(128, dtype=t.dtype) / 128)
        angles = t[:, None] * frequencies
        time = self.t_embedder.mlp(torch.cat([angles.cos(), angles.sin()], 1))
        c = time + self.y_embedder.embedding_table(labels)
        h = self.x_embedder.proj(x).flatten(2).mT + self.pos_embed
        for block in self.blocks:
            h = block(h, c)
        patches = self.final_layer(h, c)
        rows, side, p = len(x), x.shape[-1] // self.patch, self.patch
        images = patches.view(rows, side, side, p, p, 2 * self.channels)
        images = torch.einsum("nhwpqc->nchpwq", images).reshape(rows, -1, side * p, side * p)
        return images[:, : self.channels]
