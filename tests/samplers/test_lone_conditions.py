"""A lone condition is shared by the batch, whatever it goes through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import guidance
from fmjax.guidance import Between, Guided
from fmjax.likelihood import log_likelihood
from fmjax.samplers import fit_source, sde_spec, solve, solve_sde, solver_spec

BATCH = 4
X = np.random.default_rng(0).normal(size=(BATCH, 2)).astype("float32")
T = np.full(BATCH, 0.4, np.float32)
EULER = solver_spec("euler", 2)
KEYS = jax.random.split(jax.random.key(0), BATCH)


def velocity(x, t, labels):
    assert labels.shape == t.shape
    return jnp.sin(x + t[:, None]) * (1.0 + labels)[:, None]


def network(x, t, inputs):
    assert inputs["guidance"].shape == t.shape
    return velocity(x, t, inputs["labels"]) * inputs["guidance"][:, None]


guided = guidance.classifier_free(velocity, 3)
between = guidance.interpolated(velocity)

USES = {
    "solve": lambda y: solve(velocity, X, y, EULER).x1,
    "solve, one step size": lambda y: solve(velocity, X, y, solver_spec(control="batch")).x1,
    "solve, each its own": lambda y: solve(velocity, X, y, solver_spec(rtol=1e-2)).x1,
    "solve, guided": lambda y: solve(guided, X, Guided(y, 2.0), EULER).x1,
    "solve, from a negative": lambda y: solve(guided, X, Guided(y, 2.0, 0), EULER).x1,
    "solve, between": lambda y: solve(between, X, Between(y, 2, 0.5), EULER).x1,
    "solve_sde": lambda y: solve_sde(velocity, X, KEYS, y, sde_spec("churn", 2)).x1,
    "classifier_free": lambda y: guided(X, T, Guided(y, 2.0)),
    "classifier_free, a lone scale": lambda y: guided(X, T, Guided(y, np.full(1, 2.0, "f4"))),
    "classifier_free, several": lambda y: guided(X, T, (Guided(y, 2.0), Guided(2, 0.5))),
    "autoguidance": lambda y: guidance.autoguidance(velocity, velocity)(X, T, Guided(y, 2.0)),
    "distilled": lambda y: guidance.distilled(network)(X, T, Guided(y, 2.0)),
    "interpolated": lambda y: between(X, T, Between(y, 2, 0.5)),
    "interpolated, guided": lambda y: guidance.interpolated(guided)(
        X, T, Between(Guided(y, 2.0), Guided(2, 1.5), 0.25)
    ),
    "log_likelihood": lambda y: log_likelihood(velocity, X, y, EULER).log_p,
    "fit_source": lambda y: (
        fit_source(velocity, X, lambda x1: jnp.sum(x1**2, axis=1), y, EULER, iterations=2).x0
    ),
}


# How long the steps are is nothing to the labels, which the solver shares before the first one.
SLOW = {"solve, one step size", "solve, each its own"}


@pytest.mark.day_cases(4)
@pytest.mark.slow
@pytest.mark.parametrize(
    "use", [pytest.param(u, marks=[pytest.mark.nightly] if u in SLOW else []) for u in USES]
)
def test_a_lone_label_is_the_label_of_every_example(use):
    labels = 1, np.array(1), np.ones(1, np.int32), np.full(BATCH, 1), 2
    *lone, expected, other = jax.jit(lambda: [USES[use](y) for y in labels])()
    for found, label in zip(lone, labels, strict=False):
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=repr(label))
    assert np.abs(other - expected).max() > 1e-3


def test_a_lone_vector_has_a_leading_axis_of_one():
    def of_vectors(x, t, labels):
        assert labels.shape == x.shape
        return labels * x

    vector = np.array([[1.0, -2.0]], np.float32)
    whole = solve(of_vectors, X, np.repeat(vector, BATCH, axis=0), EULER).x1
    np.testing.assert_allclose(solve(of_vectors, X, vector, EULER).x1, whole, rtol=1e-6)
