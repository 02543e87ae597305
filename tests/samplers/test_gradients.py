import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.samplers import solve, solver_spec

RNG = np.random.default_rng(0)
WEIGHTS, X0 = (RNG.normal(size=(n, 16)).astype("float32") for n in (16, 64))
WEIGHTS /= 4


def endpoint(weights, x0, spec):
    def velocity(x, t, labels):
        return jnp.tanh(x @ weights) * jnp.cos(t)[:, None]

    return solve(velocity, x0, spec=spec).x1


def total(weights, x0, spec):
    return jnp.sum(jnp.sin(endpoint(weights, x0, spec)))


HOW = [
    ("heun", {"steps": 24}),
    ("ab3", {"steps": 24}),
    ("unipc", {"steps": 24}),
    ("bosh3", {"rtol": 1e-6, "atol": 1e-6, "control": "batch"}),
    ("bosh3", {"rtol": 1e-6, "atol": 1e-6, "control": "sample"}),
]


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize(("solver", "how"), HOW)
def test_the_gradient_is_that_of_finite_differences_with_few_checkpoints(solver, how):
    spec, h = solver_spec(solver, **how, checkpoints=3), 1e-4
    at = [WEIGHTS.astype("float64"), X0[:3].astype("float64")]
    way = [np.random.default_rng(1).normal(size=a.shape) for a in at]
    with jax.enable_x64(True):
        # One program for the gradient and the differences.
        run = jax.jit(jax.value_and_grad(lambda args: total(*args, spec)))
        (_, gradient), (ahead, _), (behind, _) = (
            jax.tree.map(np.asarray, run([a + step * b for a, b in zip(at, way, strict=True)]))
            for step in (0.0, h, -h)
        )
    along = sum(np.sum(g * b) for g, b in zip(gradient, way, strict=True))
    np.testing.assert_allclose(along, (ahead - behind) / (2 * h), rtol=1e-6)


@pytest.mark.slow
def test_the_memory_of_the_gradient_does_not_grow_with_the_steps():
    def memory(steps):
        spec = solver_spec("heun", steps, checkpoints=8)
        compiled = jax.jit(jax.grad(lambda w, x: total(w, x, spec))).lower(WEIGHTS, X0).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = memory(10), memory(1000)
    flags = 1000 * len(X0)  # one bool for each step and example says where a state was not finite
    assert many < 1.1 * few + 2 * flags
    assert 10 * many < 1000 * X0.nbytes  # what all the states would take


@pytest.mark.slow
def test_the_direct_gradient_allows_forward_mode():
    spec = solver_spec("heun", 5, gradient="direct")
    x0 = X0[:3]
    tangent, v = np.ones_like(x0), RNG.normal(size=x0.shape).astype("float32")

    @jax.jit
    def both(x, tangent, v):
        def end(x):
            return endpoint(WEIGHTS, x, spec)

        return jax.jvp(end, (x,), (tangent,))[1], jax.vjp(end, x)[1](v)[0]

    forward, back = both(x0, tangent, v)
    np.testing.assert_allclose(np.vdot(forward, v), np.vdot(tangent, back), rtol=1e-4)
