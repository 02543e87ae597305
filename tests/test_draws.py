import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fmjax.conditions import ClassIds
from fmjax.couplings import independent
from fmjax.draws import Draw
from fmjax.errors import InputError
from fmjax.sources import StandardNormal, UniformBox
from fmjax.times import LogitNormal, PerElement, SortedPair, Uniform

KEY = jax.random.key(3)
X1 = np.random.default_rng(4).normal(size=(4096, 2)).astype("float32")
LABELS = np.arange(4096, dtype="int32") % 5
FIVE = ClassIds(5, drop_rate=0.2)
DRAW = Draw(conditions=FIVE, time_distribution=LogitNormal())
INDEX = np.arange(4096)


@functools.cache
def program(draw):
    return jax.jit(draw)


def drawn(draw, key, *args):
    """One draw, in numpy, by a program that all tests of this draw and these shapes share."""
    return jax.tree.map(np.asarray, program(draw)(key, *args))


def test_an_example_draws_the_same_wherever_it_stands_in_the_batch():
    # Its place in the global batch keys everything: shuffling changes nothing, nor, as the test of
    # stratified times shows, does splitting.
    whole = drawn(DRAW, KEY, INDEX, X1, LABELS)
    order = np.random.default_rng(0).permutation(4096)
    shuffled = drawn(DRAW, KEY, order, X1[order], LABELS[order])
    for a, b in zip(whole, shuffled, strict=True):
        np.testing.assert_array_equal(a[order], b)


@pytest.mark.slow
def test_noise_belongs_to_a_place_and_to_its_name():
    laws = {"z": StandardNormal(), "w": UniformBox(0.0, 1.0)}
    both = drawn(Draw(noise=laws), KEY, INDEX, X1).noise
    order = np.random.default_rng(1).permutation(4096)[:100]
    part = drawn(Draw(noise=laws), KEY, order, X1[order]).noise
    alone = drawn(Draw(noise={"z": StandardNormal()}), KEY, INDEX, X1).noise
    for name, x in both.items():
        np.testing.assert_array_equal(x[order], part[name])
    np.testing.assert_array_equal(both["z"], alone["z"])


def test_another_step_draws_independently():
    a, b = (drawn(DRAW, jax.random.fold_in(KEY, k), INDEX, X1, LABELS) for k in (0, 1))
    correlation = np.corrcoef(np.ravel(a.x0), np.ravel(b.x0))[0, 1]
    assert abs(correlation) < 4 / np.sqrt(a.x0.size)
    assert abs(np.corrcoef(a.t, b.t)[0, 1]) < 4 / np.sqrt(4096)
    assert np.mean((a.labels == 5) & (b.labels == 5)) < 0.08  # 0.2 * 0.2 = 0.04 if independent


def test_noise_time_and_drop_are_independent_of_each_other():
    x0, _, t, labels = drawn(DRAW, KEY, INDEX, X1, LABELS)
    rows = np.stack([x0[:, 0], x0[:, 1], t, labels == 5])
    assert np.abs(np.corrcoef(rows) - np.eye(4)).max() < 5 / np.sqrt(4096)


def test_the_source_is_standard_normal():
    x = np.sort(np.ravel(drawn(DRAW, KEY, INDEX, X1, LABELS).x0))
    uniform = stats.norm.cdf(x)
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed by chance once in a thousand.
    assert np.abs(uniform - (np.arange(len(x)) + 0.5) / len(x)).max() < 1.95 / np.sqrt(len(x))


@pytest.mark.slow
def test_pairs_are_made_before_labels_are_dropped():
    seen = {}

    def reverse(key, x0, x1, labels):
        seen["labels"] = labels
        return independent(key, x0, x1[::-1], labels[::-1])

    draw = Draw(coupling=reverse, conditions=ClassIds(5, drop_rate=0.5))
    _, x1, _, labels = draw(KEY, INDEX, X1, LABELS)  # outside jit, where the labels can be seen
    np.testing.assert_array_equal(seen["labels"], LABELS)
    np.testing.assert_array_equal(x1, X1[::-1])
    kept = labels != 5
    np.testing.assert_array_equal(labels[kept], LABELS[::-1][kept])


def test_stratified_times_fall_one_in_each_stratum_wherever_the_batch_is_cut():
    n = 4096
    draw = dataclasses.replace(DRAW, time_distribution=Uniform(), stratify=n)
    whole = drawn(draw, KEY, INDEX, X1, LABELS)
    strata = np.floor(np.asarray(whole.t, np.float64) * n).astype(int)
    np.testing.assert_array_equal(np.sort(strata), np.arange(n))
    half = drawn(draw, KEY, INDEX[n // 2 :], X1[n // 2 :], LABELS[n // 2 :])
    for a, b in zip(whole, half, strict=True):
        np.testing.assert_array_equal(a[n // 2 :], b)


def test_no_place_in_the_batch_keeps_one_stratum():
    draw = Draw(stratify=16)

    @jax.jit
    def place_three(keys):
        return jax.vmap(lambda key: draw(key, jnp.arange(16), jnp.zeros((16, 1))).t[3])(keys)

    t = place_three(jax.random.split(KEY, 2000))
    counts = np.bincount(np.floor(np.asarray(t) * 16).astype(int), minlength=16)
    assert np.sum((counts - 125) ** 2 / 125) < 37.7  # chi-square, 15 degrees: once in a thousand


def test_stored_pairs_keep_their_source():
    stored = drawn(DRAW, KEY, INDEX, X1, LABELS, -X1)
    np.testing.assert_array_equal(stored.x0, -X1)
    for a, b in zip(list(stored)[1:], list(drawn(DRAW, KEY, INDEX, X1, LABELS))[1:], strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_noise_of_a_stochastic_path_is_independent_of_the_source():
    args = drawn(dataclasses.replace(DRAW, noise={"z": StandardNormal()}), KEY, INDEX, X1, LABELS)
    x0, z = args.x0, args.noise["z"]
    rows = np.stack([x0[:, 0], x0[:, 1], z[:, 0], z[:, 1]])
    assert np.abs(np.cov(rows) - np.eye(4)).max() < 5 * np.sqrt(2 / 4096)
    np.testing.assert_array_equal(x0, drawn(DRAW, KEY, INDEX, X1, LABELS).x0)


@pytest.mark.parametrize("law", [PerElement(Uniform(), axes=1), SortedPair()])
def test_several_times_an_example_are_drawn_without_strata(law):
    few = INDEX[:8], X1[:8]
    times = jax.tree.leaves(Draw(time_distribution=law)(KEY, *few).t)
    assert {len(t) for t in times} == {8}
    assert all(np.all((t >= 0) & (t <= 1)) and len(np.unique(t)) > 4 for t in times)
    with pytest.raises(InputError, match="cannot be stratified; leave stratify out"):
        Draw(time_distribution=law, stratify=8)(KEY, *few)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("rate", [0, 0.5, 1])
def test_conditions_are_dropped_at_any_rate_from_0_to_1(rate):
    slack = 5 * np.sqrt(rate * (1 - rate) / len(INDEX)) + 1e-9
    for draw in (
        Draw(conditions=ClassIds(5), drop_all=rate),
        Draw(conditions=ClassIds(5, drop_rate=rate)),
    ):
        labels = drawn(draw, KEY, INDEX, X1, LABELS).labels
        assert abs(np.mean(labels == 5) - rate) < slack


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"drop_all": 1.5}, "drop_all must lie in"),
        ({"drop_all": -0.1}, "drop_all must lie in"),
        ({"stratify": 0}, "at least 1"),
        ({"conditions": {"class": 10}}, r"conditions such as ClassIds\(10\).*got int"),
    ],
)
def test_values_out_of_range_are_refused(field, message):
    with pytest.raises(InputError, match=message):
        Draw(**field)
