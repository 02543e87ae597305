"""TAESD and TAEF2 in PyTorch, in the names and the order of numbers of madebyollin/taesd.

Written from the description of the networks, apart from fmjax and from the official code, to make
the golden files; nothing in fmjax and none of its tests imports it. Images lie in [0, 1].
"""

import torch
from torch import nn


class Clamp(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * torch.tanh(x / 3)


class Block(nn.Module):
    """Three convolutions with a way around them; `pooled` adds a wide pointwise one before."""

    def __init__(self, width: int, pooled: bool):
        super().__init__()
        a, b, c = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), c)
        self.pooled = pooled
        if pooled:
            wide = 4 * width
            self.pool = nn.Sequential(
                nn.Conv2d(width, wide, 1, bias=False),
                nn.GroupNorm(4, wide),
                nn.ReLU(),
                nn.Conv2d(wide, width, 1, bias=False),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.pooled:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


def encoder(latent: int, pooled: bool, width: int = 64) -> nn.Sequential:
    layers = [nn.Conv2d(3, width, 3, padding=1), Block(width, False)]
    for stage in range(3):
        layers.append(nn.Conv2d(width, width, 3, padding=1, stride=2, bias=False))
        layers += [Block(width, pooled and stage == 2) for _ in range(3)]
    return nn.Sequential(*layers, nn.Conv2d(width, latent, 3, padding=1))


def decoder(latent: int, pooled: bool, width: int = 64) -> nn.Sequential:
    layers = [Clamp(), nn.Conv2d(latent, width, 3, padding=1), nn.ReLU()]
    for stage in range(3):
        layers += [Block(width, pooled and stage == 0) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]
    return nn.Sequential(*layers, Block(width, False), nn.Conv2d(width, 3, 3, padding=1))
