"""The networks of `benchmarks/sampling.py` in PyTorch, with the same weights.

Written as PyTorch users would: `scaled_dot_product_attention`, and guidance by one call of the
network on both branches, concatenated. Called as torchdiffeq calls its fields, ``field(t, x)``.
"""

import math

import numpy as np
import torch
from torch.nn import functional


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
    """`fmjax.models.dit.DiT` under classifier-free guidance."""

    def __init__(self, params: dict, module, labels: np.ndarray, scale: float):
        self.params, self.module, self.scale = _tensors(params), module, scale
        null = np.full_like(labels, module.num_classes)
        self.labels = torch.tensor(np.concatenate([null, labels]))

    def __call__(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The guided velocity of images (B, H, W, C) at one time t."""
        u_null, u_cond = self.network(t.expand(2 * len(x)), torch.cat([x, x])).chunk(2)
        return (1 - self.scale) * u_null + self.scale * u_cond

    def network(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Images (B, H, W, C), as in fmjax."""
        params, m = self.params, self.module
        condition = params["condition"]
        c = _time(t, condition["time"], 256, 1000.0) + condition["label"]["table"][self.labels]
        c = functional.silu(c)
        h = _dense(_patchify(x, m.patch_size), params["patch"])
        h = h + _positions(x.shape[1] // m.patch_size, x.shape[2] // m.patch_size, m.width)[None]
        for k in range(m.depth):
            h = self._block(h, c, params[f"block_{k}"])
        shift, scale = _dense(c, params["adaln"]["dense"])[:, None].chunk(2, dim=-1)
        h = _dense(_modulate(h, shift, scale), params["out"])
        return _unpatchify(h, m.patch_size, x.shape)

    def _block(self, h: torch.Tensor, c: torch.Tensor, p: dict) -> torch.Tensor:
        vectors = _dense(c, p["adaln"]["dense"])[:, None].chunk(6, dim=-1)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = vectors
        h = h + gate_1 * self._attention(_modulate(h, shift_1, scale_1), p["attention"])
        up = _dense(_modulate(h, shift_2, scale_2), p["mlp"]["up"])
        return h + gate_2 * _dense(functional.gelu(up, approximate="tanh"), p["mlp"]["down"])

    def _attention(self, h: torch.Tensor, p: dict) -> torch.Tensor:
        B, T, D = h.shape
        qkv = _dense(h, p["qkv"]).reshape(B, T, self.module.heads, -1).transpose(1, 2)
        h = functional.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
        return _dense(h.transpose(1, 2).reshape(B, T, D), p["out"])


def _modulate(h: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift


def _patchify(x: torch.Tensor, p: int) -> torch.Tensor:
    B, H, W, C = x.shape
    x = x.reshape(B, H // p, p, W // p, p, C).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(B, (H // p) * (W // p), p * p * C)


def _unpatchify(h: torch.Tensor, p: int, shape: torch.Size) -> torch.Tensor:
    B, H, W, C = shape
    return h.reshape(B, H // p, W // p, p, p, C).permute(0, 1, 3, 2, 4, 5).reshape(B, H, W, C)


def _positions(rows: int, columns: int, width: int) -> torch.Tensor:
    frequencies = 10_000.0 ** (-torch.arange(width // 4) / (width // 4))
    i, j = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    across, down = (torch.outer(k.ravel().float(), frequencies) for k in (j, i))
    return torch.cat([across.sin(), across.cos(), down.sin(), down.cos()], dim=1)
