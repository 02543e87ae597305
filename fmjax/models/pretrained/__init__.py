"""Networks with published weights: official checkpoints in, and out again under the same names.

    net = load("DiT-XL-2-256x256.pt", layout="dit")
    velocity = as_velocity(net.apply_fn, net.path.schedule, net.prediction)
    save("tuned.safetensors", net.params, net.family, net.model, shape=net.shape)

| module | holds |
|---|---|
| `loading` | `load`; `layouts_of`, `inspect` and `outline` read names and shapes alone |
| `saving` | `save`, and `outline_of`, what a saved file would stand for |
| `results` | what loading gives |
| `families` | `LAYOUTS`, the layouts that are known |
| `family` | what a layout is, and how one is recognised |
| `rules`, `changes` | the table of names of a layout, and how arrays are reordered |
| `report` | what became of each tensor of a file |
| `filling` | parameters read tensor by tensor onto devices |
| `dit` | DiT and SiT, official and of diffusers |
| `lightningdit` | LightningDiT, official |
| `jit` | JiT, official |
| `text_to_image` | Stable Diffusion 3 and 3.5, and FLUX.1, of diffusers |
| `official_text_to_image` | the same under their official names |
| `unet` | the U-Net of torchcfm and flow_matching |

Here networks meet the paths they were trained on and the files they lie in; nothing else of
`fmjax.models` knows of either.
"""

from fmjax.models.pretrained.families import LAYOUTS
from fmjax.models.pretrained.loading import inspect, layouts_of, load, outline
from fmjax.models.pretrained.report import Report
from fmjax.models.pretrained.results import Network
from fmjax.models.pretrained.saving import outline_of, save

__all__ = [
    "LAYOUTS",
    "Network",
    "Report",
    "inspect",
    "layouts_of",
    "load",
    "outline",
    "outline_of",
    "save",
]
