"""Makes pretrained/: tiny published-style weights, and what PyTorch computes with them.

    pip install torch diffusers safetensors
    python tests/golden/make_pretrained.py

Weights are random and stored in float16, under the published names; PyTorch computes with them in
float64. `tests/models/pretrained/` loads them by fmjax and compares, without PyTorch.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiTTransformer2DModel
from official_dit import OfficialDiT
from official_tiny_autoencoder import decoder, encoder
from safetensors.torch import save_file
from torch import nn

FOLDER = Path(__file__).resolve().parent / "pretrained"
SIDE, CHANNELS, WIDTH, DEPTH, HEADS, CLASSES = 8, 4, 16, 2, 2, 5


def randomise(module: nn.Module, scale: float = 0.15) -> nn.Module:
    """Normal numbers that float16 holds, in every parameter that training would change."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
                parameter.copy_(parameter.half())
    return module.double().eval()


def save_half(module: nn.Module, path: Path) -> None:
    """The tensors in float16, but for the table of positions, which is fixed and float32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = module.state_dict()
    kept = {"pos_embed": torch.float32}
    save_file({k: x.to(kept.get(k, torch.float16)).contiguous() for k, x in tensors.items()}, path)


def save_folder(model: nn.Module, folder: Path) -> None:
    """Weights and configuration as diffusers saves them."""
    save_half(model, folder / "diffusion_pytorch_model.safetensors")
    config = {key: value for key, value in model.config.items() if not key.startswith("_")}
    config = {"_class_name": type(model).__name__} | config
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def last(x: torch.Tensor) -> np.ndarray:
    """Images with their channels last, as fmjax has them, in float32."""
    return x.detach().permute(0, 2, 3, 1).float().numpy()


def answers(network: Callable, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> dict:
    """Inputs, the output, and the gradient of the sum of its squares by x."""
    x = x.clone().requires_grad_()
    out = network(x, t, labels)
    (gradient,) = torch.autograd.grad((out**2).sum(), x)
    found = {"x": last(x), "out": last(out), "gradient": last(gradient)}
    return found | {"t": t.float().numpy(), "labels": labels.int().numpy()}


def examples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, CHANNELS, SIDE, SIDE, generator=generator).float().double()
    return x, torch.tensor([0, 2, CLASSES, 4])


STEPS = torch.tensor([0.0, 3.0, 420.0, 999.0], dtype=torch.float64)
TIMES = torch.tensor([0.0, 0.25, 0.7, 1.0], dtype=torch.float64)


def make_official() -> None:
    network = randomise(
        OfficialDiT(
            side=SIDE,
            patch=2,
            channels=CHANNELS,
            width=WIDTH,
            depth=DEPTH,
            heads=HEADS,
            classes=CLASSES,
        )
    )
    save_half(network, FOLDER / "dit_official.safetensors")
    x, labels = examples()
    for name, t in (("dit", STEPS), ("sit", TIMES)):
        np.savez_compressed(FOLDER / f"{name}_official.npz", **answers(network, x, t, labels))


def make_diffusers_dit() -> None:
    network = DiTTransformer2DModel(
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        in_channels=CHANNELS,
        out_channels=2 * CHANNELS,
        num_layers=DEPTH,
        sample_size=SIDE,
        num_embeds_ada_norm=CLASSES,
    )
    randomise(network)
    for block in network.transformer_blocks:  # as conversion from the official weights makes them
        block.norm1.emb.load_state_dict(network.transformer_blocks[0].norm1.emb.state_dict())
    save_folder(network, FOLDER / "diffusers_dit")

    def first_half(x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return network(x, t, labels).sample[:, :CHANNELS]

    x, labels = examples()
    np.savez_compressed(FOLDER / "diffusers_dit.npz", **answers(first_half, x, STEPS, labels))


def images(side: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return (2 * torch.rand(2, channels, side, side, generator=generator) - 1).double()


def make_taesd() -> None:
    """The official layout, with the wide pointwise part of TAEF2, at a tiny width."""
    halves = {"encoder": encoder(6, True, 8), "decoder": decoder(6, True, 8)}
    for name, half in halves.items():
        randomise(half)
        save_half(half, FOLDER / "taesd" / f"taesd_{name}.safetensors")
    x = images(16)
    mean = halves["encoder"]((x + 1) / 2)
    z = images(3, 6) * 4
    arrays = {"x": x, "mean": mean, "z": z, "out": 2 * halves["decoder"](z) - 1}
    np.savez_compressed(FOLDER / "taesd.npz", **{k: last(value) for k, value in arrays.items()})


def make_autoencoder(name: str, model: nn.Module, moments: Callable, tile: int = 0) -> None:
    """An autoencoder of diffusers: its folder, what it encodes and what it decodes."""
    randomise(model)
    save_folder(model, FOLDER / name)
    x, z = images(16), images(3, model.config.latent_channels) * 4
    arrays = moments(model.encode(x)) | {"x": x, "z": z, "out": model.decode(z).sample}
    if tile:
        large = images(11, model.config.latent_channels) * 4
        model.enable_tiling()
        model.tile_latent_min_size, model.tile_sample_min_size = tile, 2 * tile
        arrays |= {"large": large, "tiled": model.decode(large).sample}
    np.savez_compressed(FOLDER / f"{name}.npz", **{k: last(value) for k, value in arrays.items()})


def make_autoencoders() -> None:
    width = [8, 8, 8, 8]
    tiny = AutoencoderTiny(encoder_block_out_channels=width, decoder_block_out_channels=width)
    make_autoencoder("diffusers_taesd", tiny, lambda found: {"mean": found.latents})

    def both(found: object) -> dict:
        return {"mean": found.latent_dist.mean, "logvar": found.latent_dist.logvar}

    sizes = {
        "block_out_channels": [8, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "norm_num_groups": 4,
    }
    make_autoencoder("diffusers_kl_quant", AutoencoderKL(**sizes), both, tile=4)
    scales = {"scaling_factor": 0.3611, "shift_factor": 0.1159, "latent_channels": 6}
    without = {"use_quant_conv": False, "use_post_quant_conv": False}
    make_autoencoder("diffusers_kl", AutoencoderKL(**sizes, **scales, **without), both)


if __name__ == "__main__":
    make_taesd()
    make_autoencoders()
    make_official()
    make_diffusers_dit()
