"""Distributions of two times, `Span(s, t)`: from where to where a flow map learns to jump.

====================  ==========================================================================
`SortedPair`          two independent times, the earlier one first
`AnyPair`             two independent times in the order they are drawn: backwards, too
`ToData`              from a time to t = 1, as consistency models do
`DyadicGrid`          s and t = s + 2^-k on the grid of 2^-k, as shortcut models do
`FromSource`          another one, with s = 0 for a share of the examples
`WithDiagonal`        another one, with s = t for a share of the examples
====================  ==========================================================================

Each example draws its span from its own key and nothing else, so that neither the number of devices
nor what else is random (which labels are dropped) changes it.
"""

from dataclasses import dataclass, field
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.array_checks import check_returned
from fmjax.checks import check_at_least, check_between, check_methods
from fmjax.conventions import Array, Span
from fmjax.times.base import Keys, TimeDistribution, check_distribution
from fmjax.times.distributions import Uniform


class SpanDistribution(Protocol):
    """A distribution of two times; `fmjax.Draw` takes it as its ``time_distribution``."""

    def spans(self, keys: Keys) -> Span:
        """One span for each key (batch,): ``Span(s, t)`` of two arrays (batch,) in [0, 1]."""


@dataclass(frozen=True)
class SortedPair:
    """Two independent times, s the earlier and t the later.

    With the default both are uniform, and (s, t) is uniform on the triangle s <= t. MeanFlow takes
    ``LogitNormal(0.4, 1)`` for both (Geng et al., arXiv:2505.13447, whose time runs backwards).

    Args:
        distribution: of one time.
        second: of the other; the same one if None.
    """

    distribution: TimeDistribution = field(default_factory=Uniform)
    second: TimeDistribution | None = None

    def __post_init__(self):
        _check(self.distribution, self.second)

    def spans(self, keys: Keys) -> Span:
        """See `SpanDistribution.spans`."""
        a, b = AnyPair(self.distribution, self.second).spans(keys)
        return Span(jnp.minimum(a, b), jnp.maximum(a, b))


@dataclass(frozen=True)
class AnyPair:
    """Two independent times: half of the spans run backwards, from data towards noise.

    Source: Boffi et al., arXiv:2505.18825.

    Args:
        distribution: of s.
        second: of t; the same one if None.
    """

    distribution: TimeDistribution = field(default_factory=Uniform)
    second: TimeDistribution | None = None

    def __post_init__(self):
        _check(self.distribution, self.second)

    def spans(self, keys: Keys) -> Span:
        """See `SpanDistribution.spans`."""
        second = self.distribution if self.second is None else self.second
        return Span(_times(self.distribution, keys, 0), _times(second, keys, 1))


@dataclass(frozen=True)
class ToData:
    """From a time s to the data, t = 1.

    Args:
        distribution: of s.
    """

    distribution: TimeDistribution = field(default_factory=Uniform)

    def __post_init__(self):
        _check(self.distribution)

    def spans(self, keys: Keys) -> Span:
        """See `SpanDistribution.spans`."""
        s = _times(self.distribution, keys, 0)
        return Span(s, jnp.ones_like(s))


@dataclass(frozen=True)
class DyadicGrid:
    """Spans of length 2^-k on the grid of their own length, k uniform on 0, ..., levels - 1.

    Source: Frans et al., arXiv:2410.12557, whose 128 steps are ``DyadicGrid(7)``.

    Args:
        levels: how many lengths there are, at least 1; the shortest is 2^(1 - levels).
    """

    levels: int = 7

    def __post_init__(self):
        check_at_least("levels of DyadicGrid", self.levels)

    def spans(self, keys: Keys) -> Span:
        """See `SpanDistribution.spans`."""
        k = jnp.floor(_uniform(keys, 0) * self.levels)
        length = jnp.exp2(-k)
        s = jnp.floor(_uniform(keys, 1) / length) * length
        return Span(s, s + length)


@dataclass(frozen=True)
class FromSource:
    """Another distribution, with s = 0 for a share of the examples, where sampling begins.

    One jump asks a network for u(x0, 0, 1) alone, which the other spans reach in the limit only.

    Args:
        distribution: of the other spans, and of t in all.
        share: of the spans that begin at 0, in [0, 1].
    """

    distribution: SpanDistribution = field(default_factory=SortedPair)
    share: float = 0.5

    def __post_init__(self):
        such_as = "times.SortedPair()"
        check_methods("the distribution of spans", self.distribution, "spans", such_as=such_as)
        check_between("the share of spans from the source", self.share, 0, 1)

    def spans(self, keys: Keys) -> Span:
        """See `SpanDistribution.spans`."""
        span = self.distribution.spans(keys)
        return Span(jnp.where(_uniform(keys, 4) < self.share, 0.0, span.s), span.t)


@dataclass(frozen=True)
class WithDiagonal:
    """Another distribution, with s = t for a share of the examples: they learn the velocity.

    Each example is on the diagonal with this probability, independently of all else. In the
    published code of MeanFlow and improved MeanFlow the rows on the diagonal are the first of the
    batch, and so are those whose label is dropped: the unconditional flow then never sees s < t.

    Args:
        distribution: of the other spans.
        share: of the diagonal, in [0, 1].
        times: the distribution of s = t on the diagonal; that of the other spans' s if None.
    """

    distribution: SpanDistribution = field(default_factory=SortedPair)
    share: float = 0.5
    times: TimeDistribution | None = None

    def __post_init__(self):
        such_as = "times.SortedPair()"
        check_methods("the distribution of spans", self.distribution, "spans", such_as=such_as)
        check_between("the share of the diagonal", self.share, 0, 1)
        _check(*([] if self.times is None else [self.times]))

    def spans(self, keys: Keys) -> Span:
        """See `SpanDistribution.spans`."""
        span = self.distribution.spans(keys)
        on_diagonal = _uniform(keys, 2) < self.share
        same = span.s if self.times is None else _times(self.times, keys, 3)
        return Span(jnp.where(on_diagonal, same, span.s), jnp.where(on_diagonal, same, span.t))


def _check(*distributions: TimeDistribution | None) -> None:
    for one in distributions:
        if one is not None:
            check_distribution("the distribution of a time", one)


def _uniform(keys: Keys, stream: int) -> Float[Array, " batch"]:
    """One uniform number (batch,) for each key, of one of several independent streams."""
    return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, stream)))(keys)


def _times(distribution: TimeDistribution, keys: Keys, stream: int) -> Float[Array, " batch"]:
    u = _uniform(keys, stream)
    t = distribution.quantile(u)
    check_returned(f"quantile of {type(distribution).__name__}", t, "u", u)
    return t
