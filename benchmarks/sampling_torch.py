"""The networks of `benchmarks/sampling.py` in PyTorch, with the same weights.

Written as PyTorch users would: `scaled_dot_product_attention`, and guidance by one call of the
network on both branches, concatenated. Called as torchdiffeq calls its fields, ``field(t, x)``.
"""

import math

import numpy as np
import torch
from flax import traverse_util
from torch.nn import functional

from dit_torch import DiT


def _tensors(tree) -> dict:
    if isinstance(tree, dict):
        return {name: _tensors(branch) for name, branch in tree.items()}
    return torch.tensor(np.asarray(tree))


def _dense(h: torch.Tensor, layer: dict) -> torch.Tensor:
    return functional.linear(h, layer["kernel"].T, layer.get("bias"))


def _time(t: torch.Tensor, params: dict, features: int, scale: float) -> torch.Tensor:
    half = features // 2
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half) / half)
    angles = t[:, None] * scale * frequencies[None]
    h = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
    return _dense(functional.silu(_dense(h, params["dense_0"])), params["dense_1"])


class TorchMLP:
    """`fmjax.models.mlp.MLP` without classes."""

    def __init__(self, params: dict, module):
        self.params, self.module = _tensors(params), module

    def __call__(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The velocity of points (B, features) at one time t."""
        p, m = self.params, self.module
        time = p["condition"]["time"]
        c = functional.silu(_time(t.expand(len(x)), time, m.time_features, m.time_scale))
        h = x
        for k in range(m.depth):
            h = functional.silu(_dense(h, p[f"hidden_{k}"]) + _dense(c, p[f"condition_{k}"]))
        return _dense(h, p["out"])


class TorchDiT:
    """`fmjax.models.dit.DiT` under classifier-free guidance, on images of one shape (H, W, C)."""

    def __init__(self, params: dict, module, shape: tuple, labels: np.ndarray, scale: float):
        sizes = (module.patch_size, module.width, module.depth, module.heads, module.num_classes)
        self.network, self.scale = DiT(shape, *sizes), scale
        flat = traverse_util.flatten_dict(params, sep="/")
        self.network.load({name: np.asarray(x) for name, x in flat.items()})
        null = np.full_like(labels, module.num_classes)
        self.labels = torch.tensor(np.concatenate([null, labels]))

    def __call__(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The guided velocity of images (B, H, W, C) at one time t."""
        u = self.network(torch.cat([x, x]), t.expand(2 * len(x)), self.labels)
        u_null, u_cond = u.chunk(2)
        return (1 - self.scale) * u_null + self.scale * u_cond
