"""Weight files of PyTorch (``.pt``, ``.pth``, ``.bin``, ``.ckpt``), read by torch itself.

Such a file is a pickle, which can hold a program. It is read by torch's reader for weights alone,
which runs none; without torch it is not read at all.
"""

import argparse
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from fmjax.errors import InputError
from fmjax.files import first_line

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_FLOATS = ("float64", "float32", "float16", "bfloat16")
_INSIDE = ("ema", "model_ema", "ema_model", "state_dict", "model", "net_model", "module")
"""Where training programs put the network's tensors in a file, the averaged ones first."""


def read_torch(path: Path) -> dict[str, Any]:
    """The tensors of a file by name, on the disk until each is asked for where the file allows it.

    Args:
        path: of the file. Where it holds dictionaries of tensors beside an optimiser's state, that
            of the averaged parameters is taken, else that of the network.

    Returns:
        Torch's tensors by name; `to_numpy` makes an array of one.

    Raises:
        InputError: torch is not installed, the file cannot be read, it holds something that is no
            array and would have to be run, or it holds no tensors by name.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path} is a file of PyTorch, which torch alone reads: pip install torch, or give "
            "the weights as .safetensors."
        ) from error
    import pickle

    try:
        # Training programs of DiT and SiT keep their command line beside the tensors.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=_mapped(path))
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors, which torch reads only by running what the file "
            "says, and fmjax never does; save the state_dict alone, or give .safetensors."
        ) from error
    except Exception as error:  # torch says in many ways that a file is damaged
        raise InputError(
            f"{path} cannot be read as a file of PyTorch ({first_line(error)}); give a whole one."
        ) from error
    return _tensors(content, path, torch.Tensor)


def _mapped(path: Path) -> bool:
    """Whether a file is of the newer kind, a zip archive, whose tensors can stay on the disk."""
    import zipfile

    return zipfile.is_zipfile(path)


def _tensors(content: Any, path: Path, kind: type) -> dict[str, Any]:
    """The dictionary of tensors in what a file holds."""
    inside = content if isinstance(content, dict) else {}
    for name in _INSIDE:
        if isinstance(inside.get(name), dict):
            inside = inside[name]
            break
    found: dict[str, Any] = {
        name: value for name, value in inside.items() if isinstance(value, kind)
    }
    for name, tensor in found.items():
        if str(tensor.dtype).removeprefix("torch.") not in _FLOATS:
            raise InputError(
                f"{path} holds {name} as {tensor.dtype}; parameters are floating-point numbers: "
                f"{', '.join(_FLOATS)}."
            )
    if not found:
        raise InputError(
            f"{path} holds no tensors by name, but {type(content).__name__}: save the state_dict "
            "of the network."
        )
    return found


def to_numpy(tensor: Any) -> Shaped[np.ndarray, "..."]:
    """A tensor of torch as an array; bfloat16, which torch does not hand to numpy, by its bits."""
    import torch

    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(jnp.bfloat16)
    return tensor.numpy()
