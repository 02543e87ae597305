"""Half precision is carried in float32; complex numbers and integers are no floats; NaN is seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import couplings
from fmjax.errors import InputError
from fmjax.guidance import Guided, classifier_free
from fmjax.likelihood import log_likelihood
from fmjax.losses import make_loss_fn
from fmjax.metrics import path_statistics
from fmjax.paths import AffinePath, BrownianBridge, Joint
from fmjax.predictions import change_path, convert, target_of
from fmjax.samplers import fit_source, invert, sde_spec, solve, solve_sde, solver_spec, take_steps
from fmjax.schedules import Cosine, Linear

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32)
T = jnp.linspace(0.1, 0.9, 6)
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 6)
TWO = solver_spec("euler", 2)
HALF = [jnp.bfloat16, jnp.float16]


def decay(x, t, labels=None):
    return -x


def steps(x):
    nodes = np.linspace(0, 1, 1001)
    return take_steps(lambda x, t, s, k: x - (s - t)[:, None] * x, x, nodes, nfe=1000).x1


CARRIED = {
    "solve": lambda x: solve(decay, x, None, solver_spec("euler", 1000)).x1,
    "solve in bfloat16": lambda x: (
        solve(lambda x, t, labels: -x.astype(jnp.bfloat16), x, None, solver_spec("euler", 1000)).x1
    ),
    "solve a dictionary": lambda x: solve(
        lambda x, t, labels: {"a": -x["a"]}, {"a": x}, None, solver_spec("euler", 1000)
    ).x1["a"],
    "invert": lambda x: invert(lambda x, t, labels: x, x, None, solver_spec("euler", 1000)).x1,
    "solve_sde": lambda x: (
        solve_sde(decay, x, KEYS, None, sde_spec("euler_maruyama", 1000, scale=0.0)).x1
    ),
    "take_steps": steps,
    "guidance": lambda x: (
        solve(classifier_free(decay, 3), x, Guided(1, 2.0), solver_spec("euler", 1000)).x1
    ),
}


@pytest.mark.day_cases(5)
@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", CARRIED)
def test_a_state_of_half_precision_is_carried_in_float32(name, dtype, float16):
    # A thousand steps that are each below half a spacing of bfloat16 would leave 0.543.
    x1 = CARRIED[name](jnp.ones((6, 1), dtype))
    assert x1.dtype == jnp.float32
    np.testing.assert_allclose(x1, np.exp(-1.0), rtol=2e-3)


def loss(x0=X, x1=X, t=T, path=None, noise=None):
    fit = make_loss_fn(lambda params, x, t, labels: x, path)
    return fit(None, x0, x1, t, noise=noise)


FLOATS_ONLY = {
    "solve": lambda bad: solve(decay, bad(X), None, TWO),
    "solve a dictionary": lambda bad: solve(decay, {"a": X, "b": bad(X)}, None, TWO),
    "invert": lambda bad: invert(decay, bad(X), None, TWO),
    "solve_sde": lambda bad: solve_sde(decay, bad(X), KEYS, None, sde_spec(steps=2)),
    "fit_source": lambda bad: fit_source(decay, bad(X), lambda x: x.sum(axis=1), iterations=1),
    "log_likelihood": lambda bad: log_likelihood(decay, bad(X), spec=TWO),
    "x0 of a loss": lambda bad: loss(x0=bad(X)),
    "x1 of a loss": lambda bad: loss(x1=bad(X)),
    "t of a loss": lambda bad: loss(t=bad(T)),
    "x1 of a bridge": lambda bad: loss(x1=bad(X), path=BrownianBridge(), noise={"z": X}),
    "z of a bridge": lambda bad: loss(path=BrownianBridge(), noise={"z": bad(X)}),
    "x1 of a joint path": lambda bad: Joint({"a": AffinePath()}).sample({"a": X}, {"a": bad(X)}, T),
    "x1 of a target": lambda bad: target_of("velocity", Linear(), X, bad(X), T),
    "a prediction": lambda bad: convert(bad(X), X, T, Linear(), source="velocity", target="x1"),
    "x_t": lambda bad: convert(X, bad(X), T, Linear(), source="velocity", target="x1"),
    "t of a conversion": lambda bad: convert(X, X, bad(T), Linear(), source="x0", target="x1"),
    "x of another path": lambda bad: change_path(decay, Linear(), Cosine())(bad(X), T),
    "path_statistics": lambda bad: path_statistics(decay, bad(X), steps=2),
    "x1 of a coupling": lambda bad: couplings.exact()(KEY, X, bad(X)),
    "x0 of a coupling": lambda bad: couplings.sinkhorn(1.0)(KEY, bad(X), X),
}
NO_FLOATS = {
    "complex": lambda x: x + 0j,
    "integers": lambda x: x.astype(jnp.int32),
    "pixels": lambda x: x.astype(jnp.uint8),
    "booleans": lambda x: x > 0,
}


@pytest.mark.parametrize("bad", NO_FLOATS)
@pytest.mark.parametrize("name", FLOATS_ONLY)
def test_what_is_no_float_is_refused_where_a_float_is_meant(name, bad):
    with pytest.raises(
        InputError, match=r"must be of floats; got|must return floats|must be of real numbers"
    ):
        FLOATS_ONLY[name](NO_FLOATS[bad])


def test_a_prediction_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"shaped as x_t, \(6, 2\); got float32 of shape \(6, 1\)"):
        convert(X[:, :1], X, T, Linear(), source="velocity", target="x1")


@pytest.mark.parametrize("w", [2j, np.full(6, 1j)])
def test_a_complex_scale_is_refused(w):
    with pytest.raises(InputError, match="must be of real numbers; got complex"):
        classifier_free(decay, 3)(X, T, Guided(1, w))


COUPLINGS = {
    "exact": couplings.exact(),
    "sinkhorn": couplings.sinkhorn(1.0),
    "sampled": couplings.schroedinger_bridge(1.0),
    "unbalanced": couplings.unbalanced(1.0, 1.0),
    "partial": couplings.partial(0.5),
    "same class": couplings.exact(couplings.SameClass()),
}


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", COUPLINGS)
def test_a_point_that_is_not_finite_never_passes_for_paired(name, side, value):
    pair = [X, X[::-1]]
    pair[side] = pair[side].at[2, 0].set(value)
    labels = jnp.arange(6) % 2
    with pytest.raises(InputError, match="must be finite"):
        COUPLINGS[name](KEY, *pair, labels)
    x0, _, _ = jax.jit(COUPLINGS[name])(KEY, *pair, labels)
    assert np.isnan(x0).all()


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", COUPLINGS)
def test_finite_points_are_paired_alike_in_and_outside_of_a_program(name):
    labels = jnp.arange(6) % 2
    inside, outside = (
        f(KEY, X, X[::-1], labels) for f in (jax.jit(COUPLINGS[name]), COUPLINGS[name])
    )
    for a, b in zip(inside, outside, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(inside[0]).all()
