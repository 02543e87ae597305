import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conventions import Output
from fmjax.errors import InputError
from fmjax.predictions import (
    PREDICTIONS,
    as_velocity,
    change_path,
    coefficients,
    convert,
    convert_weight,
    endpoints,
    error_ratio,
    target_of,
)
from fmjax.predictions.conversions import END_DISTANCES, reach
from fmjax.samplers import solve, solver_spec
from fmjax.schedules import VP, Cosine, Custom, Linear, LinearVP, Polynomial

SCHEDULES = {
    "linear": Linear(),
    "linear_sigma_min": Linear(1e-3),
    "vp": VP(),
    "linear_vp": LinearVP(),
    "cosine": Cosine(),
    "polynomial_1.5": Polynomial(1.5),
    "polynomial_5": Polynomial(5),
    "custom": Custom(lambda t: t**2, lambda t: jnp.sqrt(1 - t**4)),
}


def mostly_slow(names, cases, quick):
    """Parametrizes over all cases, of which the quick part takes a few: one kind of each."""
    cases = {case: case if isinstance(case, tuple) else (case,) for case in cases}
    slow = pytest.mark.slow
    params = [pytest.param(*v, marks=() if case in quick else slow) for case, v in cases.items()]
    return pytest.mark.parametrize(names, params)


every_schedule = mostly_slow("name", SCHEDULES, ("vp", "custom", "polynomial_5"))
PAIRS = list(itertools.product(PREDICTIONS, PREDICTIONS))

RNG = np.random.default_rng(0)
INNER = np.linspace(0.05, 0.95, 19)
X0, X1, P = RNG.normal(size=(3, len(INNER), 2))


def by_definition(target, schedule, x0, x1, t):
    """The targets as their papers write them, in numpy."""
    alpha, sigma, d_alpha, d_sigma = (
        np.asarray(f(jnp.asarray(t)))[:, None]
        for f in (schedule.alpha, schedule.sigma, schedule.d_alpha, schedule.d_sigma)
    )
    return {
        "velocity": d_alpha * x1 + d_sigma * x0,
        "x1": x1,
        "x0": x0,
        "score": -(alpha * x1 + sigma * x0 - alpha * x1) / sigma**2,
        "v": alpha * x0 - sigma * x1,
    }[target]


@pytest.mark.day_cases(3)
@pytest.mark.slow
@every_schedule
def test_every_target_converts_to_every_other(name):
    # Two routes to a target: from x0 and x1 by its definition, and from each other target.
    schedule = SCHEDULES[name]

    def every(x0, x1, t):
        x_t = schedule.alpha(t)[:, None] * x1 + schedule.sigma(t)[:, None] * x0
        of = {target: target_of(target, schedule, x0, x1, t) for target in PREDICTIONS}
        return of, {(a, b): convert(of[a], x_t, t, schedule, source=a, target=b) for a, b in PAIRS}

    with jax.enable_x64(True):
        of, converted = every(X0, X1, INNER)
        for target in PREDICTIONS:
            expected = by_definition(target, schedule, X0, X1, INNER)
            np.testing.assert_allclose(of[target], expected, rtol=1e-10, atol=1e-12)
        for (a, b), value in converted.items():
            np.testing.assert_allclose(value, of[b], rtol=1e-10, atol=1e-10, err_msg=f"{a} to {b}")


@pytest.mark.day_cases(2)
@pytest.mark.slow
@mostly_slow("name", SCHEDULES, ("custom", "polynomial_5"))
def test_conversions_are_finite_at_the_ends_in_value_and_gradient(name):
    schedule = SCHEDULES[name]
    x_t, p = (a[:2].astype("float32") for a in (X0, P))

    def every(t, x_t, p):
        converted = [convert(p, x_t, t, schedule, source=a, target=b) for a, b in PAIRS if a != b]
        return converted, [target_of(target, schedule, x_t, p, t) for target in PREDICTIONS]

    # Outside jit: hundreds of small operations run faster than they compile.
    args = np.array([0.0, 1.0], np.float32), x_t, p
    values, tangents = jax.jvp(every, args, tuple(np.ones_like(a) for a in args))
    for leaf in jax.tree.leaves((values, tangents, jax.vjp(every, *args)[1](values))):
        assert leaf.dtype == jnp.float32
        assert np.all(np.isfinite(leaf)), leaf


@pytest.mark.quick_cases(5)
@pytest.mark.parametrize("name", ["linear", "vp", "cosine", "polynomial_5", "custom"])
@pytest.mark.parametrize("source", ["velocity", "x0", "v"])
def test_an_exact_prediction_gives_the_end_it_stands_on(name, source):
    # At t = 0 x_t is x0, and at t = 1 it is x1, whatever else is lost there.
    schedule, t, x0, x1 = SCHEDULES[name], jnp.array([0.0, 1.0]), X0[:2], X1[:2]
    x_t = schedule.alpha(t)[:, None] * x1 + schedule.sigma(t)[:, None] * x0
    p = target_of(source, schedule, x0, x1, t)
    x0_hat, x1_hat = endpoints(p, x_t, t, schedule, source=source)
    np.testing.assert_allclose(x0_hat[0], x0[0], rtol=1e-4)
    np.testing.assert_allclose(x1_hat[1], x1[1], rtol=1e-4)


def test_on_the_straight_path_a_velocity_gives_both_ends_exactly_at_every_time():
    # x1 = x_t + (1 - t) u and x0 = x_t - t u: nothing is singular, so nothing may be clamped.
    t = np.array([0.0, 1e-6, 0.3, 1 - 1e-6, 1.0])
    with jax.enable_x64(True):
        x_t, u = X0[:5], P[:5]
        ends = jax.jit(lambda *a: endpoints(*a, Linear(), source="velocity"))
        x0_hat, x1_hat = ends(u, x_t, t)
        np.testing.assert_allclose(x1_hat, x_t + (1 - t)[:, None] * u, rtol=0, atol=1e-15)
        np.testing.assert_allclose(x0_hat, x_t - t[:, None] * u, rtol=0, atol=1e-15)


def test_images_and_bfloat16_predictions_are_converted_in_float32():
    x_t, p = jnp.ones((3, 4, 4, 2)), jnp.full((3, 4, 4, 2), 0.5, jnp.bfloat16)
    t = jnp.array([0.0, 0.5, 1.0])
    x1 = jax.jit(lambda *a: convert(*a, Linear(), source="velocity", target="x1"))(p, x_t, t)
    assert x1.dtype == jnp.float32
    np.testing.assert_array_equal(x1[:, 0, 0, 0], [1.5, 1.25, 1.0])


@pytest.mark.quick_cases(1)
@every_schedule
def test_an_error_in_one_target_is_the_ratio_in_another_and_weights_follow(name):
    # Of two predictions at the same x_t the difference converts by the ratio alone; hence
    # w_a |difference in a|^2 = w_b |difference in b|^2 for the converted weight.
    schedule = SCHEDULES[name]
    pairs = PAIRS[::3]

    def weight(t):
        return 1 + t

    # Outside jit, in the shapes of the test of every conversion: the same operations again.
    def every(p, q, x_t, t):
        out = []
        for a, b in pairs:
            to = functools.partial(convert, x_t=x_t, t=t, schedule=schedule, source=a, target=b)
            ratio = error_ratio(t[:, None], schedule, source=a, target=b)
            converted = convert_weight(weight, schedule, source=a, target=b)(t[:, None])
            out.append([np.asarray(x) for x in (to(p), to(q), ratio, converted)])
        unit = convert_weight(None, schedule, source="x0", target="x1")(t[:, None])
        return out, np.asarray(unit)

    with jax.enable_x64(True):
        out, unit = every(P, X1, X0, INNER)
        alpha, sigma = (np.asarray(f(INNER[:, None])) for f in (schedule.alpha, schedule.sigma))
    for (a, b), (of_p, of_q, ratio, converted) in zip(pairs, out, strict=True):
        expected, weights = ratio * (P - X1), 1 + INNER[:, None]
        np.testing.assert_allclose(of_p - of_q, expected, 1e-8, 1e-10, err_msg=f"{a}, {b}")
        np.testing.assert_allclose(converted * ratio**2, weights, rtol=1e-10, err_msg=f"{a}, {b}")
    np.testing.assert_allclose(unit, (alpha / sigma) ** 2, rtol=1e-10)  # the SNR, as is known


def test_ratios_on_the_straight_path_are_the_known_ones():
    t = np.array([0.25, 0.5], np.float32)
    known = {("velocity", "x1"): 1 - t, ("velocity", "x0"): -t, ("x0", "score"): -1 / (1 - t)}
    known |= {("x1", "velocity"): 1 / (1 - t), ("x1", "x0"): -t / (1 - t)}
    ratios = jax.jit(lambda t: [error_ratio(t, Linear(), source=a, target=b) for a, b in known])(t)
    for pair, found in zip(known, ratios, strict=True):
        np.testing.assert_allclose(found, known[pair], 1e-6, err_msg=str(pair))


def test_a_network_of_another_target_becomes_a_velocity():
    def of_x0(params, x, t, labels):
        return params * x + labels[:, None]

    x, t, labels = X0[:3], np.array([0.2, 0.5, 0.9]), np.arange(3.0)
    velocity = jax.jit(functools.partial(as_velocity(of_x0, Cosine(), "x0"), 0.5))(x, t, labels)
    p, angle = 0.5 * x + labels[:, None], np.pi / 2 * t[:, None]
    x1 = (x - np.cos(angle) * p) / np.sin(angle)
    expected = np.pi / 2 * (np.cos(angle) * x1 - np.sin(angle) * p)
    np.testing.assert_allclose(velocity, expected, rtol=1e-5, atol=1e-5)
    parts = Output(x0=of_x0(0.5, x, t, labels), head=x[:, :1])
    by_part = as_velocity(lambda *_: parts, Cosine(), "x0")(None, x, t, labels)
    np.testing.assert_allclose(by_part, velocity, rtol=1e-5)
    of_velocity = as_velocity(lambda params, x, t, labels: Output(velocity=x, head=t), Cosine())
    np.testing.assert_array_equal(of_velocity(None, x, t, labels), x)


def test_a_small_error_of_the_network_stays_small_in_the_samples():
    # Data normal(mean, std^2): the best predictions have closed forms. Heun evaluates at t = 0 and
    # t = 1, where one of the conversions divides by zero.
    mean, std = 0.7, 0.5
    networks = [(Linear(), "x1"), (Cosine(), "x1"), (LinearVP(), "x1")]
    networks += [(Linear(), "x0"), (Cosine(), "score")]

    def velocity_of(schedule, prediction):
        def network(params, x, t, error):
            alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
            residual = (x - alpha * mean) / ((alpha * std) ** 2 + sigma**2)
            best = {"x1": mean + alpha * std**2 * residual, "x0": sigma * residual}
            return (best | {"score": -residual})[prediction] + error[:, None]

        return as_velocity(network, schedule, prediction)

    # All networks in a single program: each has its part of the batch.
    fields = [velocity_of(*network) for network in networks]
    parts = [slice(18 * k, 18 * (k + 1)) for k in range(len(fields))]

    def velocity(x, t, error):
        each = zip(fields, parts, strict=True)
        return jnp.concatenate([field(None, x[part], t[part], error[part]) for field, part in each])

    start = np.linspace(-2, 2, 9)[:, None]
    x0 = np.tile(start, (2 * len(fields), 1)).astype("float32")
    error = np.tile(np.repeat([0.0, 0.01], 9), len(fields)).astype("float32")
    spec = solver_spec("heun", steps=25)
    x1 = np.asarray(jax.jit(lambda *a: solve(velocity, *a, spec).x1)(x0, error))
    for network, part in zip(networks, parts, strict=True):
        exact, off = x1[part][:9], x1[part][9:]
        np.testing.assert_allclose(exact, mean + std * start, atol=0.02, err_msg=str(network))
        np.testing.assert_allclose(off, exact, atol=0.1, err_msg=str(network))


def test_unknown_targets_are_refused_with_the_known_ones():
    x, t = jnp.zeros((2, 2)), jnp.zeros(2)
    calls = [
        lambda: coefficients("eps", Linear(), t),
        lambda: target_of("eps", Linear(), x, x, t),
        lambda: convert(x, x, t, Linear(), source="eps", target="x0"),
        lambda: convert(x, x, t, Linear(), source="x0", target="eps"),
        lambda: endpoints(x, x, t, Linear(), source="eps"),
        lambda: error_ratio(t, Linear(), source="x0", target="eps"),
        lambda: convert_weight(None, Linear(), source="eps", target="x0"),
        lambda: convert_weight(None, Linear(), source="x0", target="eps"),
        lambda: as_velocity(lambda *a: a[1], Linear(), "eps"),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"prediction target 'eps'.*Known: score, v, velocity"):
            call()


MEAN, STD = np.array([1.5, -0.5]), 0.4


def gaussian_velocity(schedule):
    """The velocity E[u_t | x_t = x] of x0 ~ N(0, 1) and x1 ~ N(MEAN, STD^2), independent."""

    def velocity(x, t, labels=None):
        alpha, sigma, d_alpha, d_sigma = (
            f(t)[:, None]
            for f in (schedule.alpha, schedule.sigma, schedule.d_alpha, schedule.d_sigma)
        )
        slope = (alpha * d_alpha * STD**2 + sigma * d_sigma) / (alpha**2 * STD**2 + sigma**2)
        return d_alpha * MEAN[None] + slope * (x - alpha * MEAN[None])

    return velocity


CHANGES = [
    ("linear", "cosine"),
    ("linear", "vp"),
    ("cosine", "linear"),
    ("polynomial_5", "linear"),
    ("linear", "custom"),
    ("custom", "polynomial_1.5"),
    ("linear_vp", "cosine"),
]


@pytest.mark.quick_cases(2)
@mostly_slow(("a", "b"), CHANGES, [*CHANGES[1:4], ("linear_vp", "cosine")])
def test_the_changed_field_is_the_field_of_the_new_path(a, b):
    # The marginals of both paths are known, so the transformed field can be compared at any point.
    field = change_path(gaussian_velocity(SCHEDULES[a]), SCHEDULES[a], SCHEDULES[b])
    of_b, ends = gaussian_velocity(SCHEDULES[b]), [0.0, 1e-3, 1 - 1e-3, 1.0]
    with jax.enable_x64(True):
        x, t = np.concatenate([X0, X0[:4]]), np.concatenate([INNER, ends])
        found, expected = jax.jit(lambda x, t: (field(x, t, None), of_b(x, t)))(x, t)
        np.testing.assert_allclose(found[:-4], expected[:-4], rtol=1e-8, atol=1e-9)
        if b not in ("vp", "custom"):  # their derivative at t = 1 is infinite: there is no field
            np.testing.assert_allclose(found[-4:], expected[-4:], atol=0.02)


@pytest.mark.day_cases(3)
@pytest.mark.slow
@mostly_slow(("a", "b"), CHANGES + [(b, a) for a, b in CHANGES], (CHANGES[1], CHANGES[3]))
def test_the_changed_field_is_finite_at_the_ends_in_value_and_gradient(a, b):
    field = change_path(gaussian_velocity(SCHEDULES[a]), SCHEDULES[a], SCHEDULES[b])

    @jax.jit
    def both_modes(*args):
        value, pull = jax.vjp(field, *args)
        return value, *pull(value), jax.jvp(field, args, args)[1]

    for leaf in both_modes(X0[:2].astype("float32"), np.array([0.0, 1.0], np.float32)):
        assert leaf.dtype == jnp.float32
        assert np.all(np.isfinite(leaf)), leaf


@pytest.mark.day_cases(1)
@mostly_slow(("a", "b"), [("linear", "cosine"), ("polynomial_5", "linear")], [("linear", "cosine")])
def test_both_paths_carry_a_point_to_the_same_end(a, b):
    # The flow of a Gaussian is x0 -> MEAN + STD x0 on every path.
    field = gaussian_velocity(SCHEDULES[a])
    changed = change_path(field, SCHEDULES[a], SCHEDULES[b])
    spec = solver_spec("dopri5", steps=100)

    # Both fields as one batch of a single program.
    def both(x, t, labels=None):
        return jnp.concatenate([field(x[:4], t[:4]), changed(x[4:], t[4:])])

    with jax.enable_x64(True):
        x1 = jax.jit(lambda x0: solve(both, x0, None, spec).x1)(np.concatenate([X0[:4], X0[:4]]))
        np.testing.assert_allclose(x1[:4], MEAN + STD * X0[:4], atol=1e-6)
        np.testing.assert_allclose(x1[4:], MEAN + STD * X0[:4], atol=1e-6)


@pytest.mark.slow
def test_beyond_the_ratios_of_vp_the_field_rests_at_its_nearest_end():
    # VP starts with alpha_0 = 0.0066 of the data in its noise; the straight path starts with none.
    changed = change_path(gaussian_velocity(VP()), VP(), Linear())
    with jax.enable_x64(True):
        x0 = jnp.asarray(X0[:4])
        x1 = jax.jit(lambda x0: solve(changed, x0, None, solver_spec("dopri5", steps=100)).x1)(x0)
        np.testing.assert_allclose(x1, MEAN + STD * X0[:4], atol=0.02)


@pytest.mark.parametrize("power", [1, 2, 3, 4, 9])
def test_divisions_come_as_near_to_an_end_as_they_can(power):
    near = next((d for d in END_DISTANCES if d**power > 1e-14), END_DISTANCES[-1])
    assert reach(lambda t: t**power) == (near, 1)
    assert reach(lambda t: (1 - t) ** power) == (0, 1 - near)


@pytest.mark.parametrize("margin", [0.0, 0.5, float("nan")])
def test_a_margin_that_cannot_be_is_refused(margin):
    with pytest.raises(InputError, match="margin"):
        as_velocity(lambda *a: a[1], Linear(), "x1", margin)
