"""The mathematics under the strict modes of jax, which a user may have switched on.

- strict dtype promotion: no operation mixes floats of two widths, or integers and floats;
- `jax_debug_nans`: no NaN is made on the way, not even one that is discarded later;
- `jax_debug_key_reuse`: no random key is used twice;
- x64: float32 inputs stay float32, and float64 ones float64. (What `Draw` draws has jax's default
  width, whatever that of the data.)
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import couplings, losses, schedules, times
from fmjax.conditions import ClassIds
from fmjax.draws import Draw
from fmjax.guidance import Guided, autoguidance, classifier_free
from fmjax.likelihood import Exact, Hutchinson, log_likelihood
from fmjax.manifolds import Euclidean
from fmjax.paths import AffinePath, BrownianBridge, NoisyStraight, sde_drifts
from fmjax.predictions import PREDICTIONS, as_velocity, change_path, convert
from fmjax.samplers import METHODS, SOLVERS, sde_spec, solve, solve_sde, solver_spec

N, D = 6, 2
SCHEDULES = [schedules.Linear(), schedules.Cosine(), schedules.VP(), schedules.LinearVP()]
ENDS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]  # with both ends, where schedules are singular


def key(seed=0):
    """A new key each time: a key may be used once."""
    return jax.random.key(seed)


def points(dtype, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(N, D)), dtype)


def labels():
    return jnp.arange(N) % 3


def velocity(x, t, labels):
    # A lone label is cast: strict promotion asks it of the user's function, not of ours.
    shift = 0 if labels is None else labels.astype(x.dtype)[:, None]
    return jnp.tanh(x) * jnp.cos(t).astype(x.dtype)[:, None] + shift


def network(params, x, t, labels):
    return params["scale"].astype(x.dtype) * velocity(x, t, labels)


def params(dtype):
    return {"scale": jnp.ones((), dtype)}


def paths_and_conversions(dtype):
    x0, x1, t = points(dtype), points(dtype, 1), jnp.asarray(ENDS, dtype)
    found = []
    for schedule in SCHEDULES:
        path = AffinePath(schedule)
        found += jax.tree.leaves(path.sample(x0, x1, t))
        found.append(schedules.log_snr(schedule, t[1:-1]))
        for source in PREDICTIONS:
            found += [convert(x0, x1, t, schedule, source=source, target=p) for p in PREDICTIONS]
            fn = as_velocity(network, schedule, source)
            found.append(fn(params(dtype), x0, t, labels()))
        changed = change_path(velocity, schedules.Linear(), schedule)
        found.append(changed(x0, t, None))
    for schedule in (*SCHEDULES, schedules.Polynomial(2.5)):
        found += [jax.vjp(f, t)[1](t)[0] for f in (schedule.alpha, schedule.sigma)]
    for path in (BrownianBridge(0.1), NoisyStraight(0.1)):
        found += jax.tree.leaves(path.sample(x0, x1, t, {"z": points(dtype, 2)}))
    found += list(sde_drifts(x0, x1, 0.5))
    return found


def losses_and_gradients(dtype):
    x0, x1, t = points(dtype), points(dtype, 1), jnp.asarray(ENDS, dtype)
    found = []
    for schedule in SCHEDULES:
        for prediction in ("velocity", "x1", "v"):
            loss_fn = losses.make_loss_fn(network, AffinePath(schedule), prediction=prediction)
            value, gradient = jax.value_and_grad(loss_fn)(params(dtype), x0, x1, t, labels())
            found += [value, gradient["scale"]]
    return found


def draws(dtype):
    how = [
        {},
        {"coupling": couplings.exact(), "stratify": N},
        {"conditions": ClassIds(3, drop_rate=0.5), "drop_all": 0.2},
        {"time_distribution": times.LogitNormal()},
    ]
    made = [Draw(**each)(key(), jnp.arange(N), points(dtype), labels()) for each in how]
    assert all(args.x0.shape == (N, D) for args in made)
    return [leaf.astype(dtype) for args in made for leaf in (args.x0, args.x1, args.t)]


def every_coupling(dtype):
    x0, x1 = points(dtype), points(dtype, 1)
    found = []
    for coupling in (
        couplings.independent,
        couplings.exact(),
        couplings.sinkhorn(0.1),
        couplings.unbalanced(0.1, 1.0),
        couplings.partial(0.8),
    ):
        found += list(jax.jit(coupling)(key(), x0, x1, None)[:2])
    cost = jnp.sum((x0[:, None] - x1[None]) ** 2, axis=-1)
    found.append(couplings.NearConditions(0.3)(cost, labels()))
    found += list(couplings.chain(key(), (x0, x1[:4], x0), couplings.exact()))
    return found


def guidance(dtype):
    x, t = points(dtype), jnp.asarray(ENDS, dtype)
    guided = classifier_free(velocity, 3)
    weak = autoguidance(velocity, lambda x, t, labels: 0.5 * velocity(x, t, labels))
    found = [guided(x, t, Guided(labels(), 2.0)), weak(x, t, Guided(labels(), 2.0))]
    spec = solver_spec("heun", 3)
    return [*found, solve(guided, x, Guided(labels(), jnp.full(N, 1.5, dtype)), spec).x1]


def ode(solver, dtype):
    x = points(dtype)
    method = SOLVERS[solver]
    spec = solver_spec(solver, 4, manifold=Euclidean(D) if method.geodesic else None)
    start = 0.9 if method.log_snr else 1.0  # where the ratio is not infinite
    found = [solve(velocity, x, None, spec, t0=t0, t1=1 - t0).x1 for t0 in (0.0, start)]
    # The ends of the path, where lambda is infinite, in the gradient too.
    gradient = jax.grad(lambda x: jnp.sum(solve(velocity, x, None, spec).x1))(x)
    return [*found, gradient]


def adaptive(dtype):
    x = points(dtype)
    specs = [solver_spec("tsit5", rtol=1e-2, control=control) for control in ("batch", "sample")]
    return [solve(velocity, x, labels(), spec, save_at=[0.5]).x1 for spec in specs]


def sde(method, dtype):
    keys = jax.random.split(key(), N)
    return [solve_sde(velocity, points(dtype), keys, labels(), sde_spec(method, 4)).x1]


def likelihood(dtype):
    x, spec = points(dtype), solver_spec("heun", 4)
    found = [
        log_likelihood(velocity, x, labels(), spec, trace=Exact()),
        log_likelihood(velocity, x, labels(), spec, trace=Hutchinson(2), key=key()),
    ]
    return jax.tree.leaves(found)


CASES = {
    "paths": paths_and_conversions,
    "losses": losses_and_gradients,
    "draw": draws,
    "couplings": every_coupling,
    "guidance": guidance,
    "adaptive": adaptive,
    "likelihood": likelihood,
    **{solver: functools.partial(ode, solver) for solver in SOLVERS},
    **{method: functools.partial(sde, method) for method in METHODS},
}
MODES = {
    "strict promotion": (lambda: jax.numpy_dtype_promotion("strict"), "float32"),
    "no NaN": (lambda: jax.debug_nans(True), "float32"),
    "no key twice": (lambda: jax.debug_key_reuse(True), "float32"),
    "x64, float32": (lambda: jax.enable_x64(True), "float32"),
    "x64, float64": (lambda: jax.enable_x64(True), "float64"),
}
# The others compile for seconds in each mode.
QUICK = ("losses", "guidance", "stochastic_heun")


@pytest.mark.day_cases(4)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "case"),
    [
        pytest.param(m, c, marks=() if c in QUICK else pytest.mark.nightly)
        for m in MODES
        for c in CASES
    ],
)
def test_the_mathematics_runs_in_the_strict_modes_of_jax(mode, case):
    entered, dtype = MODES[mode]
    with entered():
        for leaf in CASES[case](dtype):
            assert np.all(np.isfinite(leaf))
            if jnp.issubdtype(leaf.dtype, jnp.floating):
                assert leaf.dtype == dtype
