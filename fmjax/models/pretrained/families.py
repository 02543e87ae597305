"""Every layout that is known."""

from fmjax.models.pretrained import (
    autoencoder_kl,
    dit,
    jit,
    lightningdit,
    official_text_to_image,
    text_to_image,
    tiny_autoencoders,
    unet,
)
from fmjax.models.pretrained.family import Family

FAMILIES: tuple[Family, ...] = (
    dit.DIT,
    dit.SIT,
    dit.DIFFUSERS,
    lightningdit.LIGHTNING,
    jit.JIT,
    text_to_image.SD3,
    text_to_image.FLUX,
    official_text_to_image.SD3,
    official_text_to_image.SD3_SINGLE_FILE,
    official_text_to_image.FLUX,
    official_text_to_image.FLUX_SINGLE_FILE,
    unet.TORCHCFM,
    unet.FLOW_MATCHING,
    tiny_autoencoders.OFFICIAL,
    tiny_autoencoders.DIFFUSERS,
    autoencoder_kl.SD,
    autoencoder_kl.OLD,
    autoencoder_kl.OLDEST,
    autoencoder_kl.SD3,
    autoencoder_kl.FLUX,
)
LAYOUTS = {family.name: family.what for family in FAMILIES}
"""The names that ``layout=`` takes, and what each stands for."""
