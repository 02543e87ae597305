"""Autoencoders: from images to a smaller latent space, in which a flow is learned, and back.

Images are (batch, height, width, channels) in [-1, 1], latents (batch, height / 8, width / 8,
channels) as the encoder gives them: what published flows call scaled latents is
``(latent - shift) * scale``.

| module | holds |
|---|---|
| `latent` | `Latent`, the mean and the variance of an encoded image, and `sample` |
| `tiny` | `TinyAutoencoder`: TAESD, TAESD3, TAEF1, TAEF2 |
| `kl` | `AutoencoderKL`: of Stable Diffusion, SD3, FLUX.1 |
| `tiles` | `tiled`, for images too large to be encoded or decoded at once |

Published weights are read by `fmjax.models.pretrained.load`.
"""

from fmjax.models.autoencoders.kl import AutoencoderKL
from fmjax.models.autoencoders.latent import Latent, sample
from fmjax.models.autoencoders.tiles import tiled
from fmjax.models.autoencoders.tiny import TinyAutoencoder

__all__ = ["AutoencoderKL", "Latent", "TinyAutoencoder", "sample", "tiled"]
