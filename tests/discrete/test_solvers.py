"""Solvers of tokens against exact laws: chi-square on every marginal, order, keys, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fmjax import InputError, Output, solve, solve_sde, solver_spec
from fmjax.discrete import (
    Corrector,
    MixturePath,
    Purity,
    TauLeap,
    Unmask,
    exact_probabilities,
    predictor_free,
)
from fmjax.discrete.solvers import sharpen
from fmjax.guidance import Guided
from fmjax.likelihood import check_path
from fmjax.paths import AffinePath
from fmjax.samplers import Solver, sde_spec
from tests.conftest import nightly_but
from tests.discrete.small import LAW, OTHER, PATHS, V, counts, marginal, network, states

N = 50_000
MASK = PATHS["mask"]
TIMES = (0.25, 0.6, 1.0)


def sample(solver, n=N, seed=0, laws=(LAW,), labels=None, denoiser=None, **ends):
    """n samples from an exact posterior, in one compiled program."""
    path = solver.path

    @jax.jit
    def run(key):
        x0 = path.source.sample(key, jnp.arange(n), (2,))
        keys = jax.random.split(jax.random.fold_in(key, 1), n)
        exact = network(path, laws) if denoiser is None else denoiser
        return solve_sde(exact, x0, keys, labels, solver, **ends)

    return run(jax.random.key(seed))


def check_law(path, x, expected):
    """Chi-square of pairs of states; those with fewer than 5 expected are put together."""
    found, expected = counts(path, x), np.asarray(expected, np.float64) * len(x)
    rare = expected < 5
    groups = [(found[~rare], expected[~rare])]
    if rare.any():
        groups.append(([found[rare].sum()], [expected[rare].sum() + 1e-9]))
    found, expected = (np.concatenate(part) for part in zip(*groups, strict=True))
    keep = expected > 1e-6
    assert found[~keep].sum() == 0
    found, expected = found[keep], expected[keep]
    if len(found) == 1:
        return
    p = stats.chisquare(found, expected / expected.sum() * found.sum()).pvalue
    assert p > 1e-3, (p, found, expected)


CASES = {
    "unmask, mask": Unmask(MASK, 200),
    "unmask, cosine kappa and grid": Unmask(PATHS["mask, cosine"], 200, "cosine"),
    "unmask, uniform": Unmask(PATHS["uniform"], 400),
    "unmask, any p0": Unmask(PATHS["any p0, cubic"], 400),
    "unmask with a corrector, mask": Unmask(MASK, 200, corrector=Corrector(2.0)),
    "unmask with a corrector, uniform": Unmask(PATHS["uniform"], 400, corrector=Corrector(2.0)),
    "leap, mask": TauLeap(MASK, 400),
    "leap, uniform": TauLeap(PATHS["uniform, squared"], 600),
    "leap, metric": TauLeap(PATHS["metric"], 600),
    "leap with a corrector, metric": TauLeap(PATHS["metric"], 600, corrector=Corrector(2.0)),
    "leap, own": TauLeap(PATHS["own"], 1500),
}


def check_marginals(solver, n):
    solution = sample(solver, n, save_at=TIMES)
    assert np.all(solution.success)
    for t, x in zip(TIMES, solution.trajectory, strict=True):
        check_law(solver.path, x, marginal(solver.path, t))
    np.testing.assert_array_equal(solution.trajectory[-1], solution.x1)
    assert solution.x1.dtype == jnp.int32


@pytest.mark.nightly
@pytest.mark.parametrize("solver", CASES.values(), ids=CASES)
def test_the_marginals_are_exact_at_every_time(solver):
    check_marginals(solver, N)


@pytest.mark.day_cases(3)
@pytest.mark.slow
@pytest.mark.parametrize("solver", CASES.values(), ids=CASES)
def test_the_marginals_of_fewer_samples(solver):
    """The errors of as many steps are below the noise of these samples."""
    check_marginals(dataclasses.replace(solver, steps=solver.steps // 2), 4000)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("randomness", [0.0, 1.0])
def test_purity_ends_at_the_law_of_the_data_and_keeps_the_number_of_masks(randomness):
    n = 10_000
    solver = Purity(MASK, 200, randomness=randomness)
    solution = sample(solver, n, save_at=TIMES)
    check_law(MASK, solution.x1, marginal(MASK, 1.0))
    for t, x in zip(TIMES, solution.trajectory, strict=True):
        found = np.bincount(np.sum(np.asarray(x) == V, axis=1), minlength=3)
        expected = n * stats.binom.pmf(range(3), 2, 1 - t)
        if t < 1:
            assert stats.chisquare(found, expected).pvalue > 1e-3


@pytest.mark.slow
def test_purity_unmasks_the_surest_first():
    def sure_of_the_last(x, t, labels):
        # The surer the later the place.
        scale = jnp.arange(8.0).reshape(1, 8, 1)
        return jnp.broadcast_to(scale * jax.nn.one_hot(0, 5).reshape(1, 1, 5), (*x.shape, 5))

    path = MixturePath(5)
    keys = jax.random.split(jax.random.key(0), 100)
    x0 = jnp.full((100, 8), 5)
    x = np.asarray(solve_sde(sure_of_the_last, x0, keys, None, Purity(path, 16), t1=0.5).x1)
    known = x != 5
    assert np.all(np.diff(known.astype(int), axis=1) >= 0)
    x = np.asarray(
        solve_sde(sure_of_the_last, x0, keys, None, Purity(path, 16, randomness=50.0), t1=0.5).x1
    )
    assert np.any(np.diff((x != 5).astype(int), axis=1) < 0)


def distance(solver, n=200_000):
    found = counts(solver.path, sample(solver, n).x1) / n
    return 0.5 * np.abs(found - marginal(solver.path, 1.0)).sum()


ORDERS = {
    "unmask, mask": Unmask(MASK),
    "unmask, uniform": Unmask(PATHS["uniform"]),
    "leap, mask": TauLeap(MASK),
    "leap, uniform": TauLeap(PATHS["uniform"]),
    "leap, metric": TauLeap(PATHS["metric"]),
}


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", nightly_but(ORDERS, "unmask, uniform", "leap, mask"))
def test_the_distance_to_the_law_of_the_data_falls_as_the_step(name):
    solver = ORDERS[name]
    # The rates of the metric path change fastest, so that its steps must be smaller.
    steps = (8, 16, 32) if solver.path is PATHS["metric"] else (4, 8, 16)
    errors = [distance(dataclasses.replace(solver, steps=n)) for n in steps]
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert 0.75 < order < 1.5, errors


@pytest.mark.slow
def test_one_unmasking_step_draws_every_token_from_its_own_law():
    x = sample(Unmask(MASK, 1)).x1
    law = np.asarray(marginal(MASK, 1.0)).reshape(V + 1, V + 1)
    independent = law.sum(1)[:, None] * law.sum(0)[None]
    check_law(MASK, x, independent.ravel())


@pytest.mark.slow
def test_a_law_of_independent_tokens_is_exact_in_a_few_steps_with_masks():
    law = np.outer([0.2, 0.3, 0.5], [0.6, 0.3, 0.1]).ravel()
    for steps, t in ((1, 1.0), (3, 1.0), (3, 0.4)):
        x = sample(Unmask(MASK, steps), laws=(law,), t1=t).x1
        check_law(MASK, x, marginal(MASK, t, law))


@pytest.mark.slow
def test_a_solve_from_the_middle_goes_on():
    path = PATHS["uniform"]
    half = sample(Unmask(path, 100), 10_000, t1=0.5).x1
    keys = jax.random.split(jax.random.key(9), 10_000)
    exact = network(path)
    end = jax.jit(lambda x: solve_sde(exact, x, keys, None, Unmask(path, 100), t0=0.5).x1)(half)
    check_law(path, end, marginal(path, 1.0))


@pytest.mark.nightly
def test_a_large_corrector_forgets_where_it_started():
    n = 10_000
    x0 = jnp.tile(jnp.array([[2, 0]]), (n, 1))  # a pair that need not be likely, all known
    keys = jax.random.split(jax.random.key(2), n)
    exact = network(MASK)
    solver = Unmask(MASK, 300, corrector=Corrector(50.0))
    x = jax.jit(lambda x: solve_sde(exact, x, keys, None, solver, t0=0.3).x1)(x0)
    check_law(MASK, x, marginal(MASK, 1.0))


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("scale", nightly_but([0.0, 1.0, 2.5], 2.5))
@pytest.mark.parametrize("name", ["mask", "uniform"])
def test_guided_rates_are_the_product_of_powers(name, scale):
    """Against the marginals of the guided chain, integrated exactly on all pairs of states."""
    check_guided(name, scale, guided_law)


@pytest.mark.nightly
@pytest.mark.parametrize("scale", [0.0, 1.0, 1.5])
def test_guided_rates_of_a_metric_path_too(scale):
    """Its rates are stiff, so that the law is that of matrix exponentials."""

    def law(path, w, end):
        guided = predictor_free(network(path, (LAW, OTHER)), 1)
        labels = Guided(jnp.zeros(1, int), w)
        with jax.enable_x64(True):
            return exact_probabilities(guided, path, 2, labels, t=end, steps=400).ravel()

    check_guided("metric", scale, law)


def check_guided(name, scale, law):
    path = PATHS[name]
    n = 5000
    solver = TauLeap(path, 500)
    exact = network(path, (LAW, OTHER))
    guided = predictor_free(exact, 1)
    labels = Guided(jnp.zeros(n, int), scale)
    x = sample(solver, n, labels=labels, denoiser=guided, t1=0.8).x1
    check_law(path, x, law(path, scale, 0.8))


def guided_law(path, w, end, steps=500):
    """p_t of the guided rates, by the midpoint method on all pairs of states, in float64."""
    with jax.enable_x64(True):
        x = jnp.asarray(states(path))
        exact = network(path, (LAW, OTHER))
        n, S = len(x), path.states
        label = jnp.zeros(n, int)
        p0 = np.append(path.source.probabilities(), 1.0) if S > V else path.source.probabilities()
        p = jnp.asarray(np.outer(p0, p0).ravel())
        places = jnp.asarray([S, 1])

        def change(p, t):
            rates = []
            for which in (0, 1):
                times = jnp.full(n, t)
                log_p = path.log_posterior(exact(x, times, label + which), x, times)
                rates.append(path.marginal_rates(log_p, x, jnp.full(x.shape, t)))
            given, without = rates
            both = (given > 0) & (without > 0)
            rate = jnp.where(both, given**w * jnp.where(both, without, 1.0) ** (1 - w), 0.0)
            rate = jnp.where((w == 1) & ~both, given, jnp.where((w == 0) & ~both, without, rate))
            flow = jnp.zeros(n)
            for i in (0, 1):
                for y in range(S):
                    to = jnp.arange(n) + (y - x[:, i]) * places[i]
                    moved = p * rate[:, i, y]
                    flow = flow.at[to].add(moved) - moved
            return flow

        def step(p, t):
            h = end / steps
            middle = p + 0.5 * h * change(p, t + 1e-9)
            return p + h * change(middle, t + 0.5 * h), None

        p, _ = jax.jit(lambda p: jax.lax.scan(step, p, jnp.arange(steps) * (end / steps)))(p)
        return np.asarray(p)


@pytest.mark.slow
def test_scales_of_each_example_and_negatives_go_in_one_call():
    exact = network(MASK, (LAW, OTHER))
    calls = []

    def counted(x, t, labels):
        calls.append(1)
        return exact(x, t, labels)

    guided = predictor_free(counted, 1)
    x0, keys = jnp.full((6, 2), V), jax.random.split(jax.random.key(0), 6)
    w = jnp.array([0.0, 1.0, 1.5, 2.0, 3.0, 0.5])
    run = jax.jit(lambda w: solve_sde(guided, x0, keys, Guided(0, w), Unmask(MASK, 8)).x1)
    first = run(w)
    assert len(calls) == 1  # traced once, for both branches and all steps
    unguided = solve_sde(exact, x0, keys, jnp.array([1, 0, 0, 0, 0, 0]), Unmask(MASK, 8)).x1
    np.testing.assert_array_equal(first[:2], unguided[:2])
    one = run(jnp.full(6, 2.0))
    np.testing.assert_array_equal(one[3], first[3])
    negative = Guided(jnp.zeros(6, int), 2.0, negative=jnp.ones(6, int))
    x = solve_sde(predictor_free(exact, 0), x0, keys, negative, Unmask(MASK, 8)).x1
    np.testing.assert_array_equal(x[3], first[3])


@pytest.mark.slow
def test_outside_of_its_interval_guidance_is_the_condition():
    exact = network(MASK, (LAW, OTHER))
    x0, keys = jnp.full((64, 2), V), jax.random.split(jax.random.key(0), 64)
    labels = jnp.zeros(64, int)
    plain = solve_sde(exact, x0, keys, labels, Unmask(MASK, 8)).x1

    def run(interval, w=4.0):
        guided = predictor_free(exact, 1, interval=interval)
        return solve_sde(guided, x0, keys, Guided(labels, w), Unmask(MASK, 8)).x1

    assert np.any(run(None) != plain)
    np.testing.assert_array_equal(run((0.9, 1.0)), plain)  # the last step starts at 7 / 8
    np.testing.assert_array_equal(run((0.0, 1.0)), run(None))
    assert np.any(run((0.0, 0.3)) != run(None))


@pytest.mark.slow
def test_an_example_depends_on_its_own_key_alone():
    exact = network(PATHS["uniform"])
    for solver in (
        Unmask(PATHS["uniform"], 8),
        TauLeap(PATHS["uniform"], 8, corrector=Corrector()),
    ):
        x0 = solver.path.source.sample(jax.random.key(0), jnp.arange(9), (2,))
        keys = jax.random.split(jax.random.key(1), 9)
        whole = solve_sde(exact, x0, keys, None, solver).x1
        part = solve_sde(exact, x0[3:5], keys[3:5], None, solver).x1
        np.testing.assert_array_equal(whole[3:5], part)


@pytest.mark.slow
def test_results_do_not_depend_on_the_devices(run_python):
    code = """
        import jax, jax.numpy as jnp
        from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
        from fmjax import solve_sde
        from fmjax.discrete import Corrector, MixturePath, Unmask
        path = MixturePath(5)
        x0, keys = jnp.full((8, 6), 5), jax.random.split(jax.random.key(0), 8)
        mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
        rows = NamedSharding(mesh, P("data"))
        net = lambda x, t, labels: jnp.sin(jnp.arange(5.0).reshape(1, 1, 5) * (1.0 + x[..., None]))
        solver = Unmask(path, 7, corrector=Corrector())
        run = jax.jit(lambda x, k: solve_sde(net, x, k, None, solver).x1)
        print(run(jax.device_put(x0, rows), jax.device_put(keys, rows)).tolist())
    """
    assert run_python(code, devices=1) == run_python(code, devices=4)


@pytest.mark.slow
def test_evaluations_are_counted_and_a_second_call_compiles_nothing(count_compilations):
    calls = []

    def counted(x, t, labels):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.zeros((*x.shape, V))

    x0, keys = jnp.full((4, 2), V), jax.random.split(jax.random.key(0), 4)
    solution = solve_sde(counted, x0, keys, None, Unmask(MASK, 5), save_at=[0.1, 0.4, 1.0])
    jax.block_until_ready(solution)
    jax.effects_barrier()
    assert len(calls) == 6 == solution.nfe[0]  # 0.4 is a node already
    assert Unmask(MASK, 5).evaluation_times()[0] == 0
    assert len(Unmask(MASK, 5).evaluation_times()) == 5

    run = jax.jit(
        lambda x, spec: solve_sde(network(MASK), x, keys, None, spec).x1, static_argnums=1
    )
    run(x0, Unmask(MASK, 5))
    with count_compilations() as compiled:
        run(x0, Unmask(MASK, 5))
    assert compiled.count == 0


def test_a_network_that_is_not_finite_fails_its_example_alone():
    def broken(x, t, labels):
        bad = (jnp.arange(len(x)) == 2) & (t > 0.5)
        return jnp.where(bad[:, None, None], jnp.nan, jnp.zeros((*x.shape, V)))

    x0, keys = jnp.full((4, 40), V), jax.random.split(jax.random.key(0), 4)
    solution = solve_sde(broken, x0, keys, None, Unmask(MASK, 8))
    np.testing.assert_array_equal(solution.success, [True, True, False, True])
    assert np.all(solution.x1[2] == -1)
    assert 0.5 < solution.t_end[2] < 0.7
    assert np.all(solution.x1[jnp.array([0, 1, 3])] >= 0)


@pytest.mark.slow
def test_temperature_and_top_p():
    log_p = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    cold = jax.nn.softmax(sharpen(log_p, 0.5))
    expected = np.array([0.25, 0.09, 0.0225, 0.0025])
    np.testing.assert_allclose(cold, expected / expected.sum(), rtol=1e-5)
    for top_p, kept in ((0.4, 1), (0.5, 1), (0.6, 2), (0.85, 3), (1.0, 4)):
        p = jax.nn.softmax(sharpen(log_p, top_p=top_p))
        assert np.sum(p > 0) == kept
        np.testing.assert_allclose(
            p[:kept], np.exp(log_p[:kept]) / np.exp(log_p[:kept]).sum(), 1e-6
        )
    np.testing.assert_array_equal(sharpen(log_p), log_p)
    frozen = sample(Unmask(MASK, 2, temperature=1e-3), n=64).x1
    assert len(np.unique(np.asarray(frozen), axis=0)) <= 3


def test_an_output_with_logits_is_taken():
    x0, keys = jnp.full((4, 2), V), jax.random.split(jax.random.key(0), 4)
    plain = solve_sde(
        lambda x, t, labels: jnp.zeros((*x.shape, V)), x0, keys, None, Unmask(MASK, 3)
    )
    parts = solve_sde(
        lambda x, t, labels: Output(logits=jnp.zeros((*x.shape, V)), other=t),
        *(x0, keys, None, Unmask(MASK, 3)),
    )
    np.testing.assert_array_equal(plain.x1, parts.x1)


def test_what_it_is_goes_into_json():
    solver = Purity(MASK, 5, "cosine", temperature=0.9, corrector=Corrector(2.0), randomness=0.5)
    assert isinstance(solver, Solver)
    assert solver.describe() == {
        "solver": "purity",
        "steps": 5,
        "grid": "CosineGrid()",
        "temperature": 0.9,
        "top_p": 1.0,
        "corrector": "Corrector(redraws=2.0, a=1.0, b=1.0)",
        "randomness": 0.5,
    }
    assert solver.on_path(PATHS["mask, cosine"]).path == PATHS["mask, cosine"]


X0, KEYS = jnp.full((4, 2), V), jax.random.split(jax.random.key(0), 4)


def net(x, t, labels=None):
    return jnp.zeros((*x.shape, V))


def run(x0=X0, keys=KEYS, labels=None, solver=None, network=net, **ends):
    solver = Unmask(MASK, 2) if solver is None else solver
    return solve_sde(network, x0, keys, labels, solver, **ends)


GUIDED_NET = predictor_free(net, 1)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: run(X0 + 1), "x0 must be tokens from 0 to 3; got 4"),
        (lambda: run(X0 * 1.0), "x0 must be tokens, integers from 0 to 3; got float32"),
        (lambda: run(solver=Unmask(PATHS["uniform"], 2)), "x0 must be tokens from 0 to 2; got 3"),
        (lambda: run(keys=None), "takes one random key per example"),
        (lambda: run(keys=KEYS[:2]), "keys must be one random key per example, (4,)"),
        (lambda: solve(net, X0, None, Unmask(MASK, 2)), "takes one random key per example"),
        (lambda: run(t0=1.0, t1=0.0), "runs from t0 up to a later t1"),
        (lambda: run(t1=1.5), "tokens move from t = 0 to t = 1"),
        (lambda: run(network=lambda x, t, y: x * 1.0), "the network must return floats shaped as"),
        (lambda: run(network="x"), "must be a function"),
        (
            lambda: solve(net, X0, None, solver_spec("euler", 2)),
            "Tokens are sampled by a solver of",
        ),
        (lambda: run(solver=sde_spec(steps=2)), "Tokens are sampled by a solver of"),
        (lambda: solver_spec("euler", 2).on_path(MASK), "take a solver of fmjax.discrete"),
        (lambda: sde_spec(steps=2).on_path(MASK), "take a solver of fmjax.discrete"),
        (lambda: check_path(MASK), "fmjax.discrete.token_log_likelihood"),
        (lambda: Unmask(AffinePath()), "the path must be a path of tokens"),
        (lambda: Unmask(MASK).on_path(AffinePath()), "the path must be a path of tokens"),
        (lambda: Unmask(MixturePath), "the path is the class MixturePath"),
        (lambda: Unmask(PATHS["metric"]), "Unmask steps along a MixturePath"),
        (lambda: Purity(PATHS["uniform"]), "Purity orders the unmasking of masks"),
        (lambda: Purity(MASK, randomness=-1), "the randomness of Purity must lie in"),
        (lambda: Unmask(MASK, 0), "steps must be a whole number of at least 1"),
        (lambda: Unmask(MASK, temperature=0), "the temperature must be a positive number"),
        (lambda: Unmask(MASK, top_p=0), "top_p must lie in (0, 1]"),
        (lambda: Unmask(MASK, corrector=1.0), "the corrector must be an object with apply"),
        (lambda: Corrector(0), "redraws of the corrector must be a positive number"),
        (lambda: Corrector(a=-1), "a of the corrector must lie in"),
        (
            lambda: run(labels=Guided(jnp.zeros(4, int), -0.5), network=GUIDED_NET),
            "w must be at least 0 for tokens",
        ),
        (lambda: run(labels=jnp.zeros(4, int), network=GUIDED_NET), "take Guided(labels, w)"),
        (lambda: predictor_free(net, 1, interval=(0.5, 0.1)), "the guidance interval must be"),
        (lambda: predictor_free(net, 1, schedule="x"), "unknown guidance schedule"),
    ],
)
def test_what_is_wrong_is_said(wrong, sentence):
    with pytest.raises(InputError) as caught:
        wrong()
    assert sentence in str(caught.value), str(caught.value)
