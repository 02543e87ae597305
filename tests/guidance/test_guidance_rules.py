"""Each rule against its formula, written out once more in numpy, example by example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.guidance import Guided, Projected, Rescale, ZeroStar, classifier_free, linear
from fmjax.schedules import Cosine, Linear

SHAPE = (5, 3, 2)
RNG = np.random.default_rng(0)
U_REF, U_COND, X = RNG.normal(size=(3, *SHAPE))
W = np.array([0.0, 1.0, 1.7, 4.0, -0.5])
T = np.array([0.0, 0.2, 0.5, 0.9, 0.35])
RULES = {
    "linear": linear,
    "rescale": Rescale(0.4),
    "zero star": ZeroStar(),
    "projected": Projected(0.3, 0.8, Cosine()),
}


def given(rule, u_ref=U_REF, u_cond=U_COND, w=W, x=X, t=T):
    """The rule in float64."""
    with jax.enable_x64(True):
        return np.asarray(rule(*(jnp.asarray(a, jnp.float64) for a in (u_ref, u_cond, w, x, t))))


def by_example(formula):
    return np.stack([formula(U_REF[i], U_COND[i], W[i], X[i], T[i]) for i in range(len(W))])


@pytest.mark.parametrize("phi", [0.0, 0.4, 1.0])
def test_rescale_is_its_formula(phi):
    def formula(u_ref, u_cond, w, x, t):
        u = u_ref + w * (u_cond - u_ref)
        return phi * u * np.std(u_cond) / np.std(u) + (1 - phi) * u

    u = given(Rescale(phi))
    np.testing.assert_allclose(u, by_example(formula), rtol=1e-10)
    if phi == 1:
        np.testing.assert_allclose(u.std(axis=(1, 2)), U_COND.std(axis=(1, 2)), rtol=1e-10)


def test_zero_star_is_its_formula():
    def formula(u_ref, u_cond, w, x, t):
        s = np.vdot(u_cond, u_ref) / np.vdot(u_ref, u_ref)
        return (1 - w) * s * u_ref + w * u_cond

    np.testing.assert_allclose(given(ZeroStar()), by_example(formula), rtol=1e-10)


def test_zero_star_takes_the_nearest_multiple_of_the_reference():
    s = given(ZeroStar(), w=np.zeros(5)) / U_REF
    for shift in (-0.01, 0.01):
        near, far = (np.sum((k * U_REF - U_COND) ** 2, axis=(1, 2)) for k in (s, s + shift))
        assert np.all(near < far)


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("schedule", [Linear(), Cosine()])
@pytest.mark.parametrize(("eta", "threshold"), [(0.0, None), (0.3, 0.8), (1.0, 0.8), (2.0, None)])
def test_projected_is_its_formula_in_the_space_of_x1(schedule, eta, threshold):
    def formula(u_ref, u_cond, w, x, t):
        alpha, sigma = (
            (t, 1 - t)
            if isinstance(schedule, Linear)
            else (np.sin(np.pi / 2 * t), np.cos(np.pi / 2 * t))
        )
        d_alpha, d_sigma = (
            (1.0, -1.0)
            if isinstance(schedule, Linear)
            else (np.pi / 2 * np.cos(np.pi / 2 * t), -np.pi / 2 * np.sin(np.pi / 2 * t))
        )
        # x = alpha x1 + sigma x0 and u = d_alpha x1 + d_sigma x0, solved for x1 and back.
        x1 = np.linalg.inv([[alpha, sigma], [d_alpha, d_sigma]])[0]
        d_cond, d_ref = (x1[0] * x + x1[1] * u for u in (u_cond, u_ref))
        d = d_cond - d_ref
        if threshold is not None:
            d = d * min(1.0, threshold / np.linalg.norm(d))
        along = np.vdot(d, d_cond) / np.vdot(d_cond, d_cond) * d_cond
        guided = d_cond + (w - 1) * (d - along + eta * along)
        return (guided - x1[0] * x) / x1[1]

    rule = Projected(eta, threshold, schedule)
    np.testing.assert_allclose(given(rule), by_example(formula), rtol=1e-6, atol=1e-9)


def test_without_eta_nothing_moves_along_the_prediction():
    change = given(Projected()) - U_COND
    prediction = X + (1 - T)[:, None, None] * U_COND
    np.testing.assert_allclose(np.sum(change * prediction, axis=(1, 2)), 0, atol=1e-10)
    assert np.abs(change[2:]).max() > 0.1


def test_the_threshold_holds_the_change_of_the_prediction():
    change = (1 - T)[:, None, None] * (given(Projected(1.0, 0.1)) - U_COND)
    length = np.linalg.norm(change.reshape(5, -1), axis=1)
    np.testing.assert_allclose(length, 0.1 * np.abs(W - 1), atol=1e-10)


@pytest.mark.parametrize("rule", [Rescale(0.0), Projected(1.0), Projected(1.0, 1e6)])
def test_at_its_neutral_setting_a_rule_is_the_linear_one(rule):
    np.testing.assert_allclose(given(rule), given(linear), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(RULES))
def test_at_w_one_every_rule_is_the_conditional_velocity(name):
    np.testing.assert_allclose(given(RULES[name], w=np.ones(5)), U_COND, rtol=1e-12)


def test_rescale_is_the_linear_rule_where_a_velocity_has_no_spread():
    whole = np.arange(30.0).reshape(SHAPE)
    for u_ref, u_cond in ((U_REF, np.ones(SHAPE)), (2 * whole - 5, whole)):
        u = given(Rescale(0.7), u_ref, u_cond, np.full(5, 2.0))
        np.testing.assert_allclose(u, 2 * u_cond - u_ref, rtol=1e-12)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("name", sorted(RULES))
def test_zeros_make_no_nan_and_no_infinite_gradient(name):
    zero = jnp.zeros((2, 3))
    some = jnp.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    w, t = jnp.array([2.0, 0.0]), jnp.array([0.5, 1.0])

    @jax.jit
    def total(u_ref, u_cond):
        return jnp.sum(RULES[name](u_ref, u_cond, w, zero, t))

    for pair in ((zero, zero), (zero, some), (some, zero), (some, some)):
        value, gradient = jax.value_and_grad(total, (0, 1))(*pair)
        assert all(bool(jnp.isfinite(a).all()) for a in (value, *gradient))


@pytest.mark.slow
def test_classifier_free_guidance_applies_its_rule():
    def velocity(x, t, labels):
        return jnp.sin(x * (1 + labels[:, None, None])) + t[:, None, None]

    x, t, labels = jnp.asarray(X, jnp.float32), jnp.asarray(T, jnp.float32), jnp.arange(5) % 2
    w = jnp.asarray(W, jnp.float32)
    null = velocity(x, t, jnp.full(5, 2))
    conditional = [velocity(x, t, (labels + k) % 2) for k in range(2)]
    for rule in RULES.values():
        guided = jax.jit(classifier_free(velocity, 2, rule=rule))
        expected = rule(null, conditional[0], w, x, t)
        u = guided(x, t, Guided(labels, w))
        np.testing.assert_allclose(u, expected, rtol=1e-4, atol=1e-5)
        several = (Guided(labels, w), Guided((labels + 1) % 2, 2.0))
        other = rule(null, conditional[1], jnp.full(5, 2.0), x, t)
        u = guided(x, t, several)
        np.testing.assert_allclose(u, expected + other - null, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("phi", [-0.1, 1.1, float("nan")])
def test_phi_outside_is_refused(phi):
    with pytest.raises(InputError, match=r"phi of Rescale must lie in \[0, 1\]; got"):
        Rescale(phi)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eta": -0.1}, "eta of Projected"),
        ({"eta": float("nan")}, "eta of Projected"),
        (
            {"norm_threshold": 0.0},
            "norm_threshold of Projected must be a positive number.*write None",
        ),
    ],
)
def test_a_projection_that_cannot_be_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Projected(**fields)
