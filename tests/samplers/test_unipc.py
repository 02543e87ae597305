"""UniPC against the paper's equations in numpy: Zhao et al., arXiv:2302.04867, p = 2."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.predictions import convert
from fmjax.samplers import solve, solver_spec
from fmjax.schedules import Cosine, Linear, LinearVP

X0 = np.random.default_rng(0).normal(size=(5, 3))
MATRIX = np.random.default_rng(1).normal(size=(3, 3)) / np.sqrt(3)
TIMES = np.array([0.02, 0.07, 0.2, 0.31, 0.5, 0.66, 0.8, 0.93])


def data(x, t, module):
    """A prediction of x1: nonlinear, and another one at every time."""
    return module.tanh(x @ MATRIX) * module.cos(3 * t) + 0.3 * t


def unipc_2(x, times, schedule):
    """Algorithm 1 with the data prediction and B(h) = expm1(h), in the notation of the paper.

    The weights of the corrector solve R rho = b where three predictions are known; where two are,
    the paper sets rho = 1/2.
    """
    alphas, sigmas = (np.asarray(f(jnp.asarray(times))) for f in (schedule.alpha, schedule.sigma))
    lambdas = np.log(alphas) - np.log(sigmas)
    known = [data(x, times[0], np)]
    for i in range(1, len(times)):
        h = lambdas[i] - lambdas[i - 1]
        base = sigmas[i] / sigmas[i - 1] * x - alphas[i] * np.expm1(-h) * known[-1]
        scale = -alphas[i] * np.expm1(-h)
        ratio = difference = None
        if i > 1:
            ratio = (lambdas[i - 2] - lambdas[i - 1]) / h
            difference = (known[-2] - known[-1]) / ratio
        predicted = base if i == 1 else base + scale * 0.5 * difference
        if i == len(times) - 1:
            return predicted  # the last state is not evaluated, so nothing can correct it
        newest = data(predicted, times[i], np)
        if i == 1:
            x = base + scale * 0.5 * (newest - known[-1])
        else:
            phi_1 = np.expm1(-h) / -h - 1
            phi_2 = phi_1 / -h - 0.5
            b = np.array([phi_1, 2 * phi_2]) / np.expm1(-h)
            rho = np.linalg.solve(np.array([[1.0, 1.0], [ratio, 1.0]]), b)
            x = base + scale * (rho[0] * difference + rho[1] * (newest - known[-1]))
        known.append(newest)
    raise AssertionError("no times")


def ours(solver, times, schedule):
    def velocity(x, t, labels):
        predicted = data(x, t[:, None], jnp)
        return convert(predicted, x, t, schedule, source="x1", target="velocity")

    spec = solver_spec(solver, grid=times, schedule=schedule)
    t0, t1 = float(times[0]), float(times[-1])
    with jax.enable_x64(True):
        return np.asarray(jax.jit(lambda x: solve(velocity, x, None, spec, t0=t0, t1=t1).x1)(X0))


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("schedule", [Linear(), Cosine(), LinearVP()])
@pytest.mark.parametrize("count", [3, 8])
def test_unipc_is_that_of_the_paper(schedule, count):
    with jax.enable_x64(True):
        expected = unipc_2(X0, TIMES[:count], schedule)
    np.testing.assert_allclose(ours("unipc", TIMES[:count], schedule), expected, atol=1e-12)


@pytest.mark.slow
def test_the_two_rules_differ():
    for count in (3, 8):
        a, b = (ours(name, TIMES[:count], Linear()) for name in ("unipc", "unipc_interpolated"))
        assert np.abs(a - b).max() > 1e-6


@pytest.mark.slow
def test_from_t_0_the_first_correction_takes_half_or_all_of_the_new_prediction():
    # From pure noise, with D = D(t) alone: the state after two steps in closed form.
    def velocity(x, t, labels):
        predicted = jnp.broadcast_to(t[:, None], x.shape)
        return convert(predicted, x, t, Linear(), source="x1", target="velocity")

    t1, t2 = 0.3, 0.6
    for name, share in (("unipc", 0.5), ("unipc_interpolated", 1.0)):
        spec = solver_spec(name, grid=[0.0, t1, t2])
        with jax.enable_x64(True):
            found = solve(velocity, X0, None, spec, t1=t2).x1
        keep = (1 - t2) / (1 - t1)
        first = (1 - t1) * X0 + t1 * (share * t1)  # D is 0 at t = 0
        np.testing.assert_allclose(found, keep * first + (t2 - t1 * keep) * t1, atol=1e-12)
