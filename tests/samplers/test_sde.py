import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.guidance import Guided, classifier_free
from fmjax.paths import AffinePath, BrownianBridge, NoisyStraight
from fmjax.samplers import METHODS, sde_spec, solve_sde, solver_spec
from fmjax.samplers.diffrax_steps import stochastic
from fmjax.samplers.diffusion_coefficients import DIFFUSIONS, diffusion_coefficient
from fmjax.samplers.sde_integration import with_nodes
from fmjax.schedules import VP, Cosine, Linear, LinearVP
from fmjax.testing import GaussianFlow, MixtureFlow

DRIFT = ("euler_maruyama", "stochastic_heun")
SLOW = pytest.mark.slow
GAUSSIAN = GaussianFlow(1.5, 0.5)
MIXTURE = MixtureFlow([0.6, 0.4], [[-2.0, 0.0], [1.0, 1.0]], [[0.5, 0.8], [0.8, 0.3]])

START = np.random.default_rng(1).normal(size=(6, 2)).astype("float32")


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def waves(x, t, labels):
    """A velocity for what holds of any, cheap to compile; NumPy's too."""
    u = 2 * x / (1 + x**2) + t[:, None]
    return u if labels is None else u + labels[:, None]


def moments_of_each(make, cases, steps, velocity=GAUSSIAN.velocity, start=(0.0, 1.0), **how):
    """The means and variances of schemes on a Gaussian flow, exactly and without a draw.

    There x1 = a x0 + b + sum_k c_k xi_k: example 0 has no noise and starts at 0, which gives b;
    example 1 starts at 1; example k + 2 has xi_k = 1 alone. The variance is a^2 + sum_k c_k^2.
    `make` turns each of the `cases` into a spec, all in one program.
    """

    def one_each(keys, step, x, manifold):
        return (jnp.arange(len(x)) == step + 2).astype(x.dtype)

    def solved(case):
        x0 = (jnp.arange(steps + 2) == 1).astype("float64")
        return solve_sde(velocity, x0, keys(steps + 2), spec=make(case), **how).x1

    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        patch.setattr(stochastic, "step_noise", one_each)
        x1 = np.asarray(jax.jit(jax.vmap(solved))(np.asarray(cases)))
    a, c = x1[:, 1] - x1[:, 0], x1[:, 2:] - x1[:, :1]
    return x1[:, 0] + a * start[0], a**2 * start[1] + np.sum(c**2, axis=1)


def moments(spec, *args, **how):
    means, variances = moments_of_each(lambda _: spec, [0], spec.ode.steps, *args, **how)
    return means.item(), variances.item()


LAWS = (*DIFFUSIONS, lambda t: 0.5 + t)


@functools.cache
def moments_of_every_law(method, steps):
    laws = [diffusion_coefficient(law, 1.0, AffinePath()) for law in LAWS]

    def make(case):
        return sde_spec(method, steps, diffusion=lambda t: jax.lax.switch(case, laws, t))

    return moments_of_each(make, range(len(LAWS)), steps)


# The largest error of the variance, 0.25, in 16 steps; for refresh and Euler the first order shows.
ERRORS = {
    "churn": 1e-3,
    "euler_maruyama": 0.015,
    "overshoot": 1e-3,
    "refresh": 0.03,
    "stochastic_heun": 1e-3,
}


def test_every_method_is_in_the_table_of_errors():
    assert ERRORS.keys() == METHODS.keys()


def mostly_slow(*quick):
    return [pytest.param(m, marks=() if m in quick else SLOW) for m in METHODS]


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("method", mostly_slow("churn", "stochastic_heun"))
def test_the_marginal_of_every_method_is_that_of_the_flow(method):
    means, variances = moments_of_every_law(method, 16)
    np.testing.assert_allclose(means, 1.5, atol=1e-5)
    assert abs(variances[LAWS.index("sigma")] - 0.25) < ERRORS[method]


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("method", mostly_slow("stochastic_heun", "refresh", "overshoot"))
def test_a_small_step_is_one_of_the_sde(method, monkeypatch):
    """x + h (u + g^2 / 2 score) + g sqrt(h) xi, for a g that is not the default."""
    monkeypatch.setattr(stochastic, "step_noise", lambda *_: jnp.array([0.0, 0.0, 1.0]))
    g, h, t0 = 0.7, 1e-4, 0.6
    spec = sde_spec(method, 1, diffusion=lambda t: jnp.full_like(t, g), denoise_last=False)

    @jax.jit
    def both(x0, keys):
        t = jnp.full(3, t0)
        solution = solve_sde(GAUSSIAN.velocity, x0, keys, spec=spec, t0=t0, t1=t0 + h)
        return solution.x1, GAUSSIAN.velocity(x0, t) + 0.5 * g**2 * GAUSSIAN.score(x0, t)

    with jax.enable_x64(True):
        x0 = np.array([-1.0, 2.0, 2.0])
        x1, drift = (np.asarray(a) for a in both(x0, keys(3)))
        moved = x1 - x0
        np.testing.assert_allclose(moved[:2] / h, drift[:2], rtol=2e-3)
        np.testing.assert_allclose((moved[2] - moved[1]) / np.sqrt(h), g, rtol=2e-3)


SCHEDULES = [
    ("churn", Cosine()),
    ("overshoot", LinearVP()),
    ("refresh", VP()),
    ("euler_maruyama", Linear(0.1)),
    ("stochastic_heun", VP()),
]


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_error_of_the_marginal_falls_with_the_steps_for_any_diffusion(method):
    errors = [np.abs(moments_of_every_law(method, n)[1] - 0.25) for n in (16, 512)]
    # Where g stays at the data, the noise of the last steps is larger than sigma: churn comes to
    # its order late, and refresh has no more than sigma to replace, which makes its order 1/2.
    for law, coarse, fine in zip(LAWS, *errors, strict=True):
        slow = method in ("churn", "refresh") and law not in DIFFUSIONS[1:]
        assert fine < (0.45 if slow else 0.1) * coarse + 1e-4, law
        assert fine < (0.025 if slow else 0.003), law


@pytest.mark.slow
@pytest.mark.parametrize(("method", "order"), [("euler_maruyama", 1), ("stochastic_heun", 2)])
def test_the_weak_order_is_the_declared_one(method, order):
    def error(n):
        spec = sde_spec(method, n, diffusion="constant", scale=0.5, denoise_last=False)
        return abs(moments(spec, t1=0.8)[1] - float(GAUSSIAN.cov(jnp.float32(0.8))[0, 0]))

    assert abs(np.log2(error(32) / error(64)) - order) < 0.3


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize(("method", "schedule"), SCHEDULES)
def test_a_method_takes_any_schedule(method, schedule):
    flow = GaussianFlow(1.5, 0.5, schedule)
    spec = sde_spec(method, 64, path=AffinePath(schedule))
    start = (float(flow.mean(jnp.float32(0))), float(flow.cov(jnp.float32(0))[0, 0]))
    _, variance = moments(spec, flow.velocity, start)
    expected = float(flow.cov(jnp.float32(1))[0, 0])
    assert abs(variance - expected) < 0.15 * expected


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_mixture_keeps_its_mean_and_covariance_at_every_time(method):
    n, steps, times = 40_000, 50, (0.3, 0.6, 0.9, 1.0)
    spec = sde_spec(method, steps)

    @jax.jit
    def run():
        x0 = jax.random.normal(jax.random.key(1), (n, 2))
        saved = solve_sde(MIXTURE.velocity, x0, keys(n), spec=spec, save_at=times).trajectory
        at = jnp.array(times)
        return saved, jax.vmap(MIXTURE.mean)(at), jax.vmap(MIXTURE.cov)(at)

    # Beside the Monte-Carlo error, that of the steps: of order h, except for the methods that go
    # back, whose own test above shows it to be smaller.
    allowed = (0.6 if method in ("euler_maruyama", "refresh") else 0.15) / steps
    for t, x, mean, cov in zip(times, *map(np.asarray, run()), strict=True):
        apart = x - mean
        products = apart[:, :, None] * apart[:, None]
        for values, expected in ((apart, 0.0), (products, cov)):
            error = 4 * values.std(axis=0) / np.sqrt(n) + allowed * max(1, np.abs(expected).max())
            assert np.all(np.abs(values.mean(axis=0) - expected) < error), t


@pytest.mark.parametrize("method", mostly_slow(DRIFT[1]))
def test_without_diffusion_it_is_the_ode_exactly(method):
    spec, h = sde_spec(method, 5, scale=0.0), 0.2
    x1 = jax.jit(lambda x, k: solve_sde(waves, x, k, spec=spec).x1)(START, keys(6))
    expected = START
    for t in np.arange(5)[:, None] * h:
        u = waves(expected, t, None)
        if spec.ode.solver == "heun":
            u = (u + waves(expected + h * u, t + h, None)) / 2
        expected = expected + h * u
    np.testing.assert_allclose(x1, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["stochastic_heun", pytest.param("churn", marks=SLOW)])
def test_an_example_depends_on_its_key_and_not_on_its_neighbours(method):
    program = jax.jit(lambda x, k: solve_sde(waves, x, k, spec=sde_spec(method, 4)).x1)

    def run(x0, k):
        return np.asarray(program(x0, k))

    k, others = keys(6), np.array([3, 4, 0, 0, 1, 1])  # two examples elsewhere, among others
    together = run(START, k)
    moved = run(START[others], k[others])
    np.testing.assert_allclose(moved[:2], together[3:5], rtol=1e-5, atol=1e-5)
    turned = run(START, k[np.array([5, 0, 1, 2, 3, 4])])
    assert np.all(np.abs(turned - together).max(axis=1) > 1e-3)
    same = run(np.broadcast_to(START[:1], (6, 2)), k)
    assert len(np.unique(same[:, 0])) == 6


@pytest.mark.parametrize("method", ["euler_maruyama", pytest.param("overshoot", marks=SLOW)])
def test_the_last_step_is_one_of_the_guided_ode(method):
    guided = classifier_free(waves, null_labels=2)
    x0, scales = START[:4], np.array([1.0, 2.0, 0.0, 3.0], np.float32)
    spec = sde_spec(method, 1, base=None if method in DRIFT else "euler")

    @jax.jit
    def both(x0, keys, conditions):
        x1 = solve_sde(guided, x0, keys, conditions, spec, t0=0.6, t1=0.9).x1
        return x1, guided(x0, jnp.full(4, 0.6), conditions)

    x1, u = (np.asarray(a) for a in both(x0, keys(4), Guided(np.array([0, 1, 0, 1]), scales)))
    np.testing.assert_allclose(x1, x0 + 0.3 * u, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_guided_velocity_takes_its_conditions_through_every_step():
    guided = classifier_free(waves, null_labels=2)
    x0, labels, w = START[:4], np.array([0, 1, 0, 1]), np.array([1, 2, 0, 3], np.float32)

    def by_hand(x, t, labels):
        scale = w[:, None]
        return (1 - scale) * waves(x, t, 0 * labels + 2) + scale * waves(x, t, labels)

    @jax.jit
    def both(x0, keys):
        spec = sde_spec("euler_maruyama", 4)
        ours = solve_sde(guided, x0, keys, Guided(labels, w), spec)
        return ours.x1, solve_sde(by_hand, x0, keys, labels, spec).x1

    np.testing.assert_allclose(*both(x0, keys(4)), atol=1e-4)


def counted(calls, field):
    def wrapped(x, t, labels):
        zero = jax.pure_callback(
            lambda _: calls.append(1) or np.zeros((), np.float32),
            jax.ShapeDtypeStruct((), jnp.float32),
            x.ravel()[0],
        )
        return field(x, t, labels) + zero

    return wrapped


@pytest.mark.parametrize(
    ("method", "score", "each"),
    [
        pytest.param("churn", None, 2, marks=SLOW),
        pytest.param("refresh", None, 2, marks=SLOW),
        pytest.param("euler_maruyama", None, 1, marks=SLOW),
        (DRIFT[1], 1, 4),
    ],
)
def test_the_evaluations_reported_are_the_calls_made(method, score, each):
    calls = []
    velocity = counted(calls, lambda x, t, labels: -x)
    score = score and velocity
    spec = sde_spec(method, 6)
    run = jax.jit(lambda x, k: solve_sde(velocity, x, k, spec=spec, score=score))
    solution = jax.block_until_ready(run(np.zeros(1, np.float32), keys(1)))
    assert solution.nfe.tolist() == [len(calls)] == [6 * each]
    assert solution.accepted.tolist() == [6]
    assert solution.t_end.tolist() == [1.0]


@pytest.mark.slow
def test_the_score_that_follows_is_the_score_handed_in():
    x0, spec = START[:, 0], sde_spec(steps=10)

    def end(score, x0, keys):
        return solve_sde(GAUSSIAN.velocity, x0, keys, spec=spec, score=score).x1

    derived = end(None, x0, keys(6))  # outside of jit, as it may be called too
    given = jax.jit(functools.partial(end, GAUSSIAN.score))(x0, keys(6))
    np.testing.assert_allclose(derived, given, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_brownian_bridge_with_its_score_keeps_its_marginals():
    """Between independent Gaussians N(0, 1) and N(m, s^2), x_t and u_t are jointly Gaussian."""
    path, m, s = BrownianBridge(0.8), 1.5, 0.5

    def variance(t):
        return t**2 * s**2 + (1 - t) ** 2 + path.std(t) ** 2

    def velocity(x, t, labels):
        slope = t * s**2 - (1 - t) + path.std(t) * path.d_std(t)
        return m + slope / variance(t) * (x - t * m)

    def score(x, t, labels):
        return -(x - t * m) / variance(t)

    # Nearer to t = 1 the bridge has a layer that wants smaller steps.
    spec = sde_spec(steps=64, path=path, diffusion="constant", scale=0.8**2)
    mean, found = moments(spec, velocity, score=score, t1=0.9)
    np.testing.assert_allclose(mean, 0.9 * m, atol=2e-3)
    np.testing.assert_allclose(found, variance(0.9), rtol=0.01)


@pytest.mark.slow
def test_times_to_save_become_nodes():
    spec, times = sde_spec("refresh", 4), (0.1, 0.5, 1.0)
    run = jax.jit(lambda x, k: solve_sde(waves, x, k, spec=spec, save_at=times))
    solution = run(np.zeros((3, 2), np.float32), keys(3))
    assert solution.trajectory.shape == (3, 3, 2)
    np.testing.assert_array_equal(solution.trajectory[-1], solution.x1)
    assert solution.accepted.tolist() == [5] * 3  # 0.1 is new, 0.5 and 1 are there
    assert solution.nfe.tolist() == [10] * 3


def test_a_time_to_save_that_is_a_node_but_for_rounding_becomes_no_node_of_its_own():
    times = np.linspace(0, 1, 1001)
    near = np.array([0.25 + 0.9e-5, 0.5, 0.75 - 0.9e-5])
    nodes, saved = with_nodes(times, near)
    np.testing.assert_array_equal(nodes, times)
    np.testing.assert_array_equal(saved, times[[250, 500, 750]])
    nodes, saved = with_nodes(times, near + 2e-5)
    assert len(nodes) == 1004
    np.testing.assert_array_equal(saved, near + 2e-5)


@pytest.mark.slow
def test_another_key_compiles_nothing_and_the_result_differentiates(count_compilations):
    spec, x0 = sde_spec("stochastic_heun", 4), np.ones((3, 2), np.float32)

    def loss(x, k):
        return jnp.sum(solve_sde(waves, x, k, spec=spec).x1)

    gradient = jax.jit(jax.grad(loss))
    first, second = keys(3), keys(3, 1)
    found = gradient(x0, first)
    with count_compilations() as compiled:
        other = gradient(x0, second)
    assert compiled.count == 0, compiled.names
    found, other = np.asarray(found), np.asarray(other)
    assert np.all(np.isfinite(found))
    assert np.abs(other - found).max() > 1e-4
    assert hash(spec) == hash(sde_spec("stochastic_heun", 4))


def test_a_velocity_that_is_not_finite_is_reported():
    def velocity(x, t, labels):
        return jnp.where((t > 0.4) & (labels == 1), jnp.nan, 1.0)[:, None] * jnp.ones_like(x)

    spec = sde_spec("euler_maruyama", 4)
    run = jax.jit(lambda x, k, labels: solve_sde(velocity, x, k, labels, spec))
    solution = run(np.zeros((3, 1), np.float32), keys(3), np.array([0, 1, 0]))
    assert solution.success.tolist() == [True, False, True]
    np.testing.assert_array_equal(np.isnan(solution.x1[:, 0]), [False, True, False])
    np.testing.assert_allclose(solution.t_end, [1.0, 0.5, 1.0])


@pytest.mark.parametrize("diffusion", DIFFUSIONS)
def test_the_scale_multiplies_the_square_and_the_ends_are_finite(diffusion):
    of_scale = [diffusion_coefficient(diffusion, scale, AffinePath()) for scale in (1.0, 4.0)]
    once, four = jax.jit(lambda t: [f(t) for f in of_scale])(np.linspace(0, 1, 5, dtype="f4"))
    once, four = np.asarray(once), np.asarray(four)
    np.testing.assert_allclose(four, 2 * once, rtol=1e-6)
    assert np.all(np.isfinite(once) & (once > -1e-6))
    squares = {"constant": 1.0, "sigma": 1.0, "sigma_squared": 0.5, "zero_ends": 1.0}
    np.testing.assert_allclose(once[2] ** 2, squares[diffusion], rtol=1e-6)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"method": "chrun"}, "Did you mean 'churn'"),
        ({"diffusion": "sigm"}, "Did you mean 'sigma'"),
        ({"scale": -1.0}, r"must lie in \[0, inf\)"),
        ({"scale": float("nan")}, r"must lie in \[0, inf\)"),
        ({"steps": 0}, "at least 1"),
        ({"control": "sample"}, "fixed steps"),
        ({"rtol": 1e-3}, "fixed steps"),
        ({"base": "heun"}, "its own solver"),
        ({"method": "churn", "base": "tsit5"}, "Known: euler, heun"),
        ({"path": Linear()}, "AffinePath"),
        ({"path": NoisyStraight(0.1), "method": "churn", "diffusion": "constant"}, "goes back"),
        ({"path": BrownianBridge()}, "has no sigma_t"),
    ],
)
def test_a_wrong_specification_is_refused(ask, message):
    with pytest.raises(InputError, match=message):
        sde_spec(**ask)


def test_a_description_says_what_the_noise_is_and_goes_into_json():
    spec = sde_spec("churn", 4, diffusion="constant", scale=0.5)
    assert json.loads(json.dumps(spec.describe())) == {
        "method": "churn",
        "diffusion": "constant",
        "scale": 0.5,
        "denoise_last": True,
        "solver": "heun",
        "control": "fixed",
        "steps": 4,
        "grid": "UniformGrid()",
    }


def test_a_solver_with_noise_knows_its_nodes_and_takes_the_path_of_the_flow():
    spec = sde_spec("churn", 4)
    np.testing.assert_array_equal(spec.nodes(), np.linspace(0, 1, 5))
    assert spec.evaluation_times() is None
    path = AffinePath(VP())
    assert spec.on_path(path) == sde_spec("churn", 4, path=path)
    with pytest.raises(InputError, match=r"needs the score, .* BrownianBridge"):
        spec.on_path(BrownianBridge())


BRIDGE = sde_spec(path=BrownianBridge(), diffusion="constant")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"keys": keys(3)}, "one random key per example"),
        ({"keys": jax.random.key(0)}, "one random key per example"),
        ({"keys": jnp.zeros((2, 2), jnp.uint32)}, r"got shape \(2, 2\) of uint32"),
        ({"keys": np.arange(2)}, r"got shape \(2,\) of int64"),
        ({"keys": [0, 1]}, "got list"),
        ({"spec": solver_spec("tsit5", rtol=1e-3)}, r"tsit5 has none: write solve\("),
        ({"x0": {"a": jnp.zeros((2, 2))}}, r"one array \(batch, ...\) as its state; got dict"),
        ({"spec": BRIDGE}, "does not follow"),
        ({"spec": sde_spec("churn"), "score": GAUSSIAN.score}, "uses no score"),
        ({"t0": 1.0, "t1": 0.0}, "runs backwards"),
        ({"t1": float("nan")}, "two different finite times"),
        ({"save_at": [0.5, 2.0]}, "save_at"),
    ],
)
def test_a_wrong_call_is_refused(how, message):
    arguments = {"velocity": MIXTURE.velocity, "x0": jnp.zeros((2, 2)), "keys": keys(2)} | how
    with pytest.raises(InputError, match=message):
        solve_sde(**arguments)


@pytest.mark.slow
def test_only_the_true_score_keeps_the_spread_of_a_flow_whose_noise_is_coupled_with_the_data():
    # x1 = 1 + 0.3 x0: x_t is normal, with mean t and this standard deviation.
    def std(t):
        return (1 - t + 0.3 * t)[:, None]

    def velocity(x, t, labels):
        return 1 - 0.7 * (x - t[:, None]) / std(t)

    def score(x, t, labels):
        return -(x - t[:, None]) / std(t) ** 2

    x0 = np.random.default_rng(0).normal(size=(20000, 1)).astype("float32")
    spec = sde_spec("stochastic_heun", 50)

    @jax.jit
    def both(x0):
        run = functools.partial(solve_sde, velocity, x0, keys(len(x0)), None, spec)
        return run().x1, run(score=score).x1

    of_velocity, of_score = (float(np.std(x1)) for x1 in both(x0))
    # The standard error of a standard deviation is 0.3 / sqrt(2 n) = 0.0015.
    assert of_score == pytest.approx(0.3, abs=0.008)
    assert of_velocity == pytest.approx(0.19, abs=0.01)
