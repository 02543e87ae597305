"""What every path is: a function from a pair (x0, x1) and a time to a point and its velocity."""

from typing import Any, ClassVar, NamedTuple, Protocol

from fmjax.conventions import Array


class PathSample(NamedTuple):
    """A point of a conditional path: position x_t and velocity u_t, both shaped as x1."""

    x_t: Array
    u_t: Array


class Noisy(NamedTuple):
    """The source of a stochastic path: a source point x0, and standard normal z shaped as x0."""

    x0: Array
    z: Array


class Path(Protocol):
    """What a loss needs of a path; `stochastic` says which source it takes."""

    stochastic: ClassVar[bool]

    def sample(self, source: Any, x1: Array, t: Array) -> PathSample:
        """The point and the conditional velocity at t (batch,)."""
