"""What a configuration names where states are points on a manifold: the path, the source."""

from collections.abc import Callable
from typing import Any

from fmjax.config import ConfigDict
from fmjax.data.points import space_of
from fmjax.errors import InputError
from fmjax.factory.data_spec import DataSpec
from fmjax.factory.registry import choose, points_of
from fmjax.factory.settings import changed_keys
from fmjax.factory.tokens import KAPPAS
from fmjax.manifolds import Manifold, UniformOn, WrappedNormal
from fmjax.names import load_maker
from fmjax.paths import GeodesicPath, Path, manifold_of
from fmjax.paths.base import check_is_path
from fmjax.sources import Source

GEODESIC = "geodesic"
SOURCES: dict[str, Callable[[ConfigDict, DataSpec], Source]] = {
    "uniform": lambda c, spec: UniformOn(_space(spec)),
    "wrapped_normal": lambda c, spec: WrappedNormal(_space(spec), scale=c.scale),
    "data": lambda c, spec: points_of(c, spec),
}
"""Where flows on a manifold start, beside one of your own."""
_OF_FLAT_SPACE = (
    "loss.target",
    "loss.weight",
    "data.time",
    "data.dequantize",
    "source.low",
    "source.high",
)
_OF_MANIFOLDS = ("source.scale",)
_FLAT_COUPLINGS = ("schroedinger_bridge", "host_ot")


def _space(spec: DataSpec) -> Manifold:
    manifold = space_of(spec.codec)
    assert manifold is not None, "asked for data on a manifold alone"
    return manifold


def check_manifold(config: ConfigDict, spec: DataSpec) -> None:
    """Checks that the path fits the data, on a manifold or not, and that nothing else is asked for.

    Raises:
        InputError: one of the two is on a manifold and the other is not, or a key is set that says
            nothing there.
    """
    manifold, name = space_of(spec.codec), config.path.name
    if manifold is None:
        if name == GEODESIC:
            raise InputError(
                f"path.name='geodesic' is of points on a manifold, and data.name="
                f"{config.data.name!r} has {spec.codec.kind}: write path.name=linear, or prepare "
                "the data with --manifold=sphere, say."
            )
        for key, value in changed_keys(config, _OF_MANIFOLDS).items():
            raise InputError(f"{key} is of points on a manifold; got {value!r}: leave it out.")
        return
    where = f"data.name={config.data.name!r} is on {manifold}"
    if name != GEODESIC and ":" not in name:
        raise InputError(
            f"{where}, which takes path.name=geodesic, or your own; got path.name={name!r}."
        )
    if config.source.name == "normal":
        compact = manifold.volume < float("inf")
        raise InputError(
            f"{where}, and source.name='normal' is of flat space: write source.name="
            f"{'uniform' if compact else 'wrapped_normal'}."
        )
    if config.coupling.name in _FLAT_COUPLINGS:
        raise InputError(
            f"{where}, and coupling.name={config.coupling.name!r} is of flat space: write "
            "coupling.name=ot or sinkhorn, whose cost is the squared length of geodesics."
        )
    for key, value in changed_keys(config, _OF_FLAT_SPACE).items():
        raise InputError(f"{where}, and {key} is of flat space; got {value!r}: leave it out.")


def check_flat(spec: DataSpec, what: str) -> None:
    """Checks that the states of a flow are in flat space.

    Args:
        spec: of its data.
        what: needs that, as the message names it.

    Raises:
        InputError: they are on a manifold.
    """
    manifold = space_of(spec.codec)
    if manifold is not None:
        raise InputError(f"{what} is of flows in flat space, and this one is on {manifold}.")


def make_geodesic_path(config: ConfigDict, manifold: Manifold) -> Path:
    """The path of ``config.path`` on a manifold.

    One of your own is called with the keys of ``config.path`` and the manifold.

    Raises:
        InputError: a name is unknown, or a value does not fit, or one of your own is elsewhere.
    """
    c = config.path
    if ":" not in c.name:
        return GeodesicPath(manifold, choose("kappa", c.kappa, KAPPAS)(c))
    path = load_maker("path", c.name)(c, manifold)
    check_is_path(f"path.name={c.name!r}", path)
    if manifold_of(path) != manifold:
        raise InputError(
            f"path.name={c.name!r} must give a path with the manifold of the data, {manifold}; its "
            f"manifold is {manifold_of(path)}."
        )
    return path


def make_source_on(config: ConfigDict, spec: DataSpec) -> Source:
    """The source of ``config.source`` on a manifold.

    Raises:
        InputError: the name is unknown, or the manifold has no such distribution.
    """
    return choose("source on a manifold", config.source.name, SOURCES)(config.source, spec)


def kappa_of(path: Any) -> Any:
    """The schedule by which a network that predicts the end of a geodesic is a velocity."""
    return getattr(path, "kappa", None)
