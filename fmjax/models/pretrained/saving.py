"""Parameters out, under the names of a published layout."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn

from fmjax.errors import InputError
from fmjax.models.pretrained.families import FAMILIES
from fmjax.models.pretrained.family import Family, Shape, check_path, family_named
from fmjax.models.pretrained.report import Report
from fmjax.models.pretrained.rules import Origin, by_path, expected_shapes, origins
from fmjax.storage.safetensors import DTYPES, on_host, write_weights
from fmjax.storage.weight_files import PARTS, WeightFiles


def save(
    path: str | Path,
    params: Any,
    layout: str,
    model: nn.Module,
    *,
    shape: Shape = (),
    dtype: str | None = None,
) -> None:
    """Writes parameters under the names of a published layout, for other programs to read.

    What `load` read comes out bit for bit as it was in the file, if it was loaded in the file's
    dtype. Called by all processes, written by process 0, which holds one whole copy.

    Args:
        path: of the ``.safetensors`` file; of a folder for a layout of two files.
        params: of the network.
        layout: the name of a family; see `LAYOUTS`.
        model: the network.
        shape: of its examples, (height, width, channels), as `Network.shape` has it; an
            autoencoder's is not needed.
        dtype: a name of `fmjax.storage.safetensors.DTYPES`; None leaves the parameters' own.

    Raises:
        InputError: the layout or the dtype is unknown, or the parameters are not those of the
            network.
        OSError: the file cannot be written.
    """
    family = family_named(layout, FAMILIES)
    path = check_path(path)
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r}: expected one of {', '.join(DTYPES)}, or None.")
    target, where = _plan(family, model, shape)
    _check_params(params, target)
    tensors = {**_theirs(where, by_path(params)), **family.added(model, shape)}
    if not family.halves:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_weights(path, tensors, dtype)
        return
    path.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        own = {k.removeprefix(f"{part}."): x for k, x in tensors.items() if k.startswith(part)}
        write_weights(path / f"{family.name}_{part}.safetensors", own, dtype)


def outline_of(layout: str, model: nn.Module, shape: Shape) -> Any:
    """What `load` would give of a file that `save` writes, without parameters: what it stands for.

    Args:
        layout: as in `save`.
        model: as in `save`.
        shape: as in `save`.

    Raises:
        InputError: the layout is unknown, or has no place for such a network.
    """
    family = family_named(layout, FAMILIES)
    files = WeightFiles(Path(layout), expected_shapes(_plan(family, model, shape)[1]), {}, _unread)
    return family.finish(family, model, None, Report((), {}, {}, {}, ()), files)


def _unread(name: str) -> np.ndarray:
    raise AssertionError(f"{name} is not written yet")


def _plan(family: Family, model: nn.Module, shape: Shape) -> tuple[Any, list[Origin]]:
    """The shapes of the parameters, and which tensors each makes."""
    family.check_kind(model)
    _check_shape(shape, family)
    target = family.abstract_params(model, shape)
    try:
        return target, origins(family.rules(model), target)
    except LookupError as error:
        raise InputError(
            f"{family.what} has no place for all that this network has ({error}): take another "
            "layout."
        ) from error


def _theirs(where: Sequence[Origin], params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors by name, of parameters by their paths."""
    parts: dict[str, dict[int, np.ndarray]] = {}
    for origin in where:
        ours, rows = np.asarray(on_host(params[origin.path])), origin.rule.rows
        first = 0 if rows is None else rows.first
        for k, names in enumerate(origin.names):
            values = origin.rule.change.backward(ours[k] if origin.stacked else ours)
            for name, value in zip(names, values, strict=True):
                parts.setdefault(name, {})[first] = value
    return {name: _joined(of_name) for name, of_name in parts.items()}


def _joined(parts: dict[int, np.ndarray]) -> np.ndarray:
    """A tensor of all its rows, from the parts by their places."""
    values = [parts[first] for first in sorted(parts)]
    return values[0] if len(values) == 1 else np.concatenate(values)


def _check_shape(shape: Shape, family: Family) -> None:
    if family.of_examples and (not isinstance(shape, tuple) or len(shape) != 3):
        raise InputError(
            f"shape={shape!r}: {family.what} is saved for examples of one shape; write that of "
            "Network.shape, or (height, width, channels)."
        )


def _check_params(params: Any, expected: Any) -> None:
    found, wanted = by_path(params), by_path(expected)
    for name in [*wanted, *found]:
        shapes = [getattr(tree.get(name), "shape", None) for tree in (found, wanted)]
        if shapes[0] != shapes[1]:
            there, here = ("nothing" if shape is None else list(shape) for shape in shapes)
            raise InputError(
                f"the parameters are not those of the model: {name} is {there} in params, and "
                f"{here} in the model; give the model that they belong to."
            )
