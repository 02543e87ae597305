"""Time distributions against scipy, quadrature of their densities, and SD3's formulas."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logit

from fmjax.errors import InputError
from fmjax.times import (
    Beta,
    CosMap,
    LogitNormal,
    LogNormal,
    Mode,
    Shifted,
    StepStarts,
    Uniform,
    UShaped,
    importance_weight,
    resolution_shift,
    shift_time,
    sqrt_shift,
    stratified,
)

DISTRIBUTIONS = [
    Uniform(),
    LogitNormal(0.5, 0.8),
    LogNormal(),
    UShaped(),
    UShaped(0.01),
    Mode(),
    Mode(-0.9),
    CosMap(),
    Beta(0.4, 0.8),
    Shifted(Uniform(), 3.0),
    Shifted(Mode(0.8), 0.4),
]
each_law = pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
U = np.array([0.0, 1e-3, 0.02, 0.1, 0.3, 0.5, 0.65, 0.8, 0.97, 0.999, 1.0])


@functools.cache
def quantiles(distribution, dtype):
    """The quantiles at U, by one compiled program of that dtype."""
    with jax.enable_x64(dtype == "float64"):
        return np.asarray(jax.jit(distribution.quantile)(U.astype(dtype)))


def density(distribution, t):
    with jax.enable_x64(True):
        return np.asarray(jax.jit(distribution.density)(np.asarray(t, np.float64)))


def tanh_sinh(n=1201, end=3.8):
    """Nodes and weights on (0, 1) that integrate endpoint singularities such as t^-0.6."""
    x = np.linspace(-end, end, n)
    nodes = 1 / (1 + np.exp(-np.pi * np.sinh(x)))
    weights = (x[1] - x[0]) * np.pi * np.cosh(x) * nodes * (1 - nodes)
    return nodes[nodes < 1], weights[nodes < 1]


@pytest.mark.quick_cases(4)
@each_law
def test_the_quantile_inverts_the_integral_of_the_density(distribution):
    upper = quantiles(distribution, "float64")[1:]
    nodes, weights = tanh_sinh()
    cdf = upper * (density(distribution, upper[:, None] * nodes[None, :]) @ weights)
    np.testing.assert_allclose(cdf, U[1:], rtol=1e-8)  # the last is 1: the density is normalised


@each_law
def test_float32_is_monotone_inside_the_interval_and_near_float64(distribution):
    t = quantiles(distribution, "float32")
    assert t.dtype == np.float32
    assert (np.diff(t) > 0).all()
    assert t[0] == 0
    assert t[-1] == 1
    exact = quantiles(distribution, "float64")
    assert exact.dtype == np.float64
    np.testing.assert_allclose(t, exact, rtol=1e-5, atol=3e-6)


def sd3_mode(u, s):
    return 1 - u - s * (np.cos(np.pi * u / 2) ** 2 - 1 + u)


def sd3_cosmap(u):
    return 1 - 1 / (np.tan(np.pi * u / 2) + 1)


def test_the_sd3_laws_are_theirs_with_time_reversed():
    for s in (-1.0, 0.5, 1.29, 2 / (math.pi - 2)):
        with jax.enable_x64(True):
            t = Mode(s).quantile(jnp.asarray(U))
        np.testing.assert_allclose(t, 1 - sd3_mode(U, s), atol=1e-14)
    u = np.linspace(0, 0.99, 12)  # as many draws of tau below a value as of t above one minus it
    with jax.enable_x64(True):
        np.testing.assert_allclose(CosMap().quantile(1 - u), 1 - sd3_cosmap(u), atol=1e-14)
    t = U
    np.testing.assert_allclose(
        density(CosMap(), t), 2 / (np.pi - 2 * np.pi * t + 2 * np.pi * t**2), rtol=1e-14
    )
    np.testing.assert_allclose(density(Mode(0.0), t), 1, rtol=1e-12)


def closed_forms():
    edm = stats.lognorm(s=1.2, scale=math.exp(-1.2))  # sigma_edm = (1 - t) / t
    normal = stats.norm(0.5, 0.8)
    e = math.exp(4.0)
    return {
        "logit-normal": (
            LogitNormal(0.5, 0.8),
            lambda t: normal.pdf(logit(t)) / (t * (1 - t)),
            lambda t: normal.cdf(logit(t)),
        ),
        "lognormal": (
            LogNormal(),
            lambda t: edm.pdf((1 - t) / t) / t**2,
            lambda t: edm.sf((1 - t) / t),
        ),
        "u-shaped": (
            UShaped(4.0),
            lambda t: (np.exp(4 * t) + np.exp(4 * (1 - t))) * 4 / (2 * (e - 1)),
            lambda t: (np.exp(4 * t) - 1 + e - np.exp(4 * (1 - t))) / (2 * (e - 1)),
        ),
        "beta": (Beta(0.4, 0.8), stats.beta(0.4, 0.8).pdf, stats.beta(0.4, 0.8).cdf),
    }


@pytest.mark.parametrize("name", ["logit-normal", "lognormal", "u-shaped", "beta"])
def test_density_and_quantile_equal_the_closed_form(name):
    distribution, pdf, cdf = closed_forms()[name]
    t = np.linspace(0, 1, 41)[1:-1]
    np.testing.assert_allclose(density(distribution, t), pdf(t), rtol=1e-11)
    np.testing.assert_allclose(cdf(quantiles(distribution, "float64")[1:-1]), U[1:-1], rtol=1e-10)


def test_densities_at_the_ends():
    ends = np.array([0.0, 1.0])
    np.testing.assert_array_equal(density(LogitNormal(), ends), [0, 0])
    np.testing.assert_allclose(density(Beta(0.5, 2.0), ends), [np.inf, 0])
    np.testing.assert_allclose(density(Beta(1.0, 1.0), ends), [1, 1], rtol=1e-14)
    np.testing.assert_array_equal(density(Mode(-1.0), ends), [np.inf, np.inf])
    # (1 + s (1 - pi/2))^-1 in the middle, far from the limit where it is infinite.
    np.testing.assert_allclose(density(Mode(0.5), [0.5]), 1 / (1.5 - np.pi / 4), rtol=1e-12)


def test_a_beta_law_with_both_exponents_below_one_is_accurate_at_both_ends():
    distribution, peer = Beta(0.4, 0.8), stats.beta(0.4, 0.8)
    np.testing.assert_allclose(quantiles(distribution, "float64"), peer.ppf(U), rtol=1e-12)
    np.testing.assert_allclose(quantiles(distribution, "float32"), peer.ppf(U), rtol=2e-5)


def test_a_beta_law_with_a_parameter_of_one_is_a_power():
    for a, b in ((1.5, 1.0), (1.0, 0.7), (1.0, 1.0)):
        t = quantiles(Beta(a, b), "float32")
        np.testing.assert_allclose(t, stats.beta(a, b).ppf(U), rtol=1e-5)
        np.testing.assert_array_equal(t[[0, -1]], [0, 1])


def test_half_precision_is_widened():
    half = jax.ShapeDtypeStruct((2,), jnp.bfloat16)
    for distribution in DISTRIBUTIONS:
        for function in (distribution.quantile, distribution.density):
            assert jax.eval_shape(function, half) == jax.ShapeDtypeStruct((2,), jnp.float32)


def test_the_shift_is_that_of_sd3_and_flux():
    tau = np.linspace(0, 1, 21)[1:]
    for s in (0.3, 1.0, 3.1):
        sd3 = s * tau / (1 + (s - 1) * tau)
        flux = s / (s + (1 / tau - 1))
        with jax.enable_x64(True):
            ours = np.asarray(shift_time(jnp.asarray(1 - tau), s))
        np.testing.assert_allclose(1 - ours, sd3, atol=1e-15)
        np.testing.assert_allclose(1 - ours, flux, atol=1e-15)


def test_shifts_compose_invert_and_keep_the_ends():
    t = jnp.linspace(0, 1, 11)
    # A handful of roundings near 1, which a slope of at most 3.1 makes larger.
    np.testing.assert_allclose(shift_time(shift_time(t, 3.1), 1 / 3.1), t, atol=2e-6)
    np.testing.assert_allclose(shift_time(shift_time(t, 3.1), 0.7), shift_time(t, 2.17), atol=2e-6)
    np.testing.assert_array_equal(shift_time(t, 1.0), t)
    for s in (0.1, 1 / 3, 3.1, 1e4):
        assert shift_time(t, s)[0] == 0
        assert shift_time(t, s)[-1] == 1
    assert (shift_time(t, 3.0)[1:-1] < t[1:-1]).all()  # towards the noise


def test_shifting_a_logit_normal_law_moves_its_mean_by_log_s():
    shifted, moved = Shifted(LogitNormal(0.5, 0.8), 3.0), LogitNormal(0.5 - math.log(3.0), 0.8)
    np.testing.assert_allclose(
        quantiles(shifted, "float64"), quantiles(moved, "float64"), rtol=1e-12
    )
    t = np.linspace(0, 1, 12)
    np.testing.assert_allclose(density(shifted, t), density(moved, t), rtol=1e-12)


def test_a_shift_cannot_be_applied_twice_by_accident():
    with pytest.raises(InputError, match=r"shifted already, by 3.0.*Shifted\(distribution, 6.0\)"):
        Shifted(Shifted(Uniform(), 3.0), 2.0)


def test_the_shift_of_a_resolution():
    assert resolution_shift(256) == pytest.approx(math.exp(0.5), rel=1e-14)
    assert resolution_shift(4096) == pytest.approx(math.exp(1.15), rel=1e-14)
    assert resolution_shift(2176) == pytest.approx(math.exp(0.825), rel=1e-14)
    assert resolution_shift(64, 16, 64, 0.0, 1.0) == pytest.approx(math.e, rel=1e-14)
    assert sqrt_shift(4096, 256) == 4.0


def test_stratified_puts_one_number_in_each_stratum():
    n = 96
    rng = np.random.default_rng(0)
    u, index = rng.uniform(size=n).astype(np.float32), rng.permutation(n)
    spread = np.asarray(stratified(u, index, n))
    np.testing.assert_array_equal(np.floor(np.float64(spread) * n + 1e-5), index)
    np.testing.assert_allclose(spread * n - index, u, atol=1e-4)
    # By parts, as four devices would: the same to the last bit.
    parts = [stratified(u[part], index[part], n) for part in np.split(np.arange(n), 4)]
    np.testing.assert_array_equal(np.concatenate(parts), spread)


def test_stratified_stays_below_one():
    largest = np.full(1, 1 - 2.0**-24, np.float32)
    for n in (1, 1000, 2**20):
        assert stratified(largest, np.full(1, n - 1), n)[0] < 1


def test_stratified_draws_have_a_far_smaller_variance_than_independent_ones():
    # For f(t) = t: 1 / (12 n) for independent draws, 1 / (12 n^3) with one in each stratum.
    n, repeats = 32, 400
    u = np.random.default_rng(2).uniform(size=repeats * n).astype(np.float32)
    index = np.tile(np.arange(n), repeats)
    spread = stratified(u, index, n)
    for t, variance in ((u, 1 / (12 * n)), (spread, 1 / (12 * n**3))):
        found = np.asarray(t, np.float64).reshape(repeats, n).mean(axis=1).var()
        assert found == pytest.approx(variance, rel=0.3)  # 4 standard errors of a variance of 400


@pytest.mark.parametrize(
    ("distribution", "reference"),
    [
        (Mode(), None),
        (UShaped(), LogitNormal(0.3, 0.8)),
        (LogitNormal(0.0, 1.2), LogitNormal(0.3, 0.8)),
        (Shifted(Uniform(), 3.0), CosMap()),
    ],
    ids=str,
)
def test_importance_weights_keep_the_objective_of_the_reference(distribution, reference):
    nodes, weights = np.polynomial.legendre.leggauss(300)
    u, weights = (nodes + 1) / 2, weights / 2

    def f(t):
        return jnp.cos(3 * t) + t**2

    def expectations(u):
        t, t_reference = distribution.quantile(u), (reference or Uniform()).quantile(u)
        return importance_weight(distribution, reference)(t) * f(t), f(t_reference)

    with jax.enable_x64(True):
        weighted, plain = (np.asarray(v) @ weights for v in jax.jit(expectations)(u))
    np.testing.assert_allclose(weighted, plain, rtol=1e-6)


def test_importance_weights_are_finite_where_a_density_is_zero_or_infinite():
    ends = jnp.array([0.0, 1.0])
    for distribution in (LogitNormal(), Beta(0.5, 0.5)):
        for reference in (None, Beta(0.5, 0.5)):
            weight = jax.jit(importance_weight(distribution, reference))
            np.testing.assert_array_equal(weight(ends), [0, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogitNormal(0.0, 0.0), "std of the logit-normal distribution must be a positive"),
        (
            lambda: LogitNormal(math.nan),
            "mean of the logit-normal distribution must be a finite number",
        ),
        (lambda: LogNormal(-1.2, -1.0), "must be a positive number; got -1.0"),
        (lambda: UShaped(0.0), r"must lie in \(0, 100\]; got 0.0"),
        (lambda: UShaped(101.0), r"must lie in \(0, 100\]"),
        (lambda: Mode(-1.01), r"\[-1, 1.751938394\]; got -1.01. The upper end is 2 / \(pi - 2\)"),
        (lambda: Mode(1.76), "scale of the mode distribution"),
        (lambda: Beta(0.0, 1.0), "a of the beta distribution must be a positive number; got 0.0"),
        (
            lambda: Beta(1.0, math.inf),
            "b of the beta distribution must be a positive number; got inf",
        ),
        (lambda: Shifted(Uniform(), 0.0), "shift must be a positive number; got 0.0"),
        (lambda: shift_time(jnp.zeros(1), -3.0), "shift must be a positive number; got -3.0"),
        (lambda: resolution_shift(0), "num_tokens must be a positive"),
        (lambda: resolution_shift(64, 256, 256), "max_tokens must be above base_tokens = 256"),
        (lambda: sqrt_shift(64, 0), "base_tokens must be a positive"),
        (lambda: stratified(jnp.zeros(2), jnp.arange(2), 0), "n must be a positive"),
        (lambda: stratified(jnp.zeros(2), jnp.arange(3), 3), "one shape"),
    ],
)
def test_what_is_out_of_range_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_starts_of_steps_are_equally_often(steps):
    u = (np.arange(70_000, dtype=np.float32) + 0.5) / 70_000
    found, counts = np.unique(StepStarts(steps).quantile(jnp.asarray(u)), return_counts=True)
    np.testing.assert_allclose(found, np.arange(steps) / steps, atol=1e-7)
    np.testing.assert_allclose(counts, 70_000 / steps, atol=2)
    assert StepStarts(steps).quantile(jnp.ones(1))[0] < 1
    with pytest.raises(InputError, match="have no density"):
        StepStarts(steps).density(jnp.zeros(1))
    with pytest.raises(InputError, match="steps of StepStarts must be a whole number"):
        StepStarts(0)


def test_the_default_mode_law_is_that_of_sd3():
    assert Mode() == Mode(1.29)
