import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.guidance import Guided, classifier_free
from fmjax.samplers import (
    SOLVERS,
    SolveError,
    check_solution,
    invert,
    sde_spec,
    solve,
    solver_spec,
)
from fmjax.testing import GaussianFlow

ORDERS = {
    "ab2": 2,
    "ab3": 3,
    "bosh3": 3,
    "dopri5": 5,
    "dopri8": 8,
    "dpmpp_2m": 2,
    "euler": 1,
    "geodesic_euler": 1,
    "geodesic_heun": 2,
    "heun": 2,
    "midpoint": 2,
    "ralston": 2,
    "rk4": 4,
    "tsit5": 5,
    "unipc": 2,
    "unipc_interpolated": 2,
}


def logistic(x, t, labels):
    """x' = x (1 - x) cos(3 t): nonlinear, time-dependent, with a closed form."""
    return x * (1 - x) * jnp.cos(3 * t)[:, None]


def logistic_solution(x0, t0=0.0, t1=1.0):
    odds = x0 / (1 - x0) * np.exp((np.sin(3 * t1) - np.sin(3 * t0)) / 3)
    return odds / (1 + odds)


X0 = np.array([[0.1, 0.5], [0.3, 0.8], [0.05, 0.6]], np.float32)
RATES = np.array([1.0, 30.0, 100.0], np.float32)
SLOW = pytest.mark.slow


def test_every_solver_is_in_the_table_of_orders():
    assert {name: method.order for name, method in SOLVERS.items()} == ORDERS


QUICK = {"heun", "unipc"}  # one of diffrax and one of ours
FLAT = sorted(name for name, method in SOLVERS.items() if not method.geodesic)
EVERY = [pytest.param(s, marks=() if s in QUICK else pytest.mark.slow) for s in FLAT]


def counted(field):
    calls = []

    def wrapped(x, t, labels):
        zero = jax.pure_callback(
            lambda _, t: calls.append(float(t)) or np.zeros((), np.float32),
            jax.ShapeDtypeStruct((), jnp.float32),
            x.ravel()[0],  # so that calls come in the order of the steps
            t[0],
        )
        return field(x, t, labels) + zero

    return wrapped, calls


STEPS = {1: 64, 2: 32, 3: 32, 4: 16, 5: 4, 8: 2}  # by the order


@functools.cache
def coarse_and_fine(solver):
    """A solve from 0 to 1, the times of its calls, and where twice as many steps end.

    For a method of one step these are the same program on each half of the way, for a field that
    is told its half; one of several steps would begin anew in the middle.
    """

    def part(x, t, labels):
        start, length = labels
        return length[:, None] * logistic(x, start + length * t, None)

    field, calls = counted(part)
    steps = STEPS[ORDERS[solver]]
    run, doubled = (
        jax.jit(lambda x, *half, n=n: solve(field, x, half, solver_spec(solver, n)))
        for n in (steps, 2 * steps)
    )
    with jax.enable_x64(True):
        x0 = X0.astype("float64")
        coarse = jax.tree.map(np.asarray, run(x0, 0.0, 1.0))
        times = list(calls)
        if SOLVERS[solver].min_steps == 1:
            fine = run(run(x0, 0.0, 0.5).x1, 0.5, 0.5).x1
        else:
            fine = doubled(x0, 0.0, 1.0).x1
        return coarse, times, np.asarray(fine)


@pytest.mark.day_cases(4)
@pytest.mark.slow
@pytest.mark.parametrize("solver", EVERY)
def test_the_measured_order_is_the_declared_one(solver):
    solution, _, fine = coarse_and_fine(solver)
    expected = logistic_solution(X0.astype("float64"))
    coarse, fine = (np.abs(x1 - expected).max() for x1 in (solution.x1, fine))
    # Half a unit is the honest tolerance: at these steps the next order still shows.
    assert np.log2(coarse / fine) > ORDERS[solver] - 0.5
    assert coarse < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("solver", EVERY)
def test_the_evaluations_reported_are_the_calls_made(solver):
    solution, calls, _ = coarse_and_fine(solver)
    steps = STEPS[ORDERS[solver]]
    assert solution.nfe.tolist() == [len(calls)] * 3
    assert solution.accepted.tolist() == [steps] * 3
    np.testing.assert_allclose(calls, solver_spec(solver, steps).evaluation_times(), atol=1e-9)


# With the last evaluation of a step as the first of the next one, and without.
@pytest.mark.slow
@pytest.mark.parametrize("solver", ["dopri5", "dopri8", "heun"])
def test_the_evaluations_reported_are_the_calls_made_by_an_adaptive_solve(solver):
    field, calls = counted(logistic)
    spec = solver_spec(solver, rtol=1e-4, control="batch")
    solution = jax.jit(lambda x: solve(field, x, spec=spec))(X0[:1, :1])
    assert jax.block_until_ready(solution).nfe.tolist() == [len(calls)]


@pytest.mark.slow
@pytest.mark.parametrize("control", ["batch", "sample"])
def test_adaptive_solves_meet_their_tolerance(control):
    spec = solver_spec("dopri5", rtol=1.0, atol=1.0, control=control)

    @jax.jit
    def run(x, tolerance):  # traced, so that one program serves both
        return solve(logistic, x, None, spec._replace(rtol=tolerance, atol=tolerance))

    solutions = [run(X0, tolerance) for tolerance in (1e-3, 1e-5)]
    for solution, rtol in zip(solutions, (1e-3, 1e-5), strict=True):
        assert np.all(solution.success)
        np.testing.assert_allclose(solution.x1, logistic_solution(X0), atol=20 * rtol)
    assert np.all(solutions[0].nfe < solutions[1].nfe)


def stiff(x, t, labels):
    return -labels["rate"][:, None] * (x - jnp.cos(t)[:, None])


@pytest.mark.slow
def test_sample_control_gives_each_example_the_result_it_has_alone():
    # In float64: a rounding error may tip the choice of a step, and the result with it.
    with jax.enable_x64(True):
        x0, rate = X0.astype("float64"), RATES.astype("float64")
        one = jax.jit(lambda x, r: solve(stiff, x, {"rate": r}, solver_spec("tsit5", rtol=1e-4)))
        together = one(x0, rate)
        for i in range(3):
            alone = one(x0[[i, i, i]], rate[[i, i, i]])  # among copies, in the same program
            np.testing.assert_allclose(together.x1[i], alone.x1[0], rtol=1e-10)
            assert together.nfe[i] == alone.nfe[0]
    assert together.nfe[0] < together.nfe[2]


def test_batch_control_takes_one_step_size_for_all():
    spec = solver_spec("tsit5", rtol=1e-4, control="batch")
    nfe = jax.jit(lambda x, rate: solve(stiff, x, {"rate": rate}, spec).nfe)(X0, RATES)
    assert nfe.shape == (3,)
    assert len(set(nfe.tolist())) == 1


@pytest.mark.slow
def test_backwards_undoes_forwards():
    @jax.jit
    def there_and_back(x):
        spec = solver_spec("dopri5", 50)
        there = solve(logistic, x, spec=spec, t0=0.2, t1=0.7).x1
        return there, solve(logistic, there, spec=spec, t0=0.7, t1=0.2).x1

    there, back = there_and_back(X0)
    np.testing.assert_allclose(there, logistic_solution(X0, 0.2, 0.7), atol=1e-5)
    np.testing.assert_allclose(back, X0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["ab2", "ab3"])
def test_earlier_evaluations_serve_backwards_too(solver):
    errors = [
        np.abs(
            solve(logistic, X0, None, solver_spec(solver, n), t0=1.0, t1=0.0).x1
            - logistic_solution(X0, 1.0, 0.0)
        ).max()
        for n in (10, 20)
    ]
    assert np.log2(errors[0] / errors[1]) > ORDERS[solver] - 0.4


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc"])
def test_a_solver_in_the_signal_to_noise_ratio_runs_backwards_but_not_from_where_it_is_infinite(
    solver,
):
    flow, spec = GaussianFlow(jnp.asarray([0.5]), jnp.asarray([0.7])), solver_spec(solver, 40)
    x = jnp.ones((3, 1))
    back = solve(flow.velocity, x, None, spec, t0=0.9, t1=0.1).x1
    exact = solve(flow.velocity, x, None, solver_spec("rk4", 100), t0=0.9, t1=0.1).x1
    np.testing.assert_allclose(back, exact, atol=2e-3)
    with pytest.raises(InputError, match=f"{solver} cannot start at t0 = 1"):
        invert(flow.velocity, x, None, spec)


@pytest.mark.slow
def test_one_euler_step_is_x_plus_velocity_and_passes_the_check():
    # Outside jit, where the other tests are inside.
    solution = solve(logistic, X0, spec=solver_spec("euler", 1))
    np.testing.assert_allclose(solution.x1, X0 + X0 * (1 - X0), rtol=1e-6)
    assert check_solution(solution) is solution


@pytest.mark.slow
def test_a_gaussian_flows_into_a_gaussian():
    # The exact map of the flow from N(0, 1) to N(m, s^2) on the straight path is x -> m + s x.
    m, s = 2.0, 0.5

    def velocity(x, t, labels):
        t = t[:, None]
        return m + (t * s**2 - (1 - t)) / ((t * s) ** 2 + (1 - t) ** 2) * (x - t * m)

    x0 = np.linspace(-2, 2, 9, dtype="f4")[:, None]
    x1 = jax.jit(lambda x: solve(velocity, x, spec=solver_spec("dopri5", 40)).x1)(x0)
    np.testing.assert_allclose(x1, m + s * x0, atol=2e-4)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("control", ["fixed", "batch", "sample"])
def test_guidance_goes_through_every_control_with_one_scale_or_many(control):
    def velocity(x, t, labels):
        return jnp.where(labels == 2, -1.0, labels.astype(x.dtype))[:, None] * jnp.ones_like(x)

    guided = classifier_free(velocity, 2)
    spec = solver_spec("heun", 4 if control == "fixed" else None, control)
    labels, w = np.array([0, 1, 1]), np.array([1.0, 2.0, 0.0], np.float32)

    @jax.jit
    def both(x, w):
        return [solve(guided, x, Guided(labels, scale), spec).x1 for scale in (w, 2.0)]

    x1, one = both(X0, w)
    # u = -(1 - w) + w label, constant in time.
    np.testing.assert_allclose(x1, X0 + np.array([[0.0], [3.0], [-1.0]]), atol=1e-5)
    np.testing.assert_allclose(one, X0 + np.array([[1.0], [3.0], [3.0]]), atol=1e-5)


def test_another_label_or_key_compiles_nothing(count_compilations):
    f = jax.jit(lambda x, rate: solve(stiff, x, {"rate": rate}, solver_spec("heun", 5)).x1)
    f(X0, RATES).block_until_ready()
    with count_compilations() as compiled:
        f(X0 + np.float32(0.5), 2 * RATES).block_until_ready()
    assert compiled.count == 0, compiled.names


@pytest.mark.parametrize("times", [(0.0, 0.0), (0.0, float("nan"))])
def test_times_that_are_no_interval_are_refused(times):
    with pytest.raises(InputError, match="two different"):
        solve(logistic, X0, t0=times[0], t1=times[1])


@pytest.mark.parametrize(
    ("t0", "t1"),
    [(0.2, 0.9), pytest.param(0.0, 1.0, marks=SLOW), pytest.param(1.0, 0.0, marks=SLOW)],
)
def test_a_shifted_grid_takes_its_steps_where_the_shifted_time_distribution_draws(t0, t1):
    # Euler on v(x, t) = t adds h_k t_k, which tells where the steps were.
    steps, shift = 7, 3.0
    spec = solver_spec("euler", steps=steps, shift=shift)

    def times(x, t, _):
        return jnp.broadcast_to(t[:, None], x.shape)

    x1 = jax.jit(lambda x: solve(times, x, None, spec, t0=t0, t1=t1).x1)(np.zeros((1, 1), "f4"))
    # SD3 (arXiv:2403.03206, eq. (23)) in its own time, tau = 1 - t, noise at 1.
    unshift, move = (lambda tau, s=s: s * tau / (1 + (s - 1) * tau) for s in (1 / shift, shift))
    grid = 1 - move(np.linspace(unshift(1 - t0), unshift(1 - t1), steps + 1))
    np.testing.assert_allclose(grid[[0, -1]], [t0, t1], atol=1e-12)
    np.testing.assert_allclose(x1[0, 0], np.sum(np.diff(grid) * grid[:-1]), atol=1e-6)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "control", ["fixed", pytest.param("batch", marks=SLOW), pytest.param("sample", marks=SLOW)]
)
def test_the_trajectory_has_the_states_of_shorter_solves(control):
    how = {"steps": 20} if control == "fixed" else {"rtol": 1e-7, "atol": 1e-7}
    times = [0.0, 0.25, 0.6, 1.0]  # of 20 equal steps these are nodes
    spec = solver_spec("tsit5", control=control, **how)
    with jax.enable_x64(True):
        x0 = X0.astype("float64")
        solution = jax.jit(lambda x: solve(logistic, x, spec=spec, save_at=times))(x0)
        expected = [logistic_solution(x0, 0.0, t) for t in times]
        np.testing.assert_allclose(solution.trajectory, np.stack(expected), atol=1e-6)
        np.testing.assert_allclose(solution.trajectory[-1], solution.x1, rtol=1e-12)


@pytest.mark.slow
def test_an_adaptive_solve_that_keeps_states_on_the_way_says_where_it_ended():
    spec = solver_spec("heun", rtol=1e-2, control="batch")
    solution = jax.jit(lambda x: solve(logistic, x, spec=spec, save_at=[0.25, 0.5]))(X0)
    np.testing.assert_array_equal(solution.t_end, 1)
    assert solution.success.all()


def test_labels_of_another_number_are_refused():
    with pytest.raises(InputError, match="labels"):
        solve(logistic, X0, RATES[:2])


@pytest.mark.slow
def test_every_node_of_a_fixed_solve_can_be_kept_forwards_and_backwards():
    spec, ways = solver_spec("euler", 5, grid="cosine"), [(0.0, 1.0), (1.0, 0.25)]
    every = [spec.nodes(*way) for way in ways]

    @jax.jit
    def kept(x):
        return [
            solve(logistic, x, spec=spec, t0=t0, t1=t1, save_at=times).trajectory
            for (t0, t1), times in zip(ways, every, strict=True)
        ]

    for times, xs in zip(every, map(np.asarray, kept(X0)), strict=True):
        u = xs * (1 - xs) * np.cos(3 * times)[:, None, None]
        steps = np.diff(times)[:, None, None]
        np.testing.assert_allclose(xs[1:], xs[:-1] + steps * u[:-1], atol=1e-6)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("control", ["fixed", "batch", "sample"])
def test_a_pytree_flows_as_its_leaves_do(control):
    def velocity(x, t, labels):
        return {"a": logistic(x["a"], t, None), "b": x["b"] * labels[:, None, None]}

    how = {"steps": 20} if control == "fixed" else {"rtol": 1e-6, "atol": 1e-6}
    x0 = {"a": X0, "b": np.ones((3, 2, 2), np.float32)}
    rate = np.array([0.0, 0.5, 1.0], np.float32)
    spec = solver_spec("tsit5", control=control, **how)
    solution = jax.jit(lambda x, r: solve(velocity, x, r, spec, save_at=[0.5, 1.0]))(x0, rate)
    np.testing.assert_allclose(solution.x1["a"], logistic_solution(X0), atol=2e-5)
    grown = np.broadcast_to(np.exp(rate)[:, None, None], (3, 2, 2))
    np.testing.assert_allclose(solution.x1["b"], grown, rtol=1e-5)
    assert solution.trajectory["b"].shape == (2, 3, 2, 2)
    np.testing.assert_allclose(solution.trajectory["b"][0], np.sqrt(grown), rtol=1e-4)


@pytest.mark.slow
def test_an_inversion_comes_back_to_within_the_tolerance():
    spec = solver_spec("dopri5", rtol=1.0, atol=1.0)

    @jax.jit
    def there_and_back(x1, tolerance):
        asked = spec._replace(rtol=tolerance, atol=tolerance)
        x0 = invert(logistic, x1, spec=asked).x1
        return x0, solve(logistic, x0, spec=asked).x1

    with jax.enable_x64(True):
        for rtol in (1e-4, 1e-6):
            x0, again = there_and_back(X0.astype("float64"), rtol)
            assert np.abs(x0 - X0).max() > 0.01  # it went somewhere
            np.testing.assert_allclose(again, X0, atol=5 * rtol)


@pytest.fixture(scope="module")
def troubled():
    """One adaptive program, example by example: calm, a jump, NaN after a half, too stiff, calm.

    The jump is one that no step size foresees, and 300 steps are too few for the stiff one.
    """

    def velocity(x, t, labels):
        t = t[:, None]
        cases = (-x, jnp.where(t > 0.5, 50.0, 0.0) * jnp.cos(20 * x))
        cases += (jnp.where(t > 0.5, jnp.nan, -x), -1e5 * (x - jnp.cos(t)))
        return jnp.select([labels[:, None] == k for k in range(4)], cases)

    spec = solver_spec("tsit5", rtol=1e-5, atol=1e-5, max_steps=300)
    kinds, x0 = np.array([0, 1, 2, 3, 0]), X0[[0, 0, 1, 1, 2]]
    return jax.tree.map(np.asarray, jax.jit(lambda x, k: solve(velocity, x, k, spec))(x0, kinds))


@pytest.mark.slow
def test_rejected_steps_are_counted_apart(troubled):
    assert troubled.success[1]
    assert troubled.rejected[1] > 0
    np.testing.assert_array_equal(troubled.nfe, 1 + 6 * (troubled.accepted + troubled.rejected))


def test_a_velocity_that_is_not_finite_says_at_which_time(troubled):
    np.testing.assert_array_equal(troubled.success, [True, True, False, False, True])
    assert np.isnan(troubled.x1[2]).all()
    np.testing.assert_allclose(troubled.x1[[0, 4]], X0[[0, 2]] * np.exp(-1), rtol=1e-4)
    np.testing.assert_allclose(troubled.t_end[[0, 2, 4]], [1, 0.5, 1], atol=1e-3)
    assert troubled.accepted[2] + troubled.rejected[2] < 80  # it does not try 300 times
    with pytest.raises(SolveError, match=r"2 of 5 .* number 2, .* stopped at t = 0\.(5|49999)"):
        check_solution(troubled)


@pytest.mark.slow
def test_a_velocity_that_is_not_finite_says_at_which_node_of_a_fixed_solve():
    def velocity(x, t, rate):
        return jnp.where((t[:, None] > 0.5) & (rate[:, None] == 30), jnp.nan, -x)

    solution = jax.jit(lambda x, r: solve(velocity, x, r, solver_spec("heun", 10)))(X0, RATES)
    np.testing.assert_array_equal(solution.success, [True, False, True])
    assert np.isnan(solution.x1[1]).all()
    np.testing.assert_allclose(solution.x1[2], X0[2] * np.exp(-1), rtol=2e-3)
    np.testing.assert_allclose(solution.t_end, [1, 0.5, 1], atol=1e-3)
    assert int(solution.nfe[1]) < 500
    with pytest.raises(SolveError, match=r"1 of 3 .* number 1, .* stopped at t = 0\.(5|49999)"):
        check_solution(solution)


def test_running_out_of_steps_says_how_far_it_came(troubled):
    assert np.isnan(troubled.x1[3]).all()
    assert 0 < troubled.t_end[3] < 0.1
    assert troubled.accepted[3] + troubled.rejected[3] == 300
    stiff_one = jax.tree.map(lambda leaf: leaf[3:4], troubled)
    with pytest.raises(SolveError, match="did not reach t = 1: number 0"):
        check_solution(stiff_one)


@pytest.mark.parametrize("save_at", [[0.5, 0.2], [-0.1, 0.5], [0.2, 0.2], [], [[0.1]], [np.nan]])
def test_times_to_save_that_are_not_on_the_way_are_refused(save_at):
    with pytest.raises(InputError, match="save_at must be times in order"):
        solve(logistic, X0, save_at=save_at)


@pytest.mark.parametrize("x0", [jnp.float32(1.0), {"a": X0, "b": jnp.ones(2)}, jnp.arange(3)])
def test_a_state_without_a_batch_axis_or_of_integers_is_refused(x0):
    with pytest.raises(InputError, match="x0 must"):
        solve(logistic, x0)


def test_the_times_of_an_adaptive_solve_are_not_known_before_it():
    spec = solver_spec(rtol=1e-3)
    assert spec.nodes() is None
    assert spec.evaluation_times() is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("euler", "'euler', which has no solve, describe, nodes, evaluation_times, on_path"),
        (sde_spec(), r"write solve_sde\(velocity, x0, jax.random.split"),
    ],
)
def test_what_is_no_solver_of_the_ode_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        solve(logistic, X0, spec=spec)
