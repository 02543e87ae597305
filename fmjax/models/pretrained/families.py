"""Every layout that is known."""

from fmjax.models.pretrained import dit, text_to_image
from fmjax.models.pretrained.family import Family

FAMILIES: tuple[Family, ...] = (
    dit.DIT,
    dit.SIT,
    dit.DIFFUSERS,
    text_to_image.SD3,
    text_to_image.FLUX,
)
LAYOUTS = {family.name: family.what for family in FAMILIES}
"""The names that ``layout=`` takes, and what each stands for."""
