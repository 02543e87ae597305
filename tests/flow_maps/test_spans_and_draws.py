"""Distributions of spans, and the draw of a batch with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import Draw, Span
from fmjax.conditions import ClassIds
from fmjax.conventions import example_keys
from fmjax.errors import InputError
from fmjax.times import (
    AnyPair,
    DyadicGrid,
    FromSource,
    LogitNormal,
    SortedPair,
    ToData,
    Uniform,
    WithDiagonal,
)

N = 20_000


def drawn(distribution, n=N):
    keys = example_keys(jax.random.key(0), jnp.arange(n))
    return Span(*map(np.asarray, jax.jit(distribution.spans)(keys)))


def share_is(found, expected, n=N):
    """Whether a share is the expected one, within four standard errors."""
    return abs(np.mean(found) - expected) < 4 * np.sqrt(expected * (1 - expected) / n) + 1e-9


def test_a_sorted_pair_is_uniform_on_the_triangle():
    s, t = drawn(SortedPair())
    assert np.all(s <= t)
    for a, b in ((0.2, 0.9), (0.5, 0.6), (0.0, 0.5)):  # P(a <= s, t <= b) = (b - a)^2
        assert share_is((s >= a) & (t <= b), (b - a) ** 2)


def test_any_pair_has_independent_times_in_both_orders():
    s, t = drawn(AnyPair(Uniform(), LogitNormal(0.4, 1.0)))
    assert share_is(s < 0.3, 0.3)
    assert share_is(t < float(LogitNormal(0.4, 1.0).quantile(jnp.array(0.3))), 0.3)
    assert abs(np.corrcoef(s, t)[0, 1]) < 4 / np.sqrt(N)


def test_to_data_ends_at_one():
    s, t = drawn(ToData())
    np.testing.assert_array_equal(t, 1)
    assert share_is(s < 0.25, 0.25)


def test_a_dyadic_grid_has_every_length_and_place_as_often():
    s, t = drawn(DyadicGrid(3))
    length = t - s
    for k in range(3):
        rows = length == 2.0**-k
        assert share_is(rows, 1 / 3)
        places = s[rows] * 2**k
        np.testing.assert_array_equal(places, np.round(places))
        for place in range(2**k):
            assert share_is(places == place, 2.0**-k, rows.sum())
    assert s.min() == 0
    assert t.max() == 1


def test_a_share_begins_at_the_source():
    s, t = drawn(FromSource(SortedPair(), 0.3))
    assert share_is(s == 0, 0.3)
    assert share_is(t < 0.5, 0.25)  # the later of two uniform times, wherever the first one is
    assert share_is(s[s > 0] > 0.5, 0.25, np.sum(s > 0))


@pytest.mark.parametrize("times", [None, LogitNormal()])
def test_the_diagonal_has_its_share_and_times(times):
    s, t = drawn(WithDiagonal(SortedPair(), 0.75, times))
    assert share_is(s == t, 0.75)
    half = 0.5 if times else 0.75  # the smaller of two uniform numbers is below 1/2 thrice in four
    assert share_is(s[s == t] < 0.5, half, np.sum(s == t))


def test_the_diagonal_and_the_label_drop_are_independent():
    draw = Draw(
        time_distribution=WithDiagonal(SortedPair(), 0.75), conditions=ClassIds(3, drop_rate=0.1)
    )
    x, labels = jnp.zeros((N, 1)), jnp.zeros(N, jnp.int32)
    args = jax.jit(draw)(jax.random.key(0), jnp.arange(N), x, labels)
    dropped, on_diagonal = np.asarray(args.labels) == 3, np.asarray(args.t.s == args.t.t)
    assert share_is(dropped & ~on_diagonal, 0.1 * 0.25)
    assert share_is(dropped & on_diagonal, 0.1 * 0.75)


def test_spans_depend_on_the_place_in_the_batch_alone():
    draw, x = Draw(time_distribution=WithDiagonal(DyadicGrid())), jnp.zeros((8, 1))
    whole = draw(jax.random.key(0), jnp.arange(8), x)
    half = draw(jax.random.key(0), jnp.arange(4, 8), x[4:])
    np.testing.assert_array_equal(whole.t.t[4:], half.t.t)
    np.testing.assert_array_equal(whole.t.s[4:], half.t.s)


class ShortSpans:
    def spans(self, keys):
        return Span(jnp.zeros(1), jnp.ones(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SortedPair(Uniform), "write Uniform()"),
        (lambda: ToData(0.5), r"the distribution of a time must"),
        (lambda: DyadicGrid(0), "levels of DyadicGrid must be a whole number of at least 1"),
        (lambda: WithDiagonal(SortedPair(), 1.5), r"share of the diagonal must lie in \[0, 1\]"),
        (lambda: FromSource(SortedPair(), -0.1), "share of spans from the source must lie in"),
        (lambda: FromSource(0.5), "the distribution of spans must .*spans"),
        (lambda: WithDiagonal(Uniform()), "the distribution of spans must .*spans"),
    ],
)
def test_a_wrong_distribution_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_spans_are_not_stratified_and_have_two_times_for_each_example():
    x = jnp.zeros((4, 1))
    with pytest.raises(InputError, match="cannot be stratified; leave stratify out"):
        Draw(time_distribution=SortedPair(), stratify=4)(jax.random.key(0), jnp.arange(4), x)
    with pytest.raises(InputError, match=r"spans of ShortSpans must return floats shaped as"):
        Draw(time_distribution=ShortSpans())(jax.random.key(0), jnp.arange(4), x)
