"""What PyTorch computes with TAEF2: ``python taef2_torch.py WEIGHTS IMAGES.npy OUT.npz``.

Run by `benchmarks.quality.taef2` in an interpreter that has torch and safetensors. The network is
that of the golden files, written apart from fmjax.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "golden"))
from official_tiny_autoencoder import decoder, encoder


def main(weights: Path, given: Path, made: Path) -> None:
    """Encodes and decodes images (n, H, W, 3) in [-1, 1]."""
    halves = {"encoder": encoder(32, pooled=True), "decoder": decoder(32, pooled=True)}
    for name, half in halves.items():
        half.load_state_dict(load_file(weights / f"taef2_{name}.safetensors"))
    with torch.no_grad():
        x = torch.from_numpy(np.load(given)).permute(0, 3, 1, 2)
        latents = halves["encoder"]((x + 1) / 2)
        images = 2 * halves["decoder"](latents) - 1
    arrays = {"latents": latents, "images": images}
    np.savez(made, **{name: value.permute(0, 2, 3, 1).numpy() for name, value in arrays.items()})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
