"""Published weights: names and shapes first, then one tensor at a time.

==================================  =============================================================
``x.safetensors``                   one file
``x.safetensors.index.json``        an index, which says in which file of its folder each name is
a folder                            with one of these, and perhaps ``config.json``, as diffusers'
a folder with two parts, or ``x``   ``x_encoder.*`` and ``x_decoder.*``: names get ``encoder.``
                                    and ``decoder.`` in front
``x.pt``, ``.pth``, ``.bin``        a file of PyTorch; see `fmjax.storage.torch_file`
==================================  =============================================================
"""

import glob
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from fmjax.errors import InputError
from fmjax.json_files import OBJECT, TEXT, check_kind, read_json
from fmjax.storage.safetensors import Shapes, read_header, read_tensor
from fmjax.storage.torch_file import SUFFIXES, read_torch, to_numpy

CONFIG = "config.json"
PARTS = ("encoder", "decoder")
_SUFFIX = ".safetensors"
_INDEX = ".safetensors.index.json"
_USUAL = ("diffusion_pytorch_model.safetensors", "model.safetensors")
"""What a folder's file is called where there are variants beside it, of another dtype say."""


class WeightFiles(NamedTuple):
    """What published weights hold.

    Attributes:
        path: where they are.
        shapes: of each tensor by name.
        config: the content of ``config.json``, empty without.
        read: reads the tensor of a name.
    """

    path: Path
    shapes: Shapes
    config: dict[str, Any]
    read: Callable[[str], Shaped[np.ndarray, "..."]]


def open_weights(path: str | Path) -> WeightFiles:
    """Looks at published weights; reads their names and shapes, and no numbers.

    Args:
        path: of a file, an index or a folder; see the module.

    Raises:
        InputError: there is nothing there, it cannot be read, an index names a file that is missing
            or outside its folder, or a folder leaves it open which file is meant.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.exists() and (halves := _halves(path.parent, glob.escape(path.name))):
        return _open_halves(path, halves)
    if not path.exists():
        raise InputError(
            f"there is no {path}: give a .safetensors or .pt file, or a folder with one."
        )
    if path.name.endswith(_INDEX):
        return _open_index(path)
    if path.suffix == _SUFFIX:
        shapes = read_header(path).shapes
        return WeightFiles(path, shapes, {}, lambda name: read_tensor(path, name))
    if path.suffix in SUFFIXES:
        tensors = read_torch(path)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        return WeightFiles(path, shapes, {}, lambda name: to_numpy(tensors[name]))
    raise InputError(
        f"{path} is none of the files that weights are read from: {_SUFFIX}, {_INDEX}, "
        f"{', '.join(SUFFIXES)}."
    )


def _open_folder(folder: Path) -> WeightFiles:
    if halves := _halves(folder, "*"):
        return _open_halves(folder, halves)
    config = read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
    return open_weights(_only_file(folder))._replace(path=folder, config=config)


def _only_file(folder: Path) -> Path:
    """The one file or index of a folder that holds its weights."""
    for found in (
        sorted(folder.glob(f"*{_INDEX}")),
        sorted(folder.glob(f"*{_SUFFIX}")),
        sorted(path for suffix in SUFFIXES for path in folder.glob(f"*{suffix}")),
    ):
        usual = [path for path in found if path.name.removesuffix(".index.json") in _USUAL]
        found = usual[:1] or found
        if len(found) > 1:
            names = ", ".join(path.name for path in found[:5])
            raise InputError(f"{folder} holds several weight files, {names}: give one of them.")
        if found:
            return found[0]
    inside = sorted({path.parent.name for path in folder.glob(f"*/*{_SUFFIX}")})
    where = f"; give one of its folders {', '.join(inside)}" if inside else ""
    raise InputError(f"{folder} holds no weights, {_SUFFIX} or {', '.join(SUFFIXES)}{where}.")


def _halves(folder: Path, stem: str) -> list[Path]:
    """The two files of an autoencoder, none where they are not both there."""
    suffixes = (_SUFFIX, *SUFFIXES)
    halves = []
    for part in PARTS:
        of_kind = ([*folder.glob(f"{stem}_{part}{suffix}")] for suffix in suffixes)
        found = next(filter(None, of_kind), [])
        if len(found) > 1:
            name = sorted(found)[0].name.partition(f"_{part}")[0]
            raise InputError(
                f"{folder} holds several autoencoders: give {folder / name}, say, for the one of "
                f"{name}_encoder and {name}_decoder."
            )
        halves += found
    return halves if len(halves) == len(PARTS) else []


def _open_halves(path: Path, halves: list[Path]) -> WeightFiles:
    parts = {f"{part}.": open_weights(half) for part, half in zip(PARTS, halves, strict=True)}
    shapes = {
        prefix + name: shape
        for prefix, half in parts.items()
        for name, shape in half.shapes.items()
    }

    def read(name: str) -> Shaped[np.ndarray, "..."]:
        prefix = name[: name.index(".") + 1]
        return parts[prefix].read(name.removeprefix(prefix))

    return WeightFiles(path, shapes, {}, read)


def _open_index(index: Path) -> WeightFiles:
    """Weights in several files of one folder."""
    where = read_json(index, {"weight_map": OBJECT})["weight_map"]
    for name, file in where.items():
        check_kind(f"the file of {name} in {index}", file, TEXT)
        # A name, and nothing that leads out of the folder; a link in it is the user's own.
        if file != Path(file).name or "\\" in file or not file.endswith(_SUFFIX):
            raise InputError(
                f"{index} says that {name} is in {file!r:.80}, which is no {_SUFFIX} file of its "
                "own folder; such an index is not followed."
            )
        if not (index.parent / file).is_file():
            raise InputError(f"{index} names {file}, which is missing: fetch the file again.")
    headers = {file: read_header(index.parent / file).shapes for file in set(where.values())}
    for name, file in where.items():
        if name not in headers[file]:
            raise InputError(f"{index} says that {file} holds {name}, and it does not.")
    shapes = {name: headers[file][name] for name, file in where.items()}
    return WeightFiles(
        index, shapes, {}, lambda name: read_tensor(index.parent / where[name], name)
    )
