import json

import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.paths import AffinePath, BrownianBridge
from fmjax.samplers import SOLVERS, solve, solver_spec
from fmjax.samplers.diffrax_steps.by_name import diffrax_solver, evaluations
from fmjax.samplers.time_grids import CustomGrid, EDMGrid, ShiftedGrid
from fmjax.schedules import VP, Linear


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solver": "huen"}, "Did you mean 'heun'"),
        ({"steps": 0}, "at least 1"),
        ({"steps": 2.5}, "whole number"),
        ({"steps": 10, "control": "sample"}, "exclude"),
        ({"steps": 10, "rtol": 1e-3}, "exclude"),
        ({"control": "fixed", "rtol": 1e-3}, "no rtol"),
        ({"rtol": 0.0}, "positive"),
        ({"solver": "dopri5", "atol": float("nan")}, "positive"),
        ({"solver": "euler", "rtol": 1e-3}, "no error estimate"),
        ({"control": "both"}, "Known: batch, fixed, sample"),
        ({"rtol": 1e-3, "max_steps": 0}, "max_steps"),
        ({"solver": "dpmpp_2m", "rtol": 1e-3}, "no error estimate"),
        ({"solver": "rk4", "control": "batch"}, "take one of bosh3"),
        ({"solver": "unipc", "steps": 1}, "at least 2 steps"),
        ({"solver": "ab3", "steps": 2}, "at least 3 steps"),
        ({"shift": 0.0}, "positive"),
        ({"shift": float("nan")}, "positive"),
        ({"shift": 2.0, "rtol": 1e-3}, "no grid .* leave shift=2.0 out"),
        ({"grid": "edm", "rtol": 1e-3}, "no grid .* leave grid='edm' out"),
        ({"grid": "edn"}, "Did you mean 'edm'"),
        ({"grid": "edm", "shift": 3.0}, "own spacing"),
        ({"grid": [0.0, 0.5, 1.0], "shift": 3.0}, "own spacing"),
        ({"grid": [0.0, 0.5, 1.0], "steps": 3}, "leave steps out"),
        ({"grid": [0.0, 0.7, 0.5, 1.0]}, "strictly increase"),
        ({"grid": [0.0, 0.5, 0.5, 1.0]}, "strictly increase"),
        ({"grid": [0.0, 0.5, 1.5]}, r"lie in \[0, 1\]"),
        ({"grid": [0.0, float("nan"), 1.0]}, r"lie in \[0, 1\]"),
        ({"grid": [0.5]}, "at least two"),
        ({"gradient": "backwards"}, "Known: checkpointed, direct"),
        ({"checkpoints": 0}, "checkpoints"),
    ],
)
def test_a_wrong_specification_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        solver_spec(**arguments)


NEEDED = {"ab2": 2, "ab3": 3, "dpmpp_2m": 2, "unipc": 2, "unipc_interpolated": 2}


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_a_solver_takes_as_few_steps_as_it_needs_earlier_ones(name):
    fewest = NEEDED.get(name, 1)
    assert solver_spec(name, fewest).steps == fewest
    if fewest > 1:
        with pytest.raises(InputError, match=f"at least {fewest} steps"):
            solver_spec(name, fewest - 1)


# Of five steps; a solver whose last stage is the first one of the next step begins with one more.
EVALUATIONS = {
    "ab3": 6,
    "bosh3": 16,
    "dopri5": 31,
    "dopri8": 66,
    "geodesic_heun": 10,
    "heun": 10,
    "midpoint": 10,
}
EVALUATIONS |= {"ralston": 10, "rk4": 20, "tsit5": 31}


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_there_are_as_many_times_as_evaluations(name):
    times = solver_spec(name, 5).evaluation_times()
    assert len(times) == EVALUATIONS.get(name, 5)
    solver = diffrax_solver(name, Linear())
    assert int(evaluations(name, solver, jnp.asarray(5))) == len(times)
    assert times[0] == 0
    assert set(times) >= set(np.linspace(0, 1, 6)[1:-1])


def test_what_is_left_out_is_chosen():
    assert (solver_spec().steps, solver_spec().control) == (25, "fixed")
    assert solver_spec(rtol=1e-3).control == "sample"
    assert (solver_spec(rtol=1e-3).atol, solver_spec(atol=1e-3).rtol) == (1e-4, 1e-4)
    assert solver_spec(grid="edm").grid == EDMGrid()
    assert (
        solver_spec(shift=3.0).grid
        == solver_spec(grid="shifted", shift=3.0).grid
        == ShiftedGrid(3.0)
    )
    custom = solver_spec(grid=[0.0, 0.3, 1.0])
    assert (custom.steps, custom.grid) == (2, CustomGrid((0.0, 0.3, 1.0)))
    assert solver_spec(grid=[0.0, 0.3, 1.0], steps=2) == custom


def test_a_spec_is_hashable_so_that_it_can_be_static():
    assert len({solver_spec("heun", 5), solver_spec("heun", 5), solver_spec(grid="beta")}) == 2


def test_a_description_tells_solves_apart_and_goes_into_json():
    specs = [solver_spec("heun", 5), solver_spec("heun", 5, grid="edm"), solver_spec(rtol=1e-3)]
    texts = [json.dumps(spec.describe()) for spec in specs]
    assert len(set(texts)) == 3
    assert specs[0].describe() == {
        "solver": "heun",
        "control": "fixed",
        "steps": 5,
        "grid": "UniformGrid()",
    }


def test_a_solver_takes_the_schedule_of_a_path_that_has_one():
    assert solver_spec("unipc", 5).on_path(AffinePath(VP())) == solver_spec(
        "unipc", 5, schedule=VP()
    )
    assert solver_spec("heun", 5).on_path(BrownianBridge()) == solver_spec("heun", 5)


@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc", "unipc_interpolated"])
def test_a_solver_in_the_signal_to_noise_ratio_is_refused_on_a_path_that_has_none(name):
    with pytest.raises(InputError, match=f"{name} steps in .* BrownianBridge has none; take ab2"):
        solver_spec(name, 5).on_path(BrownianBridge())


@pytest.mark.slow
def test_counts_of_numpy_are_taken_as_those_of_python():
    for given in ({"steps": np.int64(10)}, {"rtol": 1e-3, "max_steps": np.int32(50)}):
        usual = {name: x.item() if isinstance(x, np.generic) else x for name, x in given.items()}
        solver = solver_spec("heun", **given)
        assert solver == solver_spec("heun", **usual)
        json.dumps(solver.describe())
        solution = solve(lambda x, t, labels: -x, np.ones((2, 3), np.float32), None, solver)
        assert bool(solution.success.all())


@pytest.mark.slow
def test_fixed_steps_are_all_taken_and_the_states_between_them_lie_on_the_line():
    x0 = np.arange(6, dtype=np.float32).reshape(2, 3)
    spec, times = solver_spec("euler", 2), [0.0, 0.25, 0.5, 0.875, 1.0]
    found = solve(lambda x, t, labels: jnp.ones_like(x), x0, spec=spec, save_at=times)
    np.testing.assert_array_equal(found.trajectory, x0 + np.reshape(times, (-1, 1, 1)))
    for got, expected in ((found.accepted, 2), (found.rejected, 0), (found.nfe, 2)):
        np.testing.assert_array_equal(got, [expected] * 2)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("degree", [1, 2])
def test_adams_bashforth_integrates_powers_of_t_but_for_its_first_steps(degree):
    # Order p is exact for the power p - 1. Euler's step of t errs by -h^2 / 2; of t^2 Heun's errs
    # by h^3 / 6 and the second step, of order 2, by -5 h^3 / 6.
    h = 0.2
    spec = solver_spec(f"ab{degree + 1}", 5)
    x0 = np.zeros((2, 3), np.float32)
    found = solve(lambda x, t, labels: t[:, None] ** degree + 0 * x, x0, spec=spec)
    error = {1: -(h**2) / 2, 2: -2 * h**3 / 3}[degree]
    np.testing.assert_allclose(found.x1, 1 / (degree + 1) + error, rtol=1e-5)
