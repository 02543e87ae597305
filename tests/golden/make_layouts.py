"""Makes layouts/: the name and the shape of every tensor of published models, at their full size.

    pip install torch diffusers safetensors
    python tests/golden/make_layouts.py

The networks of diffusers are built from diffusers' classes with the sizes of the published
configurations, on a device without memory. DiT and SiT (facebookresearch/DiT, willisma/SiT), TAESD
and TAEF2 (madebyollin/taesd) are built from the files beside this one; their lists were compared
once, tensor for tensor, with those of the official code and of the published weights.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiTTransformer2DModel
from official_dit import OfficialDiT
from official_tiny_autoencoder import decoder, encoder
from torch import nn

FOLDER = Path(__file__).resolve().parent / "layouts"
KL = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
}
NO_QUANT = {"use_quant_conv": False, "use_post_quant_conv": False}


def halves(latent: int, pooled: bool) -> nn.Module:
    return nn.ModuleDict({"encoder": encoder(latent, pooled), "decoder": decoder(latent, pooled)})


def models() -> dict[str, nn.Module]:
    dit = {"side": 32, "patch": 2, "channels": 4, "width": 1152, "depth": 28, "heads": 16}
    return {
        "dit_xl2_256_official": OfficialDiT(**dit, classes=1000),
        "diffusers_dit_xl2_256": DiTTransformer2DModel(in_channels=4, out_channels=8),
        "taesd_official": halves(4, False),
        "taef2_official": halves(32, True),
        "diffusers_autoencoder_tiny_taesd": AutoencoderTiny(),
        "diffusers_autoencoderkl_sd_vae_ft": AutoencoderKL(**KL, latent_channels=4),
        "diffusers_autoencoderkl_sd3_flux": AutoencoderKL(**KL, latent_channels=16, **NO_QUANT),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with torch.device("meta"):
        found = models()
    for name, model in found.items():
        shapes = {key: list(x.shape) for key, x in model.state_dict().items()}
        lines = [f"{json.dumps(key)}: {json.dumps(shape)}" for key, shape in shapes.items()]
        (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
        print(name, len(shapes), sum(x.numel() for x in model.state_dict().values()))
