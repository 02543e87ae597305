"""Forward passes and training steps of published networks by PyTorch, for published.py."""

import gc
import os
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from torch import nn
from torch.nn import functional

from benchmarks.machine import ROOT, versions
from benchmarks.speed.dit_torch import DiT
from benchmarks.speed.worker import THREADS, Variants, serve

# An interpreter of torch may hold a package called tests of somebody else's.
sys.path.insert(0, str(ROOT / "tests" / "golden"))
from official_tiny_autoencoder import decoder
from official_unet import OfficialUNet

PACKAGES = ("torch", "diffusers")
SIDE, PLACES = 16, 77


class Network(NamedTuple):
    """A module as it is called, and what compiles it."""

    module: nn.Module
    call: Callable[[], torch.Tensor]
    compile: Callable[[], None]


def _whole(module: nn.Module, *inputs: torch.Tensor, **named: torch.Tensor) -> Network:
    """A module that is compiled as a whole."""
    return Network(module, lambda: _tensor(module(*inputs, **named)), module.compile)


def _tensor(out) -> torch.Tensor:
    return out if isinstance(out, torch.Tensor) else out[0]


def _images(*shape: int) -> torch.Tensor:
    """Channels first by name, last in memory."""
    return torch.randn(*shape).to(memory_format=torch.channels_last)


def _dit(batch: int) -> Network:
    module = DiT((32, 32, 4), patch_size=2, width=384, depth=12, heads=6, num_classes=1000)
    return _whole(
        module, torch.randn(batch, 32, 32, 4), torch.full((batch,), 0.5), torch.arange(batch)
    )


def _unet(batch: int) -> Network:
    sizes = {"channels": 3, "width": 128, "depth": 2, "mults": (1, 2, 2, 2), "factors": (2,)}
    module = OfficialUNet(**sizes, head_size=64).to(memory_format=torch.channels_last)
    return _whole(module, _images(batch, 3, 32, 32), torch.full((batch,), 0.5))


def _mmdit(batch: int) -> Network:
    module = SD3Transformer2DModel(
        num_layers=2,
        num_attention_heads=24,
        caption_projection_dim=1536,
        sample_size=128,
        pos_embed_max_size=192,
        out_channels=16,
    )
    return _whole(
        module,
        hidden_states=torch.randn(batch, 16, SIDE, SIDE),
        encoder_hidden_states=torch.randn(batch, PLACES, 4096),
        pooled_projections=torch.randn(batch, 2048),
        timestep=torch.full((batch,), 500.0),
        return_dict=False,
    )


def _flux(batch: int) -> Network:
    """Its 57 blocks are of two kinds, and each kind is compiled once."""
    module = FluxTransformer2DModel(
        attention_head_dim=64,
        num_attention_heads=5,
        axes_dims_rope=(8, 28, 28),
        guidance_embeds=False,
    )
    tokens = (SIDE // 2) ** 2
    given = {
        "hidden_states": torch.randn(batch, tokens, 64),
        "encoder_hidden_states": torch.randn(batch, PLACES, 4096),
        "pooled_projections": torch.randn(batch, 768),
        "timestep": torch.full((batch,), 0.5),
        "img_ids": torch.zeros(tokens, 3),
        "txt_ids": torch.zeros(PLACES, 3),
        "return_dict": False,
    }
    return _whole(module, **given)._replace(compile=module.compile_repeated_blocks)


def _decoder(batch: int) -> Network:
    module = decoder(32, True).to(memory_format=torch.channels_last)
    return _whole(module, _images(batch, 32, SIDE, SIDE))


NETWORKS = {
    "DiT-S/2": _dit,
    "U-Net, CIFAR-10": _unet,
    "MM-DiT, 2 layers": _mmdit,
    "FLUX/10": _flux,
    "TAEF2": _decoder,
}


class Published(Variants):
    """What is compiled when it is asked for."""

    def __init__(self):
        super().__init__()
        if threads := os.environ.get(THREADS):
            torch.set_num_threads(int(threads))

    def about(self) -> dict:
        """Versions and the device."""
        return {"device": f"cpu, {torch.get_num_threads()} threads", "versions": versions(PACKAGES)}

    def prepare(self, network: str, batch: int, work: str) -> dict:
        """Compiles a forward pass or a training step, and runs it once."""
        torch.manual_seed(0)
        made = NETWORKS[network](batch)
        count = sum(p.numel() for p in made.module.parameters())
        began = time.perf_counter()
        made.compile()
        self.ready[work] = _forward(made) if work == "forward" else _step(made)
        self.ready[work](1)
        return {"parameters": count, "compile seconds": time.perf_counter() - began}

    def clear(self) -> dict:
        """Forgets it."""
        self.ready.clear()
        torch._dynamo.reset()
        gc.collect()
        return {}


def _forward(network: Network) -> Callable[[int], None]:
    network.module.eval()

    def run(n: int) -> None:
        with torch.no_grad():
            for _ in range(n):
                network.call()

    return run


def _step(network: Network) -> Callable[[int], None]:
    network.module.train()
    optimizer = torch.optim.AdamW(
        network.module.parameters(), lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )

    def run(n: int) -> None:
        for _ in range(n):
            out = network.call()
            functional.mse_loss(out, torch.ones_like(out)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


if __name__ == "__main__":
    serve(Published())
