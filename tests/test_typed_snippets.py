"""What users write, with its types: two type checkers read this file, and pytest runs it.

Nothing here may need a cast, an `Any` of the user's own, or a `type: ignore`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as Folder
from typing import Any, ClassVar, NamedTuple, assert_type

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fmjax import (
    AffinePath,
    ApplyFn,
    ClassIds,
    Draw,
    Guided,
    Solution,
    Velocity,
    as_velocity,
    bits_per_dim,
    check_solution,
    classifier_free,
    conditions,
    conventions,
    couplings,
    invert,
    log_likelihood,
    make_loss_fn,
    paths,
    samplers,
    schedules,
    sde_spec,
    solve,
    solve_sde,
    solver_spec,
    sources,
    times,
)
from fmjax.likelihood import Likelihood
from fmjax.training import fit
from fmjax.training.state import TrainState

BATCH = 8


class Weights(NamedTuple):
    """The parameters of a network of one's own: any pytree."""

    x: jax.Array
    t: jax.Array
    labels: jax.Array


def network(
    params: Weights, x: jax.Array, t: jax.Array, labels: jax.Array | None = None
) -> jax.Array:
    """A linear network; class 2 is none."""
    out = x @ params.x + t[:, None] * params.t[None]
    return out if labels is None else out + params.labels[labels]


def weights() -> Weights:
    return Weights(jnp.eye(2), jnp.ones(2), jnp.zeros((3, 2)))


def batch() -> tuple[jax.Array, jax.Array]:
    return jax.random.normal(jax.random.key(1), (BATCH, 2)), jnp.arange(BATCH) % 2


@dataclass(frozen=True)
class Squares:
    """A schedule: alpha = t^2, sigma = 1 - t^2."""

    def alpha(self, t: jax.Array) -> jax.Array:
        return t**2

    def sigma(self, t: jax.Array) -> jax.Array:
        return 1 - t**2

    def d_alpha(self, t: jax.Array) -> jax.Array:
        return 2 * t

    def d_sigma(self, t: jax.Array) -> jax.Array:
        return -2 * t


@dataclass(frozen=True)
class Sine:
    """A path: x_t = x0 + sin(pi t / 2) (x1 - x0)."""

    noise = sources.NO_NOISE

    def sample(
        self,
        x0: jax.Array,
        x1: jax.Array,
        t: jax.Array,
        noise: Mapping[str, jax.Array] | None = None,
    ) -> paths.PathSample:
        a = 0.5 * jnp.pi * t[:, None]
        target = 0.5 * jnp.pi * jnp.cos(a) * (x1 - x0)
        return paths.PathSample(x0 + jnp.sin(a) * (x1 - x0), target)

    def distance(
        self, predicted: jax.Array, target: jax.Array, x_t: jax.Array, t: jax.Array
    ) -> jax.Array:
        return jnp.mean((predicted - target) ** 2, axis=1)


@dataclass(frozen=True)
class Box:
    """A source: uniform on [-1, 1]^d."""

    def sample(self, key: jax.Array, index: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
        return jax.vmap(lambda key: jax.random.uniform(key, shape, minval=-1.0))(keys)

    def log_prob(self, x: jax.Array) -> jax.Array:
        inside = jnp.all(jnp.abs(x) <= 1, axis=1)
        return jnp.where(inside, -x.shape[1] * jnp.log(2.0), -jnp.inf)


@dataclass(frozen=True)
class Late:
    """A distribution of times: density 2 t."""

    def quantile(self, u: jax.Array) -> jax.Array:
        return jnp.sqrt(u)

    def density(self, t: jax.Array) -> jax.Array:
        return 2 * t


def reversed_pairs(
    key: jax.Array, x0: jax.Array, x1: jax.Array, labels: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """A coupling: the first source point with the last data point."""
    return x0[::-1], x1, labels


@dataclass(frozen=True)
class Stars:
    """A condition: how many stars, 1 to 5; 0 is none."""

    drop_rate: float = 0.0
    kind: ClassVar[str] = "stars"

    def null_value(self) -> np.ndarray:
        return np.zeros((), np.int32)

    def check(self, name: str, x: jax.Array, batch: int) -> None:
        if x.shape != (batch,):
            raise ValueError(f"{name} must be one number of stars for each example")


@dataclass(frozen=True)
class Leaps:
    """A solver: Euler's method."""

    steps: int

    def solve(
        self,
        velocity: Velocity,
        x0: jax.Array,
        labels: jax.Array | None = None,
        *,
        keys: jax.Array | None = None,
        t0: float = 0.0,
        t1: float = 1.0,
        save_at: conventions.Times | None = None,
    ) -> Solution:
        def step(x: jax.Array, t: jax.Array, s: jax.Array, k: jax.Array) -> jax.Array:
            return x + (s - t)[:, None] * velocity(x, t, labels)

        nodes = self.nodes(t0, t1)
        return samplers.take_steps(step, x0, nodes, nfe=self.steps, save_at=save_at)

    def describe(self) -> dict[str, int]:
        return {"steps": self.steps}

    def nodes(self, t0: float = 0.0, t1: float = 1.0) -> np.ndarray:
        return np.linspace(t0, t1, self.steps + 1)

    def evaluation_times(self, t0: float = 0.0, t1: float = 1.0) -> np.ndarray:
        return self.nodes(t0, t1)[:-1]

    def on_path(self, path: paths.Path) -> "Leaps":
        return self


def test_a_network_is_trained_by_a_loop_of_ones_own() -> None:
    x1, labels = batch()
    draw = Draw(conditions=ClassIds(2, drop_rate=0.1), time_distribution=times.LogitNormal())
    loss_fn, adam = make_loss_fn(network), optax.adam(1e-2)

    @jax.jit
    def step(params: Weights, state: optax.OptState, key: jax.Array) -> tuple[Any, ...]:
        args = draw(key, jnp.arange(BATCH), x1, labels)
        loss, grads = jax.value_and_grad(loss_fn)(params, *args)
        updates, state = adam.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    params, _, loss = step(weights(), adam.init(weights()), jax.random.key(0))
    assert isinstance(params, Weights)
    assert np.isfinite(loss)


def test_the_parts_of_a_draw_and_the_path_are_ones_own() -> None:
    x1, labels = batch()
    draw = Draw(coupling=reversed_pairs, source=Box(), time_distribution=Late())
    args = draw(jax.random.key(0), jnp.arange(BATCH), x1, labels)
    loss = make_loss_fn(network, Sine())(weights(), *args)
    assert_type(loss, jax.Array)
    affine = make_loss_fn(network, AffinePath(Squares()), prediction="x1", weight=lambda t: 1 + t)
    assert loss.shape == affine(weights(), *args).shape == ()


def test_a_coupling_of_the_library_is_one_of_those_that_a_draw_takes() -> None:
    choices: list[couplings.Coupling] = [couplings.exact(), couplings.independent, reversed_pairs]
    x0, x1 = jnp.zeros((4, 2)), jnp.ones((4, 2))
    for coupling in choices:
        assert coupling(jax.random.key(0), x0, x1, None)[0].shape == (4, 2)


def test_a_run_is_trained_and_goes_on(tmp_path: Folder) -> None:
    x1, labels = batch()
    data: dict[str, np.ndarray] = {"x": np.asarray(x1), "labels": np.asarray(labels)}
    shown: list[int] = []
    state = fit(
        network,
        weights(),
        data,
        loss_fn=make_loss_fn(network),
        draw=Draw(conditions=ClassIds(2)),
        optimizer=optax.adam(1e-2),
        steps=2,
        batch_size=BATCH,
        callbacks=[lambda step, state: shown.append(step)],
        workdir=tmp_path / "run",
    )
    assert_type(state, TrainState)
    assert shown == [1, 2]


def test_a_run_reads_the_batches_of_an_iterator() -> None:
    def batches() -> Iterator[dict[str, np.ndarray]]:
        while True:
            yield {"x": np.zeros((BATCH, 2), np.float32)}

    state = fit(
        network,
        weights(),
        batches(),
        loss_fn=make_loss_fn(network),
        draw=Draw(),
        optimizer=optax.sgd(1e-2),
        steps=1,
        batch_size=BATCH,
        ema=None,
    )
    assert int(state.step) == 1


def test_a_velocity_is_solved_guided_and_inverted() -> None:
    params, (_, labels) = weights(), batch()

    def velocity(x: jax.Array, t: jax.Array, labels: jax.Array | None) -> jax.Array:
        return network(params, x, t, labels)

    guided: Velocity = classifier_free(velocity, null_labels=2, interval=(0.1, 0.9))
    x0 = jax.random.normal(jax.random.key(2), (BATCH, 2))
    spec = solver_spec("heun", 4)
    solution = solve(guided, x0, Guided(labels, 2.0), spec, save_at=np.linspace(0, 1, 3))
    assert_type(solution, Solution)
    assert solution.trajectory.shape == (3, BATCH, 2)
    back = check_solution(invert(guided, solution.x1, Guided(labels, 2.0), spec))
    np.testing.assert_allclose(back.x1, x0, atol=0.2)
    by_times = solver_spec("euler", grid=[0.0, 0.5, 1.0])
    assert len({solver_spec(name, 4) for name in samplers.SOLVERS}) == len(samplers.SOLVERS)
    keys = jax.random.split(jax.random.key(3), BATCH)
    noisy = solve_sde(velocity, x0, keys, labels, sde_spec("churn", 4))
    for x1 in (solve(velocity, x0, labels, by_times).x1, noisy.x1):
        assert x1.shape == x0.shape


def test_a_solver_of_ones_own_is_solved_by() -> None:
    x0 = jnp.ones((2, 2))
    found = solve(lambda x, t, labels: x, x0, spec=Leaps(100), save_at=[0.0, 1.0])
    np.testing.assert_allclose(found.x1, x0 * 1.01**100, rtol=1e-4)


def test_a_prediction_of_the_data_becomes_a_velocity_and_a_likelihood() -> None:
    def denoiser(
        params: None, x: jax.Array, t: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        return jnp.zeros_like(x)

    apply_fn: ApplyFn = as_velocity(denoiser, schedules.Linear(), "x1")
    x1 = 0.01 * jnp.ones((2, 2))
    found = log_likelihood(lambda x, t, labels: apply_fn(None, x, t, labels), x1)
    assert_type(found, Likelihood)
    bits = bits_per_dim(found.log_p, dims=2, bin_width=1.0)
    assert_type(bits, jax.Array)
    assert bits.shape == (2,)
    assert_type(bits_per_dim(-3.5, dims=2), float)


def test_a_condition_of_ones_own_is_dropped_to_its_null() -> None:
    described: conditions.Condition = Stars(drop_rate=1.0)
    draw = Draw(conditions={"stars": described})
    labels = {"stars": jnp.array([3, 5], jnp.int32)}
    args = draw(jax.random.key(0), jnp.arange(2), jnp.zeros((2, 2)), labels)
    assert args.labels["stars"].tolist() == [0, 0]
