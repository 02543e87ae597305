"""Training steps and guided sampling by PyTorch, for train_step.py and sampling_xl.py.

A variant is "MODULE MODE": the module ``plain`` (dit_torch.py) or ``diffusers`` (the package's
DiTTransformer2DModel), the mode ``eager`` or one of `torch.compile`. TF32 products, bfloat16 by
autocast, fused AdamW, clipping and average by foreach.
"""

import contextlib
import gc
import os
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from benchmarks.machine import versions
from benchmarks.speed.dit_torch import DiT
from benchmarks.speed.worker import THREADS, Variants, serve

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PACKAGES = ("torch", "triton", "diffusers")
DROP_RATE, CLIP_NORM, EMA = 0.1, 1.0, 0.9999


class _Diffusers(torch.nn.Module):
    """The package's DiT, called as ours; it draws the dropped labels itself, by its own default."""

    drops_labels = True

    def __init__(self, shape, patch_size, width, depth, heads, num_classes):
        super().__init__()
        from diffusers import DiTTransformer2DModel

        self.model = DiTTransformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=width // heads,
            in_channels=shape[-1],
            out_channels=shape[-1],
            num_layers=depth,
            sample_size=shape[0],
            patch_size=patch_size,
            num_embeds_ada_norm=num_classes,
        )

    def forward(self, x, t, labels):
        x = x.permute(0, 3, 1, 2)
        u = self.model(x, 1000 * t, labels, return_dict=False)[0]
        return u.permute(0, 2, 3, 1)


MODULES = {"plain": DiT, "diffusers": _Diffusers}


def _autocast(case: dict) -> contextlib.AbstractContextManager:
    bfloat16 = case["dtype"] == "bfloat16"
    return torch.autocast(DEVICE.type, torch.bfloat16) if bfloat16 else contextlib.nullcontext()


def _compile(function: Callable, mode: str) -> Callable:
    return function if mode == "eager" else torch.compile(function, mode=mode)


def _synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


class Trainer:
    """A module with its optimiser, average and batch; modes of compilation share it."""

    def __init__(self, module: torch.nn.Module, case: dict):
        self.module, self.case = module.to(DEVICE).train(), case
        self.params = list(self.module.parameters())
        self.ema = [p.detach().clone() for p in self.params]
        # On CPU too the fused one is the fastest.
        self.optimizer = torch.optim.AdamW(
            self.params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, fused=True
        )
        generator = torch.Generator().manual_seed(0)
        size = (case["batch"], *case["shape"])
        images = torch.randint(256, size, generator=generator, dtype=torch.uint8)
        labels = torch.randint(case["model"]["num_classes"], size[:1], generator=generator)
        self.images, self.labels = images.to(DEVICE), labels.to(DEVICE)

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Flow matching on the straight path, with its draws."""
        x1 = images.float() / 127.5 - 1
        x0, t = torch.randn_like(x1), torch.rand(len(x1), device=x1.device)
        if not getattr(self.module, "drops_labels", False):
            drop = torch.rand(len(x1), device=x1.device) < DROP_RATE
            labels = torch.where(drop, self.case["model"]["num_classes"], labels)
        s = t[:, None, None, None]
        with _autocast(self.case):
            u = self.module((1 - s) * x0 + s * x1, t, labels)
        return (u.float() - (x1 - x0)).square().mean()

    def steps(self, mode: str) -> Callable[[int], float]:
        """``run(n) -> loss``: n steps."""
        compute_loss = _compile(self.loss, mode)

        def run(n: int) -> float:
            for _ in range(n):
                loss = compute_loss(self.images, self.labels)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.params, CLIP_NORM, foreach=True)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                with torch.no_grad():
                    torch._foreach_lerp_(self.ema, self.params, 1 - EMA)
            _synchronize()
            return loss.item()

        return run


def sampler(module: torch.nn.Module, case: dict, mode: str) -> Callable[[int], float]:
    """``run(n) -> rms``: n batches by Euler, both branches in one call of the network."""
    module = module.to(DEVICE).eval()
    batch, steps, scale = case["batch"], case["steps"], case["guidance"]
    classes = case["model"]["num_classes"]
    labels = torch.arange(batch, device=DEVICE) % classes
    both = torch.cat([torch.full_like(labels, classes), labels])
    x0 = torch.tensor(np.load(case["weights"])["x0"], device=DEVICE)
    times = torch.linspace(0, 1, steps + 1, device=DEVICE)

    def euler(x: torch.Tensor, t: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        with _autocast(case):
            u = module(torch.cat([x, x]), t.expand(2 * batch), both).float()
        u_null, u_cond = u.chunk(2)
        return x + h * ((1 - scale) * u_null + scale * u_cond)

    step = _compile(euler, mode)

    def run(n: int) -> float:
        with torch.no_grad():
            for _ in range(n):
                x = x0
                for k in range(steps):
                    x = step(x, times[k], times[k + 1] - times[k])
        _synchronize()
        return x.square().mean().sqrt().item()

    return run


class TorchVariants(Variants):
    """The variants, compiled when they are asked for."""

    def __init__(self):
        super().__init__()
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        if threads := os.environ.get(THREADS):
            torch.set_num_threads(int(threads))
        if DEVICE.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(0.5)  # fmjax has the other half
        self.trainers = {}

    def about(self) -> dict:
        """Versions and the device."""
        on_gpu = DEVICE.type == "cuda"
        name = torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads"
        return {"device": name, "versions": versions(PACKAGES)}

    def train(self, name: str, case: dict) -> dict:
        """Compiles a training step and runs it a few times."""
        module, mode = name.split()
        if module not in self.trainers:
            model = MODULES[module](case["shape"], **case["model"])
            self.trainers[module] = Trainer(model, case)
        self.ready[name] = self.trainers[module].steps(mode)
        return {"loss": self.ready[name](case["warm"])}

    def sample(self, name: str, case: dict) -> dict:
        """Compiles a sampler and runs it once."""
        module, mode = name.split()
        model = MODULES[module](case["shape"], **case["model"])
        if module == "plain":
            model.load(np.load(case["weights"]))
        self.ready[name] = sampler(model, case, mode)
        return {"rms": self.ready[name](1)}

    def check(self, case: dict, weights: str) -> dict:
        """How far our plain DiT is from fmjax's on the same weights and inputs, float32."""
        data = np.load(weights)
        model = DiT(case["shape"], **case["model"])
        model.load(data)
        x, t, y, goal, u = (torch.tensor(data[k]) for k in ("x", "t", "labels", "goal", "u"))
        mine = model(x, t, y)
        found = {
            "largest difference": (mine - u).abs().max().item(),
            "largest value": u.abs().max().item(),
        }
        if "grad_norm" in data:
            functional.mse_loss(mine, goal).backward()
            squares = torch.stack([p.grad.square().sum() for p in model.parameters()])
            norm = squares.sum().sqrt().item()
            found["gradient norm over fmjax's"] = norm / float(data["grad_norm"])
        return found

    def matmul(self, size: int) -> dict:
        """Operations per second of float32 products (size, size) x (size, size)."""
        a, b = torch.randn(size, size, device=DEVICE), torch.randn(size, size, device=DEVICE)
        return self.multiply(size, lambda n: ([a @ b for _ in range(n)], _synchronize()))

    def clear(self) -> dict:
        """Forgets all variants and frees their memory."""
        self.trainers.clear()
        self.ready.clear()
        torch._dynamo.reset()
        gc.collect()
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()
        return {}


if __name__ == "__main__":
    serve(TorchVariants())
