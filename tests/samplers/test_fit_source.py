import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax.errors import InputError
from fmjax.samplers import solver_spec
from fmjax.samplers.fit_source import fit_source

MEAN, STD = np.array([1.0, -2.0, 0.5], np.float32), 0.7
X0 = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


def gaussian(x, t, labels):
    """The flow from N(0, I) to N(MEAN, STD^2) on the straight path: x0 goes to MEAN + STD x0."""
    t = t[:, None]
    ratio = (t * STD**2 - (1 - t)) / ((t * STD) ** 2 + (1 - t) ** 2)
    return MEAN[None] + ratio * (x - t * MEAN[None])


@pytest.mark.slow
def test_known_numbers_are_met_and_unknown_ones_stay():
    known, y = np.array([1.0, 0.0, 1.0]), np.array([0.3, 9.0, 1.1])
    seen = np.array([0, 2])

    def cost(x1):
        return jnp.sum(known[None] * (x1 - y[None]) ** 2, axis=1)

    how = {"iterations": 150, "optimizer": optax.adam(0.1)}
    run = jax.jit(lambda x: fit_source(gaussian, x, cost, spec=solver_spec("heun", 24), **how))
    found = jax.tree.map(np.asarray, run(X0))
    assert found.costs.shape == (150, 4)
    np.testing.assert_allclose(found.x1[:, seen], np.tile(y[seen], (4, 1)), atol=0.02)
    exact = (y - MEAN) / STD
    np.testing.assert_allclose(found.x0[:, seen], np.tile(exact[seen], (4, 1)), atol=0.05)
    # The cost says nothing of the second number, and the flow of this Gaussian does not mix them.
    np.testing.assert_allclose(found.x0[:, 1], X0[:, 1], atol=1e-5)


@pytest.mark.slow
def test_the_prior_draws_the_length_to_that_of_noise():
    how = {"iterations": 600, "prior": 1.0}
    found = jax.jit(lambda x: fit_source(gaussian, x, lambda x1: 0 * x1[:, 0], **how))(5 * X0)
    # |x|^2 / 2 - (d - 1) log |x| is least at |x|^2 = d - 1.
    np.testing.assert_allclose(np.linalg.norm(found.x0, axis=1), np.sqrt(2), atol=0.02)


@pytest.mark.slow
def test_a_step_follows_the_prior_s_gradient():
    how = {"iterations": 1, "prior": 0.7, "optimizer": optax.sgd(0.1)}
    how["spec"] = solver_spec("euler", 1)
    found = fit_source(lambda x, t, y: 0 * x, X0, lambda x1: 0 * x1[:, 0], **how).x0
    square = np.sum(X0**2, axis=1, keepdims=True)
    np.testing.assert_allclose(found, X0 - 0.07 * (1 - 2 / square) * X0, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": 0}, "iterations"),
        ({"prior": -1.0}, "prior"),
        ({"cost": lambda x1: jnp.sum(x1**2)}, "one float per example"),
        ({"cost": lambda x1: x1**2}, "over the other axes"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    arguments = {"cost": lambda x1: jnp.sum(x1**2, axis=1)} | change
    with pytest.raises(InputError, match=message):
        fit_source(gaussian, X0, **arguments)


@pytest.mark.slow
def test_the_default_optimizer_lowers_the_cost():
    found = fit_source(gaussian, X0, lambda x1: jnp.sum(x1**2, axis=1), iterations=10)
    assert np.all(found.costs[-1] < found.costs[0])
