"""Steps of outlying gradients: left out, counted, and never for ever."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax.errors import InputError
from fmjax.training.optimizer import make_optimizer
from fmjax.training.outliers import skip_outliers
from fmjax.training.state import init_state
from fmjax.training.step import make_step


def run(norms, factor=5.0):
    """Which steps are left out, and the parameters after each, under plain gradient descent."""
    optimizer = skip_outliers(optax.sgd(1.0, momentum=0.5), factor)
    params = {"w": jnp.zeros(4)}
    state = optimizer.init(params)
    direction = {"w": jnp.array([1.0, 0.0, 0.0, 0.0])}

    def one(carry, norm):
        params, state = carry
        grads = jax.tree.map(lambda d: jnp.where(d == 0, 0.0, d * norm), direction)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (state.skipped, params["w"][0], state.norm)

    _, (skipped, w, norm) = jax.lax.scan(one, (params, state), jnp.asarray(norms, jnp.float32))
    return np.flatnonzero(skipped), np.asarray(w), np.asarray(norm)


def test_an_outlier_leaves_parameters_and_moments_as_they_were():
    usual = [1.0] * 40
    with_spike = [*usual[:30], 100.0, *usual[30:]]
    skipped, w, norm = run(with_spike)
    assert skipped.tolist() == [30]
    assert w[30] == w[29]
    np.testing.assert_allclose(np.delete(w, 30), run(usual)[1], rtol=1e-6)
    assert norm[30] == pytest.approx(1.0 * 0.99 + 5.0 * 0.01, rel=0.1)  # counted as the bound


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_is_left_out_even_at_the_start(value):
    skipped, w, norm = run([1.0, value, 1.0])
    assert skipped.tolist() == [1]
    assert np.isfinite(w).all()
    assert np.isfinite(norm).all()


def test_a_lasting_change_is_followed():
    skipped, _, _ = run([1.0] * 50 + [30.0] * 200)
    assert 50 in skipped
    assert len(skipped) < 60
    assert skipped.max() < 120


def test_the_first_steps_are_taken_whatever_their_norm():
    assert run([1.0, 50.0, 1.0])[0].size == 0


def test_the_step_tells_what_it_left_out():
    optimizer = make_optimizer(1e-3, skip_above=4.0)
    step = jax.jit(make_step(lambda p, x: jnp.sum(p["w"] * x), lambda k, b: (b["x1"],), optimizer))
    state, told = init_state({"w": jnp.ones(3)}, optimizer), []
    for k in range(25):
        x1 = jnp.full(3, 1000.0 if k == 22 else 1.0)
        state, metrics = step(state, jax.random.key(0), {"x1": x1})
        told.append(float(metrics["skipped"]))
    assert np.flatnonzero(told).tolist() == [22]


def test_a_factor_that_leaves_everything_out_is_refused():
    with pytest.raises(InputError, match=r"must lie in \(1, inf\); .* every step write 0"):
        make_optimizer(1e-3, skip_above=0.5)


def test_the_bound_itself_is_no_outlier():
    usual = [1.0] * 25
    assert run([*usual, 2.0], factor=2.0)[0].size == 0
    assert run([*usual, np.nextafter(np.float32(2), np.float32(3))], factor=2.0)[0].tolist() == [25]
