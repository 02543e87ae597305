"""A solver from outside the package, through all that takes a solver."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import solve, solve_sde
from fmjax.conditions import ClassIds, share
from fmjax.config import default_config
from fmjax.data.codecs import Vectors
from fmjax.errors import InputError
from fmjax.factory import DataSpec, Guidance, Recipe, make_experiment, make_sampler
from fmjax.samplers import Solver, invert, solver_spec, take_steps


@dataclass(frozen=True)
class Euler:
    """x(t') = x(t) + (t' - t) u(x(t), t), in equal steps."""

    steps: int

    def solve(self, velocity, x0, labels=None, *, keys=None, t0=0.0, t1=1.0, save_at=None):
        labels = share(labels, len(x0))

        def step(x, t, t_next, k):
            return x + (t_next - t)[:, None] * velocity(x, t, labels)

        return take_steps(step, x0, self.nodes(t0, t1), nfe=self.steps, save_at=save_at)

    def describe(self):
        return {"solver": "my euler", "steps": self.steps}

    def nodes(self, t0=0.0, t1=1.0):
        return np.linspace(t0, t1, self.steps + 1)

    def evaluation_times(self, t0=0.0, t1=1.0):
        return self.nodes(t0, t1)[:-1]

    def on_path(self, path):
        return self


X0 = np.random.default_rng(0).normal(size=(6, 2)).astype("float32")
LABELS = np.arange(6, dtype=np.int32) % 3
STEPS = 7
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


def velocity(x, t, labels):
    return jnp.sin(x + t[:, None]) * (1.0 + labels)[:, None]


def assert_same(ours, theirs):
    for name in ("nfe", "success", "accepted", "rejected"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)
    for name in ("x1", "t_end", "trajectory"):
        pair = [jax.tree.leaves(getattr(solution, name)) for solution in (ours, theirs)]
        for a, b in zip(*pair, strict=True):
            np.testing.assert_allclose(a, b, **TOLERANCE, err_msg=name)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "how", [{}, {"t0": 0.9, "t1": 0.1}, {"save_at": [0.0, 1 / 7, 0.3, 0.95, 1.0]}]
)
def test_it_solves_as_the_one_of_the_package(how):
    assert isinstance(Euler(STEPS), Solver)
    both = [
        jax.jit(lambda x, y, spec=spec: solve(velocity, x, y, spec, **how))(X0, LABELS)
        for spec in (Euler(STEPS), solver_spec("euler", STEPS))
    ]
    assert_same(*both)


@pytest.mark.slow
def test_its_inverse_and_a_lone_label_are_those_of_the_package():
    ours, theirs = (invert(velocity, X0, 2, s) for s in (Euler(4), solver_spec("euler", 4)))
    assert_same(ours, theirs)


def test_it_says_where_the_velocity_was_not_finite():
    def broken(x, t, labels):
        return jnp.where((t[:, None] > 0.5) & (labels == 1)[:, None], jnp.nan, 1.0) * x

    ours, theirs = (
        jax.jit(lambda x, y, spec=spec: solve(broken, x, y, spec))(X0, LABELS)
        for spec in (Euler(10), solver_spec("euler", 10))
    )
    assert_same(ours, theirs)
    np.testing.assert_array_equal(ours.success, LABELS != 1)
    assert np.isnan(ours.x1[1]).all()


@pytest.mark.slow
def test_what_is_saved_before_the_velocity_breaks_is_kept():
    def broken(x, t, labels):
        return jnp.where(t[:, None] > 0.45, jnp.nan, 1.0) * x

    saved = solve(broken, X0, LABELS, Euler(4), save_at=[0.125, 0.5, 0.6]).trajectory
    np.testing.assert_allclose(saved[:2], [1.125 * X0, 1.25**2 * X0], rtol=1e-6)
    assert np.isnan(saved[2]).all()


def test_steps_that_draw_noise_have_a_number_each():
    seen = take_steps(lambda x, t, t_next, k: x * 10 + k, np.zeros((2, 1), "f4"), [0, 1, 2], nfe=0)
    np.testing.assert_array_equal(seen.x1, [[1.0], [1.0]])  # (0 * 10 + 0) * 10 + 1


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [None, Guidance(zero_until=0.2)])
def test_it_goes_through_the_sampler_of_an_experiment(guidance):
    config = default_config()
    small = {"model.name": "mlp", "model.width": 8, "model.depth": 1}
    config.update_from_flattened_dict(small | {"train.batch_size": 8})
    experiment = make_experiment(config, DataSpec(Vectors(2), ClassIds(3)))
    params = experiment.init_params(jax.random.key(0))
    solutions = []
    for solver in (Euler(STEPS), solver_spec("euler", STEPS)):
        sampler = jax.jit(make_sampler(experiment, Recipe(solver, guidance)))
        arguments = jax.random.key(1), np.arange(6), LABELS, np.full(6, 1.5, "f4")
        solutions.append(sampler(params, X0, *arguments))
    assert_same(*solutions)


def test_one_that_lacks_a_method_is_refused_by_both_ways_in():
    class Half:
        solve = Euler.solve
        nodes = Euler.nodes

        def __repr__(self):
            return "Half()"

    message = r"got Half\(\), which has no describe, evaluation_times, on_path"
    with pytest.raises(InputError, match=message):
        solve(velocity, X0, LABELS, Half())
    with pytest.raises(InputError, match=message):
        solve_sde(velocity, X0, jax.random.split(jax.random.key(0), 6), LABELS, Half())
