"""Published weights in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from fmjax.checks import check_seed
from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.models.pretrained.families import FAMILIES
from fmjax.models.pretrained.family import Family, Shape, check_path, recognise
from fmjax.models.pretrained.filling import fill
from fmjax.models.pretrained.report import Report, check_whole, compare
from fmjax.models.pretrained.rules import Origin, by_path, origins
from fmjax.names import matching
from fmjax.storage.weight_files import WeightFiles, open_weights
from fmjax.training.sharding import state_shardings


def load(
    path: str | Path,
    layout: str | None = None,
    *,
    dtype: Any = jnp.float32,
    mesh: Mesh | None = None,
    model: nn.Module | None = None,
    fresh: Sequence[str] = (),
    seed: int = 0,
) -> Any:
    """Reads published weights into a network of fmjax.

    Names, shapes and the network's fit are checked before a number is read; then the file is read
    tensor by tensor, each device its own part, so that the host holds little more than its devices
    do.

    Args:
        path: of a ``.safetensors`` file, an index of several, a folder of diffusers, or a file of
            PyTorch, which torch reads and nothing of it is run; see `fmjax.storage.weight_files`.
        layout: the name of a family, needed only where names and shapes are those of several; see
            `LAYOUTS`.
        dtype: of the parameters.
        mesh: the devices that hold them, split as the network's ``sharding_rules`` say; None for
            the default device.
        model: the network to fill, to choose what names and shapes leave open: heads, dtype,
            attention, remat. None builds it from the file.
        fresh: patterns of parameters that are not read and begin as the network's own ``init``
            makes them: ``("condition/label/*",)`` for other classes than the file's.
        seed: of what begins anew.

    Returns:
        A `Network`, or an `Autoencoder` where the weights are one's.

    Raises:
        InputError: the file is damaged, of no known or another layout, not whole, of another
            network than `model`, or holds NaN; or a pattern matches no parameter; in one sentence.

    Example:
        >>> from tempfile import mkdtemp
        >>> from fmjax.models.autoencoders import TinyAutoencoder
        >>> model = TinyAutoencoder(width=8)
        >>> images = jnp.zeros((1, 8, 8, 3))
        >>> shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
        >>> params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
        >>> path = Path(mkdtemp()) / "model.safetensors"
        >>> save(path, params, "diffusers-taesd", model)
        >>> print(inspect(path))
        134 tensors read
        >>> load(path).model.width
        8
    """
    _check_dtype(dtype)
    files, family, model = _opened(path, layout, model)
    target, where, report = _plan(files, family, model, fresh)
    check_whole(report, files.path, family.what)
    leaves = _with_shardings(target, dtype, mesh, getattr(model, "sharding_rules", ()))
    read = {name: fill(files, origin, leaves[name]) for name, origin in where.items()}
    anew = {name: leaf for name, leaf in leaves.items() if name not in where}
    made = _begin(family, model, family.shape(files), anew, seed) if anew else {}
    params = jax.tree.unflatten(
        jax.tree.structure(target), [made[name] if name in anew else read[name] for name in leaves]
    )
    return family.finish(family, model, params, report, files)


def inspect(
    path: str | Path,
    layout: str | None = None,
    model: nn.Module | None = None,
    fresh: Sequence[str] = (),
) -> Report:
    """Compares the names and shapes of a file with a network's, and reads no numbers.

    Args:
        path: as in `load`.
        layout: as in `load`.
        model: as in `load`.
        fresh: as in `load`.

    Returns:
        What would be read, what would be left out, what is missing, of another shape or unknown.

    Raises:
        InputError: the file is damaged, or of no known layout.
    """
    return _plan(*_opened(path, layout, model), fresh)[2]


def layouts_of(path: str | Path) -> tuple[str, ...]:
    """The layouts that names and shapes of a file are of: none, one, or several.

    Args:
        path: as in `load`.

    Raises:
        InputError: the file is damaged.
    """
    files = open_weights(check_path(path))
    return tuple(one.name for one in FAMILIES if one.accepts(files.shapes, files.config))


def outline(path: str | Path, layout: str | None = None, model: nn.Module | None = None) -> Any:
    """What `load` would give, without its parameters and its report: what the weights mean.

    Args:
        path: as in `load`.
        layout: as in `load`.
        model: as in `load`; of its fields nothing but the class is checked.

    Raises:
        InputError: the file is damaged, of no known layout, or of another class of networks.
    """
    files, family, model = _opened(path, layout, model)
    family.check_kind(model)
    return family.finish(family, model, None, Report((), {}, {}, {}, ()), files)


def _opened(
    path: str | Path, layout: str | None, model: nn.Module | None
) -> tuple[WeightFiles, Family, nn.Module]:
    """The weights, their family, and the network to fill."""
    files = open_weights(check_path(path))
    family = recognise(files, layout, FAMILIES)
    return files, family, family.build(files.shapes, files.config) if model is None else model


def _plan(
    files: WeightFiles, family: Family, model: nn.Module, fresh: Sequence[str]
) -> tuple[Any, dict[str, Origin], Report]:
    """The parameters' shapes, where each comes from that is read, and what the file has of them."""
    target = family.abstract_params(model, family.shape(files), files.config)
    anew = matching(fresh, target, "fresh")
    where = {origin.path: origin for origin in origins(family.rules(model), target)}
    unread = {
        name: "its parameter begins anew"
        for path in anew
        for row in where.pop(path).names
        for name in row
    }
    left_out = {**family.left_out(files, model), **unread}
    return target, where, compare(files.shapes, list(where.values()), left_out)


def _begin(
    family: Family, model: nn.Module, shape: Shape, leaves: dict[str, Any], seed: int
) -> dict[str, Array]:
    """Some parameters as the network's ``init`` makes them, each device its own part."""

    def init(key: Array) -> dict[str, Array]:
        inputs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), family.inputs(model, shape))
        made = by_path(model.init(key, *inputs)["params"])
        return {name: made[name].astype(leaf.dtype) for name, leaf in leaves.items()}

    shardings = {name: leaf.sharding for name, leaf in leaves.items()}
    return jax.jit(init, out_shardings=shardings)(jax.random.key(check_seed(seed, "seed")))


def _with_shardings(
    target: Any, dtype: Any, mesh: Mesh | None, rules: tuple
) -> dict[str, jax.ShapeDtypeStruct]:
    """The shape of each parameter by its path, with its sharding where there is a mesh."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), target)
    if mesh is None:
        return by_path(shapes)
    return by_path(
        jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding),
            shapes,
            state_shardings(shapes, mesh, rules),
        )
    )


def _check_dtype(dtype: Any) -> None:
    try:
        floating = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise InputError(f"dtype={dtype!r}: expected a floating dtype, e.g. jnp.bfloat16.")
