"""Makes unet/: tiny U-Nets under the published names, and what PyTorch computes with them.

    pip install torch safetensors
    python tests/golden/make_unet.py

Weights are random and stored in float16; PyTorch computes with them in float64. In sizes.json are
the numbers of parameters of the published sizes. They are loaded and compared without PyTorch by
`tests/models/pretrained/test_unet_goldens.py`.
"""

import json
from pathlib import Path

import numpy as np
import torch
from official_unet import OfficialUNet
from safetensors.torch import save_file
from torch import nn

FOLDER = Path(__file__).resolve().parent / "unet"
TINY = {"channels": 3, "width": 8, "depth": 1, "mults": (1, 2), "head_size": 4, "groups": 4}
NETWORKS = {
    "torchcfm": {"factors": (2,), "classes": 5},
    "flow_matching": {"factors": (), "scales": True, "resampling": "pool", "new_order": True},
    "imagenet": {
        "factors": (1, 2),
        "scales": True,
        "resampling": "residual",
        "new_order": True,
        "classes": 6,  # the last is no class
    },
}
SIZES = {  # head_size is no matter of shapes
    "UNet-CIFAR10/torchcfm": {
        "width": 128,
        "depth": 2,
        "mults": (1, 2, 2, 2),
        "factors": (2,),
    },
    "UNet-CIFAR10/flow_matching": {
        "width": 128,
        "depth": 4,
        "mults": (2, 2, 2),
        "factors": (2,),
        "scales": True,
        "resampling": "pool",
    },
    "UNet-ImageNet64": {
        "width": 192,
        "depth": 3,
        "mults": (1, 2, 3, 4),
        "factors": (2, 4, 8),
        "scales": True,
        "resampling": "residual",
        "classes": 1000,
    },
}


def randomise(module: nn.Module) -> nn.Module:
    """Normal numbers that float16 holds, in every parameter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))
            parameter.copy_(parameter.half())
    return module.double().eval()


def last(x: torch.Tensor) -> np.ndarray:
    """Images with their channels last, as fmjax has them, in float32."""
    return x.detach().permute(0, 2, 3, 1).float().numpy()


def answers(network: nn.Module, labels: torch.Tensor | None) -> dict[str, np.ndarray]:
    """Inputs, the output, and the gradient of the sum of its squares by x."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, 8, 4, generator=generator).double().requires_grad_()
    t = torch.tensor([0.0, 0.25, 0.75, 1.0], dtype=torch.float64)
    out = network(x, 1000 * t, labels)
    (gradient,) = torch.autograd.grad((out**2).sum(), x)
    found = {"x": last(x), "out": last(out), "gradient": last(gradient), "t": t.float().numpy()}
    return found if labels is None else found | {"labels": labels.int().numpy()}


def make_network(name: str) -> None:
    network = randomise(OfficialUNet(**TINY, **NETWORKS[name]))
    tensors = {key: x.half().contiguous() for key, x in network.state_dict().items()}
    save_file(tensors, FOLDER / f"{name}.safetensors")
    labels = (
        torch.tensor([0, 2, NETWORKS[name]["classes"] - 1, 1])
        if NETWORKS[name].get("classes")
        else None
    )
    np.savez_compressed(FOLDER / f"{name}.npz", **answers(network, labels))


def count(size: dict) -> int:
    with torch.device("meta"):
        network = OfficialUNet(channels=3, head_size=64, **size)
    return sum(x.numel() for x in network.parameters())


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in NETWORKS:
        make_network(name)
    counts = {name: count(size) for name, size in SIZES.items()}
    (FOLDER / "sizes.json").write_text(json.dumps(counts, indent=2) + "\n")
