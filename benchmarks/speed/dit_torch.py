"""`fmjax.models.dit.DiT` in PyTorch, written as its users would, with weights carried over.

Fused query-key-value projection, `scaled_dot_product_attention`, tanh-GELU, adaLN-zero; fast under
`torch.compile` and `torch.autocast`. Under autocast the tokens between the lines are of the compute
dtype, as in fmjax, and the modulation too, which fmjax keeps in float32.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

TIME_FEATURES = 256


class Block(nn.Module):
    """One adaLN-zero block on tokens (B, T, D) under a condition (B, D)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.adaln = nn.Linear(width, 6 * width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Same shape and dtype out."""
        vectors = self.adaln(c)[:, None].chunk(6, dim=-1)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = vectors
        h = (h + gate_1 * self._attention(modulate(h, shift_1, scale_1))).to(h.dtype)
        up = functional.gelu(self.up(modulate(h, shift_2, scale_2)), approximate="tanh")
        return (h + gate_2 * self.down(up)).to(h.dtype)

    def _attention(self, h: torch.Tensor) -> torch.Tensor:
        B, T, D = h.shape
        q, k, v = self.qkv(h).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        h = functional.scaled_dot_product_attention(q, k, v)
        return self.out(h.transpose(1, 2).reshape(B, T, D))


class DiT(nn.Module):
    """Velocity of images (B, H, W, C) at times (B,) with class ids (B,), as in fmjax."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        num_classes: int,
    ):
        super().__init__()
        H, W, C = shape
        self.patch_size, self.width = patch_size, width
        self.time = nn.Sequential(
            nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.label = nn.Embedding(num_classes + 1, width)
        self.patch = nn.Linear(patch_size**2 * C, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.adaln = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, patch_size**2 * C)
        positions = _positions(H // patch_size, W // patch_size, width)
        half = TIME_FEATURES // 2
        frequencies = 1000.0 * torch.exp(-math.log(10_000.0) * torch.arange(half) / half)
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for linear in (self.adaln, self.out, *(block.adaln for block in self.blocks)):
            nn.init.zeros_(linear.weight)
        for weight in (self.label.weight, self.time[0].weight, self.time[2].weight):
            nn.init.normal_(weight, std=0.02)

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The velocity, of the shape of x."""
        angles = t[:, None] * self.frequencies[None]
        time = self.time(torch.cat([angles.cos(), angles.sin()], dim=-1))
        c = functional.silu(time + self.label(labels))
        h = self.patch(_patchify(x, self.patch_size))
        h = h + self.positions.to(h.dtype)
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.adaln(c)[:, None].chunk(2, dim=-1)
        return _unpatchify(self.out(modulate(h, shift, scale)), self.patch_size, x.shape)

    @torch.no_grad()
    def load(self, params: dict[str, np.ndarray]) -> None:
        """Takes the weights of the fmjax model: arrays by path, as "blocks/mlp/up/kernel"."""
        names = {"patch": self.patch, "adaln/dense": self.adaln, "out": self.out}
        names |= {"condition/time/dense_0": self.time[0], "condition/time/dense_1": self.time[2]}
        for name, linear in names.items():
            _fill(linear, params[f"{name}/kernel"], params[f"{name}/bias"])
        self.label.weight.copy_(torch.tensor(params["condition/label/table"]))
        for k, block in enumerate(self.blocks):
            layers = {"adaln/dense": block.adaln, "attention/out": block.out}
            layers |= {"mlp/up": block.up, "mlp/down": block.down}
            for name, linear in layers.items():
                kernel, bias = (params[f"blocks/{name}/{part}"][k] for part in ("kernel", "bias"))
                _fill(linear, kernel, bias)
            # fmjax has the heads outermost in the columns, PyTorch's users q, k and v.
            kernel, bias = (params[f"blocks/attention/qkv/{p}"][k] for p in ("kernel", "bias"))
            by_head = (block.heads, 3, self.width // block.heads)
            kernel = kernel.reshape(self.width, *by_head).swapaxes(1, 2).reshape(self.width, -1)
            _fill(block.qkv, kernel, bias.reshape(by_head).swapaxes(0, 1).reshape(-1))


def modulate(h: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Norm, scale and shift of tokens (B, T, D) by (B, 1, D)."""
    return functional.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift


def _fill(linear: nn.Linear, kernel: np.ndarray, bias: np.ndarray) -> None:
    linear.weight.copy_(torch.tensor(np.ascontiguousarray(kernel.T)))
    linear.bias.copy_(torch.tensor(bias))


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
