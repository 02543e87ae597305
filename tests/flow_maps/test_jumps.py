"""Jumps on the flow map of Gaussians, whose closed form is known; and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import as_velocity, convert, solve, solve_sde, solver_spec
from fmjax.conventions import Span, diagonal, expand
from fmjax.errors import InputError
from fmjax.flow_maps import Jumps
from fmjax.guidance import Guided, classifier_free, distilled
from fmjax.paths import AffinePath, BrownianBridge
from fmjax.samplers import Solver, invert
from fmjax.schedules import VP, Cosine, Linear, LinearVP
from fmjax.testing import GaussianFlow

MEAN, SPREAD = np.array([1.5, -0.5], np.float32), 0.4
X0 = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
STRAIGHT = Linear()
SCHEDULES = [STRAIGHT, Linear(0.05), LinearVP(), Cosine(), VP()]


def statistics(t, schedule):
    """The mean and the standard deviation of x_t."""
    t = jnp.asarray(t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return alpha[..., None] * MEAN.reshape((1,) * alpha.ndim + (2,)), jnp.sqrt(
        alpha**2 * SPREAD**2 + sigma**2
    )[..., None]


def flow_map(x, s, t, schedule=STRAIGHT):
    (m_s, sd_s), (m_t, sd_t) = statistics(s, schedule), statistics(t, schedule)
    return m_t + sd_t / sd_s * (x - m_s)


def average_of(schedule):
    """u(x, s, t) in closed form, and on the diagonal the velocity, its limit."""
    velocity = GaussianFlow(MEAN, SPREAD, schedule).velocity

    def apply_fn(params, x, span, labels=None):
        far = expand(span.t != span.s, x)
        length = jnp.where(far, expand(span.t - span.s, x), 1.0)
        jumped = (flow_map(x, span.s, span.t, schedule) - x) / length
        return jnp.where(far, jumped, velocity(x, span.s))

    return apply_fn


def average(x, t, labels=None):
    return diagonal(average_of(Linear()))(None, x, t, labels)


def full(t):
    return np.full(len(X0), t, np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (0.2, 0.9), (0.7, 0.1)])
@pytest.mark.parametrize("how", [{"steps": 1}, {"steps": 5}, {"steps": 4, "grid": "cosine"}])
def test_a_chain_of_jumps_is_the_flow_map(ends, how):
    solution = solve(average, X0, None, Jumps(**how), t0=ends[0], t1=ends[1])
    np.testing.assert_allclose(
        solution.x1, flow_map(X0, full(ends[0]), full(ends[1])), rtol=2e-5, atol=2e-5
    )
    np.testing.assert_array_equal(solution.nfe, how["steps"])
    assert np.all(solution.success)
    np.testing.assert_array_equal(solution.t_end, full(ends[1]))


@pytest.mark.slow
def test_float64_is_exact_to_float64():
    with jax.enable_x64(True):
        x0 = X0.astype(np.float64)
        x1 = solve(average, x0, None, Jumps(7)).x1
        assert x1.dtype == np.float64
        one = np.ones(len(x0))
        np.testing.assert_allclose(x1, flow_map(x0, 0 * one, one), rtol=1e-12, atol=1e-12)


def test_inverse_jumps_invert():
    there = solve(average, X0, None, Jumps(3)).x1
    np.testing.assert_allclose(invert(average, there, None, Jumps(2)).x1, X0, atol=2e-5)


@pytest.mark.slow
def test_an_ordinary_solver_takes_the_same_callable():
    x1 = solve(average, X0, None, solver_spec("heun", 100)).x1
    np.testing.assert_allclose(x1, solve(average, X0, None, Jumps(1)).x1, atol=1e-3)


@pytest.mark.slow
def test_states_on_the_way_are_exact_and_what_they_cost_is_counted():
    times = [0.0, 0.25, 0.4, 0.5, 0.9, 1.0]
    for spec, nfe in ((Jumps(2), 5), (Jumps(4), 6)):
        solution = jax.jit(lambda x, spec=spec: solve(average, x, None, spec, save_at=times))(X0)
        expected = [flow_map(X0, full(0.0), full(t)) for t in times]
        np.testing.assert_allclose(solution.trajectory, expected, atol=2e-5)
        np.testing.assert_array_equal(solution.nfe, nfe)
        assert solution.accepted[0] == spec.steps
        np.testing.assert_array_equal(solution.x1, solve(average, X0, None, spec).x1)
    backwards = solve(average, X0, None, Jumps(2), t0=1.0, t1=0.0, save_at=[0.9, 0.5, 0.1])
    expected = [flow_map(X0, full(1.0), full(t)) for t in (0.9, 0.5, 0.1)]
    np.testing.assert_allclose(backwards.trajectory, expected, atol=2e-5)


def counted(function):
    calls = []

    def counting(x, t, labels=None):
        jax.debug.callback(lambda: calls.append(1))
        return function(x, t, labels)

    return counting, calls


@pytest.mark.slow
@pytest.mark.parametrize("renoise", [0.0, 1.0])
def test_the_velocity_is_asked_as_often_as_is_said(renoise):
    velocity, calls = counted(average)
    keys = jax.random.split(jax.random.key(0), len(X0))
    solution = solve_sde(velocity, X0, keys, None, Jumps(3, renoise=renoise))
    jax.block_until_ready(solution)
    jax.effects_barrier()
    assert len(calls) == 3 == solution.nfe[0]
    velocity, calls = counted(average)
    jax.block_until_ready(solve(velocity, X0, None, Jumps(3), save_at=[0.1, 0.2, 1.0]))
    jax.effects_barrier()
    assert len(calls) == 5


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("renoise", [0.3, 1.0])
def test_renoise_keeps_the_distribution_at_every_time(schedule, renoise):
    n = 20_000
    network = average_of(schedule)
    spec = Jumps(4, grid="cosine", renoise=renoise).on_path(AffinePath(schedule))
    times = sorted([*spec.nodes(), 0.7])

    @jax.jit
    def sample(key):
        start = schedule.sigma(jnp.zeros(())) * jax.random.normal(key, (n, 2))
        start = (
            start + schedule.alpha(jnp.zeros(())) * MEAN[None]
        )  # VP begins a little off the noise
        keys = jax.random.split(jax.random.fold_in(key, 1), n)
        flow = lambda x, t, labels: network(None, x, t)  # noqa: E731
        return solve_sde(flow, start, keys, None, spec, save_at=times)

    solution = sample(jax.random.key(3))
    for t, x in zip(times[1:], solution.trajectory[1:], strict=True):
        mean, spread = statistics(np.full(1, t, np.float32), schedule)
        error = float(spread[0, 0]) / np.sqrt(n)
        np.testing.assert_allclose(x.mean(axis=0), mean[0], atol=5 * error)
        np.testing.assert_allclose(x.std(axis=0), spread[0, 0], atol=5 * error)
    np.testing.assert_array_equal(solution.trajectory[-1], solution.x1)
    # Of the variance of x_t the part (gamma sigma_t)^2 is new.
    k = times.index(spec.nodes()[2])
    before, x = (
        np.asarray(solution.trajectory[i])[:, 0] for i in (times.index(spec.nodes()[1]), k)
    )
    t = jnp.asarray(times[k])
    new = (renoise * schedule.sigma(t)) ** 2 / statistics(t, schedule)[1][0] ** 2
    np.testing.assert_allclose(np.corrcoef(before, x)[0, 1], np.sqrt(1 - new), atol=0.03)


def test_a_little_noise_is_little_and_none_is_none():
    keys = jax.random.split(jax.random.key(0), len(X0))
    plain = solve(average, X0, None, Jumps(4)).x1
    some = [
        np.abs(solve_sde(average, X0, keys, None, Jumps(4, renoise=gamma)).x1 - plain).max()
        for gamma in (0.0, 1e-3, 0.5)
    ]
    assert some[0] == 0
    assert 0 < some[1] < 0.01 < some[2]


def test_no_noise_is_added_at_the_data():
    keys = jax.random.split(jax.random.key(0), len(X0))
    one = solve_sde(average, X0, keys, None, Jumps(1, renoise=1.0)).x1
    np.testing.assert_allclose(one, solve(average, X0, None, Jumps(1)).x1, atol=2e-6)


@pytest.mark.slow
def test_an_example_depends_on_its_own_key_alone():
    keys = jax.random.split(jax.random.key(0), len(X0))
    spec = Jumps(3, renoise=0.8)
    whole = solve_sde(average, X0, keys, None, spec).x1
    part = solve_sde(average, X0[5:9], keys[5:9], None, spec).x1
    np.testing.assert_allclose(part, whole[5:9], atol=1e-6)
    mapped = jax.vmap(lambda x, k: solve_sde(average, x[None], k[None], None, spec).x1[0])
    np.testing.assert_allclose(mapped(X0, keys), whole, atol=1e-6)


def test_a_second_call_compiles_nothing():
    traces = []

    def traced(x, keys, spec):
        traces.append(1)
        return solve_sde(average, x, keys, None, spec).x1

    run = jax.jit(traced, static_argnums=2)
    keys = jax.random.split(jax.random.key(0), len(X0))
    first = run(X0, keys, Jumps(3, "cosine", 0.5))
    second = run(X0, keys, Jumps(3, "cosine", 0.5))
    np.testing.assert_array_equal(first, second)
    assert len(traces) == 1


def test_the_gradient_of_a_jump_is_that_of_the_map():
    grad = jax.grad(lambda x: jnp.sum(solve(average, x, None, Jumps(3)).x1))(X0)
    np.testing.assert_allclose(grad, SPREAD, rtol=1e-4)


def test_a_pytree_jumps_leaf_by_leaf():
    def velocity(x, span, labels):
        return jax.tree.map(lambda leaf: average(leaf, span), x)

    moved = solve(velocity, {"a": X0, "b": -X0}, None, Jumps(2), save_at=[0.3, 1.0])
    np.testing.assert_allclose(moved.x1["b"], solve(average, -X0, None, Jumps(2)).x1, atol=1e-6)
    assert moved.trajectory["a"].shape == (2, *X0.shape)


def conditional(x, t, labels):
    """Another spread of the data for each label; 2 is the null label."""
    return (1.0 + labels)[:, None] * average(x, t)


def test_guidance_is_of_the_average_velocity():
    labels, w = np.arange(len(X0)) % 2, np.linspace(0, 3, len(X0)).astype(np.float32)
    guided = classifier_free(conditional, 2)
    one = solve(guided, X0, Guided(labels, w), Jumps(1)).x1
    u = average(X0, Span(full(0.0), full(1.0)))
    factor = (1 - w) * 3 + w * (1 + labels)
    np.testing.assert_allclose(one, X0 + factor[:, None] * u, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_what_depends_on_t_is_read_where_a_jump_starts():
    """As for Euler steps between the same times."""
    how = {"interval": (0.3, 0.6), "zero_until": 0.2, "schedule": "linear"}
    guided = classifier_free(lambda x, t, y: conditional(x, jax.tree.map(jnp.zeros_like, t), y),
                             2, **how)  # fmt: skip
    labels = np.arange(len(X0)) % 2
    both = [
        solve(guided, X0, Guided(labels, 2.0), spec).x1
        for spec in (Jumps(4), solver_spec("euler", 4))
    ]
    np.testing.assert_allclose(*both, rtol=1e-5, atol=1e-5)


def test_guidance_as_an_input_jumps_in_one_evaluation():
    def network(x, t, labels):
        return labels["guidance"][:, None] * average(x, t)

    w = np.linspace(0, 3, len(X0)).astype(np.float32)
    solution = solve(distilled(network), X0, Guided(None, w), Jumps(1))
    u = average(X0, Span(full(0.0), full(1.0)))
    np.testing.assert_allclose(solution.x1, X0 + w[:, None] * u, rtol=1e-5, atol=1e-5)
    assert solution.nfe[0] == 1


def test_it_is_a_solver_that_describes_itself():
    spec = Jumps(4, renoise=0.5, grid="karras")
    assert isinstance(spec, Solver)
    assert spec.describe() == {
        "solver": "jumps",
        "steps": 4,
        "grid": "KarrasGrid(rho=7.0, sigma_min=0.001)",
        "renoise": 0.5,
    }
    assert Jumps().describe() == {"solver": "jumps", "steps": 1, "grid": "UniformGrid()"}
    np.testing.assert_array_equal(Jumps(grid=[0, 0.2, 1]).nodes(), [0, 0.2, 1])
    np.testing.assert_array_equal(Jumps(2).evaluation_times(1.0, 0.0), [1.0, 0.5])
    assert hash(Jumps(2)) == hash(Jumps(2, "uniform"))


def test_where_a_velocity_is_not_finite_is_said():
    def broken(x, span, labels):
        return jnp.where((span.s > 0.4)[:, None] & (x[:, :1] > 0), jnp.nan, average(x, span))

    solution = solve(broken, X0, None, Jumps(4))
    assert not np.all(solution.success)
    assert np.isnan(solution.x1[~solution.success]).all()
    np.testing.assert_array_equal(np.unique(solution.t_end[~solution.success]), [0.5, 0.75])


KEYS = jax.random.split(jax.random.key(0), len(X0))
NOISY = Jumps(2, renoise=0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Jumps(0), "steps must be a whole number of at least 1; got 0"),
        (lambda: Jumps(2, renoise=1.5), r"renoise must lie in \[0, 1\]; got 1.5"),
        (lambda: Jumps(2, renoise=float("nan")), "renoise must lie"),
        (lambda: Jumps(3, grid=[0, 0.5, 1]), "the grid has 2 steps, and steps=3"),
        (lambda: Jumps(3, grid="uniformm"), "unknown time grid 'uniformm'. Did you mean 'uniform'"),
        (lambda: Jumps(2, schedule=Linear), "the schedule is the class Linear"),
        (lambda: solve(average, X0, None, NOISY), "one random key per example"),
        (lambda: solve_sde(average, X0, KEYS[:2], None, NOISY), "one random key per example"),
        (
            lambda: solve_sde(average, X0, KEYS, None, NOISY, t0=1.0, t1=0.0),
            "Without noise it runs backwards",
        ),
        (lambda: solve(average, X0, None, Jumps(1), t0=0.5, t1=0.5), "two different finite times"),
        (lambda: solve(average, X0, None, Jumps(1), save_at=[2.0]), "save_at"),
        (
            lambda: NOISY.on_path(BrownianBridge(0.3)),
            "renoise=0.5 adds the noise of an affine path, and BrownianBridge is none",
        ),
        (
            lambda: solve(lambda x, t, y: x[:1], X0, None, Jumps(1)),
            "the velocity must return floats shaped as x",
        ),
        (
            lambda: solve(average, X0, None, Jumps(grid=[0, 0.5, 1]), t0=0.2),
            "the grid goes from 0 to 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_without_noise_any_path_will_do():
    path = BrownianBridge(0.3)
    assert Jumps(2).on_path(path) == Jumps(2)
    assert Jumps(2).on_path(AffinePath(Cosine())).schedule == Cosine()
    assert dataclasses.replace(NOISY, renoise=0.0).on_path(path).steps == 2


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=repr)
@pytest.mark.parametrize("prediction", ["x1", "x0", "v"])
def test_a_network_of_two_times_may_predict_something_else(prediction, schedule):
    """It is converted at the time of x, and its diagonal is the velocity of one of one time."""
    exact = average_of(schedule)

    def network(params, x, t, labels=None):
        u = exact(params, x, t)
        return convert(u, x, t.s, schedule, source="velocity", target=prediction)

    converted = as_velocity(network, schedule, prediction)
    far = Span(full(0.1), full(0.9))
    np.testing.assert_allclose(converted(None, X0, far, None), exact(None, X0, far), atol=1e-4)
    one = as_velocity(diagonal(network), schedule, prediction)
    for t in (0.0, 0.5, 0.99, 1.0):
        np.testing.assert_array_equal(
            diagonal(converted)(None, X0, full(t)), one(None, X0, full(t), None)
        )
