import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.samplers.ode import solve, solver_spec

WEIGHTS = jax.random.normal(jax.random.key(0), (16, 16)) / 4
X0 = jax.random.normal(jax.random.key(1), (64, 16))


def endpoint(weights, x0, spec):
    def velocity(x, t, labels):
        return jnp.tanh(x @ weights) * jnp.cos(t)[:, None]

    return solve(velocity, x0, spec=spec).x1


def total(weights, x0, spec):
    return jnp.sum(jnp.sin(endpoint(weights, x0, spec)))


HOW = {
    "heun": {"steps": 24},
    "ab3": {"steps": 24},
    "unipc": {"steps": 24},
    "tsit5": {"rtol": 1e-8, "atol": 1e-8, "control": "batch"},
    "dopri5": {"rtol": 1e-8, "atol": 1e-8},
}


@pytest.mark.slow
@pytest.mark.parametrize("solver", sorted(HOW))
def test_the_gradient_is_that_of_finite_differences(solver):
    with jax.enable_x64(True):
        spec = solver_spec(solver, **HOW[solver], checkpoints=3)
        weights, x0 = jnp.asarray(WEIGHTS, jnp.float64), jnp.asarray(X0[:3], jnp.float64)
        f = jax.jit(lambda weights, x0: total(weights, x0, spec))
        d_weights, d_x0 = jax.jit(jax.grad(f, argnums=(0, 1)))(weights, x0)
        a, b = (jax.random.normal(jax.random.key(k), y.shape) for k, y in ((2, weights), (3, x0)))
        h = 1e-4
        change = (f(weights + h * a, x0 + h * b) - f(weights - h * a, x0 - h * b)) / (2 * h)
        np.testing.assert_allclose(jnp.sum(d_weights * a) + jnp.sum(d_x0 * b), change, rtol=1e-6)


@pytest.mark.slow
def test_checkpoints_change_the_memory_and_not_the_gradient():
    grads = [
        jax.jit(jax.grad(lambda w, k=k: total(w, X0, solver_spec("heun", 20, checkpoints=k))))(
            WEIGHTS
        )
        for k in (2, 20)
    ]
    np.testing.assert_allclose(*grads, rtol=1e-5, atol=1e-5)


def compiled_memory(spec):
    lowered = jax.jit(jax.grad(total), static_argnums=2).lower(WEIGHTS, X0, spec)
    return lowered.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_the_memory_of_the_gradient_does_not_grow_with_the_steps():
    few, many, all_kept = (
        compiled_memory(solver_spec("heun", steps, **how))
        for steps, how in (
            (10, {"checkpoints": 8}),
            (1000, {"checkpoints": 8}),
            (1000, {"checkpoints": 1000}),
        )
    )
    flags = 1000 * len(X0)  # one bool for each step and example says where a state was not finite
    assert many < 1.1 * few + 2 * flags
    assert all_kept > 10 * few  # what it would be


@pytest.mark.slow
def test_the_direct_gradient_allows_forward_mode():
    spec = solver_spec("heun", 5, gradient="direct")
    tangent = jnp.ones_like(X0[:3])
    _, forward = jax.jvp(lambda x: endpoint(WEIGHTS, x, spec), (X0[:3],), (tangent,))
    _, pullback = jax.vjp(lambda x: endpoint(WEIGHTS, x, spec), X0[:3])
    v = jax.random.normal(jax.random.key(4), forward.shape)
    np.testing.assert_allclose(jnp.vdot(forward, v), jnp.vdot(tangent, pullback(v)[0]), rtol=1e-4)
