import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.guidance import Guided, Rescale, autoguidance

X = jax.random.normal(jax.random.key(0), (4, 3))
T = jnp.linspace(0, 1, 4)
LABELS = jnp.array([0, 1, 2, 0])
W = jnp.array([0.0, 1.0, 2.5, -1.0])


def strong(x, t, labels):
    shift = jnp.zeros(len(x)) if labels is None else 0.3 * labels
    return jnp.sin(x) + (t + shift)[:, None]


def weak(x, t, labels):
    return 0.8 * strong(x, t, labels) + 0.1


@pytest.mark.parametrize("labels", [None, LABELS])
def test_it_leads_away_from_the_weaker_network(labels):
    guided = autoguidance(strong, weak)
    w = W[:, None]
    expected = (1 - w) * weak(X, T, labels) + w * strong(X, T, labels)
    u = guided(X, T, Guided(labels, W))
    np.testing.assert_allclose(u, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(u[0], weak(X, T, labels)[0])
    np.testing.assert_array_equal(u[1], strong(X, T, labels)[1])


def test_rule_and_schedule_are_those_of_classifier_free_guidance():
    u = autoguidance(strong, weak, rule=Rescale(1.0), schedule="linear")(X, T, Guided(LABELS, W))
    w = 1 + (W - 1) * 2 * T
    expected = Rescale(1.0)(weak(X, T, LABELS), strong(X, T, LABELS), w, X, T)
    np.testing.assert_allclose(u, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (LABELS, r"autoguidance takes Guided\(labels, w\)"),
        (None, r"autoguidance takes Guided\(labels, w\); got NoneType"),
        (Guided(LABELS, 2.0, LABELS), "autoguidance has no null branch"),
        (Guided(LABELS, jnp.ones(3)), r"one per example, \(4,\); got shape \(3,\)"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(conditions, message):
    with pytest.raises(InputError, match=message):
        autoguidance(strong, weak)(X, T, conditions)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(InputError, match="unknown guidance schedule 'quadratic'"):
        autoguidance(strong, weak, schedule="quadratic")
