"""TAEF2's real weights on photographs: ``python -m benchmarks.quality.taef2 --weights=taef2``.

Encodes and decodes the middle of each photograph that scikit-learn ships, and gives the peak
signal-to-noise ratio in dB and the standard deviation of the latents. With ``--torch=PYTHON``, an
interpreter that has torch and safetensors, PyTorch computes the same from the same files
(`benchmarks.quality.taef2_torch`). The picture has the photographs, and below them what came back.

The weights are ``taef2_encoder`` and ``taef2_decoder`` of github.com/madebyollin/taesd (MIT).
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import jax
import numpy as np
from sklearn.datasets import load_sample_images

from benchmarks import machine
from fmjax.models import pretrained
from fmjax.plots import image_grid, save_png

RESULTS = machine.RESULTS / "taef2.json"
PICTURE = machine.ROOT / "docs" / "taef2.png"
SIDE = 256


def photographs() -> np.ndarray:
    """The middle of each photograph, uint8 (n, SIDE, SIDE, 3)."""
    middles = []
    for image in load_sample_images().images:
        top, left = ((size - SIDE) // 2 for size in image.shape[:2])
        middles.append(image[top : top + SIDE, left : left + SIDE])
    return np.stack(middles)


def psnr(found: np.ndarray, pixels: np.ndarray) -> list[float]:
    """Of each image: 20 log10 of 255 over the root mean square error, in dB."""
    error = np.clip(found, -1, 1) * 127.5 + 127.5 - pixels
    return [round(float(20 * np.log10(255 / np.sqrt(np.mean(e**2)))), 3) for e in error]


def by_torch(python: str, weights: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Latents and images as PyTorch computes them, in an interpreter of its own."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.npy", Path(folder) / "made.npz"
        np.save(given, images)
        script = Path(__file__).with_name("taef2_torch.py")
        subprocess.run([python, script, weights, given, made], check=True)
        return dict(np.load(made))


def main() -> None:
    """Encodes, decodes, compares, and writes figures and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=Path("taef2"))
    parser.add_argument("--torch", help="an interpreter that has torch and safetensors")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    pixels = photographs()
    images = pixels.astype(np.float32) / 127.5 - 1
    taef2 = pretrained.load(arguments.weights)
    latents = np.asarray(taef2.encode(images).mean)
    found = np.asarray(taef2.decode(latents))
    result = machine.about(device=jax.devices()[0].device_kind) | {
        "latents": list(latents.shape[1:]),
        "standard deviation of latents": round(float(latents.std()), 4),
        "PSNR (dB)": psnr(found, pixels),
    }
    if arguments.torch:
        theirs = by_torch(arguments.torch, arguments.weights, images)
        result["PSNR (dB), PyTorch"] = psnr(theirs["images"], pixels)
        for name, ours in (("latents", latents), ("images", found)):
            error = np.abs(ours - theirs[name]).max() / np.abs(theirs[name]).max()
            result[f"largest difference of {name}, relative"] = float(f"{error:.2g}")
    print(json.dumps(result, indent=1))
    machine.write_json(arguments.out, result)
    back = (np.clip(found, -1, 1) * 127.5 + 127.5).round().astype(np.uint8)
    save_png(image_grid(np.concatenate([pixels, back]), len(pixels)), arguments.picture)


if __name__ == "__main__":
    main()
