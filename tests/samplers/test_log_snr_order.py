"""What the solvers in the signal-to-noise ratio lose at t = 1, where lambda is infinite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.predictions import convert
from fmjax.samplers import solve, solver_spec
from fmjax.schedules import Linear, LinearVP
from fmjax.testing import GaussianFlow, convergence_order

X0 = np.random.default_rng(0).normal(size=(64, 2))
SOLVERS = ["dpmpp_2m", "unipc", pytest.param("unipc_interpolated", marks=pytest.mark.slow)]


def flow_on(schedule):
    return GaussianFlow(np.array([1.0, -0.5]), np.array([0.5, 0.3]), schedule)


def solved(solver, schedule, t1, grid, steps):
    spec = solver_spec(solver, steps, grid=grid, schedule=schedule)
    field = flow_on(schedule).velocity
    return jax.jit(lambda x: solve(field, x, None, spec, t1=t1).x1)(X0)


def order(solver, schedule, t1, grid="uniform", steps=(32, 128)):
    with jax.enable_x64(True):
        exact = flow_on(schedule).carry(X0, 0.0, t1)
        return convergence_order(lambda n: solved(solver, schedule, t1, grid, n), exact, steps)


def error(solver, schedule, grid, steps):
    with jax.enable_x64(True):
        difference = solved(solver, schedule, 1.0, grid, steps) - flow_on(schedule).carry(X0)
        return float(jnp.sqrt(jnp.mean(difference**2)))


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("schedule", [Linear(), LinearVP()])
@pytest.mark.parametrize("solver", SOLVERS)
def test_before_t_1_the_order_is_at_least_2(solver, schedule):
    assert order(solver, schedule, 0.9) > 1.9


@pytest.mark.nightly
def test_on_the_straight_path_dpmpp_2m_comes_near_order_2_slowly_and_unipc_quickly():
    few = order("dpmpp_2m", Linear(), 1.0, steps=(32, 128))
    many = order("dpmpp_2m", Linear(), 1.0, steps=(256, 1024))
    assert 1.3 < few < 1.6
    assert 1.7 < many < 1.9
    assert order("unipc", Linear(), 1.0) > 1.8


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_on_linear_vp_equal_steps_have_order_1_and_other_grids_a_tenth_of_the_error(solver):
    assert 0.8 < order(solver, LinearVP(), 1.0) < 1.05
    uniform = error(solver, LinearVP(), "uniform", 32)
    for grid in ("cosine", "exponential"):
        assert error(solver, LinearVP(), grid, 32) < uniform / 10


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [Linear(), LinearVP()])
def test_the_last_step_alone_errs_by_the_squared_noise_to_signal_ratio(schedule):
    flow = flow_on(schedule)
    with jax.enable_x64(True):
        for t in (0.999, 0.9999):
            at = jnp.full(len(X0), t)
            x = flow.carry(X0, 0.0, t)
            data = convert(flow.velocity(x, at), x, at, schedule, source="velocity", target="x1")
            ratio = float(schedule.sigma(at[0]) / schedule.alpha(at[0]))
            # (sigma / alpha)^2 / 2 times x0 / spread, for a Gaussian.
            expected = -0.5 * ratio**2 * X0 / np.asarray(flow.spread)
            np.testing.assert_allclose(data - flow.carry(X0), expected, rtol=0.05)
