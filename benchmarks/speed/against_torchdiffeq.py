"""The part ``peer`` of sampling.py: torchdiffeq, on networks in PyTorch with the same weights.

Written as PyTorch users would: `scaled_dot_product_attention`, and guidance by one call of the
network on both branches, concatenated. Called as torchdiffeq calls its fields, ``field(t, x)``.
"""

import math
from collections.abc import Callable

import jax
import numpy as np
import torch
from flax import traverse_util
from torch.nn import functional
from torchdiffeq import odeint

from benchmarks.speed.dit_torch import DiT
from benchmarks.speed.networks import DIGITS, make_dit, network
from benchmarks.timing import least_seconds, rounded
from fmjax.guidance import Guided, classifier_free
from fmjax.models import mlp
from fmjax.samplers import solve, solver_spec


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
        classes = module.conditions.num_classes
        sizes = (module.patch_size, module.width, module.depth, module.heads, classes)
        self.network, self.scale = DiT(shape, *sizes), scale
        flat = traverse_util.flatten_dict(params, sep="/")
        self.network.load({name: np.asarray(x) for name, x in flat.items()})
        null = np.full_like(labels, classes)
        self.labels = torch.tensor(np.concatenate([null, labels]))

    def __call__(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The guided velocity of images (B, H, W, C) at one time t."""
        u = self.network(torch.cat([x, x]), t.expand(2 * len(x)), self.labels)
        u_null, u_cond = u.chunk(2)
        return (1 - self.scale) * u_null + self.scale * u_cond


def compare(batch: int, steps: int, repeat: int) -> dict:
    """torchdiffeq on the same weights: the MLP without guidance, the DiT with it."""
    found = {}
    module = mlp.MLP(width=128, depth=3)
    apply_fn, params, x0, _ = network(module, (2,), 16 * batch)
    spec, times_of = solver_spec("midpoint", steps), torch.linspace(0, 1, steps + 1)
    run = jax.jit(
        lambda params, x0: solve(lambda x, t, y: apply_fn(params, x, t, y), x0, None, spec).x1
    )
    theirs, start = TorchMLP(params, module), torch.tensor(np.asarray(x0))

    def torch_mlp():
        with torch.inference_mode():
            return odeint(theirs, start, times_of, method="midpoint")[-1]

    found["mlp"] = time_both(lambda: run(params, x0), torch_mlp, repeat)
    found["mlp"] |= {"points": len(x0), "steps": steps, "solver": "midpoint"}

    apply_fn, params, x0, labels = network(make_dit(DIGITS), (8, 8, 1), batch)

    @jax.jit
    def guided_digits(params, x0):
        velocity = classifier_free(lambda x, t, y: apply_fn(params, x, t, y), 10)
        return solve(velocity, x0, Guided(labels, 1.5), spec).x1

    theirs = TorchDiT(params, make_dit(DIGITS), (8, 8, 1), np.asarray(labels), scale=1.5)
    start = torch.tensor(np.asarray(x0))

    def torch_dit():
        with torch.inference_mode():
            return odeint(theirs, start, times_of, method="midpoint")[-1]

    found["digits"] = time_both(lambda: guided_digits(params, x0), torch_dit, repeat)
    found["digits"] |= {"images": batch, "steps": steps, "solver": "midpoint", "guidance": 1.5}
    return found


def time_both(ours: Callable, theirs: Callable, repeat: int) -> dict:
    """Both give the same points; then both are timed."""
    np.testing.assert_allclose(ours(), theirs().numpy(), rtol=1e-2, atol=1e-3)
    least = least_seconds(repeat, fmjax=lambda: jax.block_until_ready(ours()), torch=theirs)
    return {"seconds": rounded(least), "torch / fmjax": round(least["torch"] / least["fmjax"], 2)}
