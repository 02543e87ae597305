"""What every path is: from a pair (x0, x1), a time and noise to a point and what is learned there.

Losses, draws and training steps know of a path what stands here, and nothing of its space.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from jaxtyping import Float

from fmjax.checks import check_methods
from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.manifolds import Manifold
from fmjax.schedules import Schedule
from fmjax.sources import Law


class PathSample(NamedTuple):
    """A point of a conditional path.

    Attributes:
        x_t: where the path is at t, built as x1.
        target: what a network is to predict there: the velocity u_t on the paths of this package.
    """

    x_t: Any
    target: Any


class Path(Protocol):
    """What a loss needs of a path.

    Attributes:
        noise: the random variables that it takes beside the pair, by name; empty for most. They are
            drawn by `fmjax.Draw`, for each example by its place in the global batch.
    """

    @property
    def noise(self) -> Mapping[str, Law]:
        """The laws of the noise by name."""

    def sample(
        self, x0: Any, x1: Any, t: Any, noise: Mapping[str, Any] | None = None
    ) -> PathSample:
        """The point and the target at t.

        Args:
            x0: source points (batch, ...), or a pytree of such arrays.
            x1: data points, built as x0.
            t: times (batch,), or (batch, n) for one an element, or a pytree of times that is a
                prefix of x1.
            noise: an array for each name of `noise`.
        """

    def distance(self, predicted: Any, target: Any, x_t: Any, t: Any) -> Float[Array, " batch"]:
        """How far a prediction is from the target, for each example (batch,)."""


def check_is_path(what: str, path: Path) -> None:
    """Checks that something is a path.

    Args:
        what: the path, as the message names it.
        path: what came in.

    Raises:
        InputError: it is a class, or lacks a method.
    """
    check_methods(what, path, "sample", "distance", "noise", such_as="AffinePath()")


def check_noise(path: Path, noise: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The noise that came to a path, once it is what the path takes.

    Raises:
        InputError: something is missing, or there is too much.
    """
    noise = noise or {}
    if noise.keys() != path.noise.keys():
        name = type(path).__name__
        if not path.noise:
            raise InputError(
                f"{name} takes no noise; got {', '.join(noise)}. Leave noise out, and "
                "Draw(noise=...) where it is drawn."
            )
        raise InputError(
            f"{name} takes the noise {', '.join(path.noise)}; got {', '.join(noise) or 'none'}. "
            f"Write noise={{{', '.join(f'{key!r}: {key}' for key in path.noise)}}}, which "
            "Draw(noise=path.noise) draws."
        )
    return noise


def schedule_of(path: Path) -> Schedule | None:
    """The schedule of an affine path, by which predictions are converted; None for any other."""
    return getattr(path, "schedule", None)


def manifold_of(path: Path) -> Manifold | None:
    """The manifold of a geodesic path, or of the parts of a joint one; None in flat space.

    Raises:
        InputError: some parts of a joint path have a manifold and some have none.
    """
    return getattr(path, "manifold", None)
