"""The numbers of the packages flow-matching and torchcfm, from golden/make_peers.py, and ours.

Compared at 1e-12 in float64 and 1e-6 in float32 (relative to the largest number of each array),
without torch; where the packages are installed, the golden file is held to them. What peers get
wrong has a test that says so and holds the closed form.
"""

import itertools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.couplings.entropic import log_plan
from fmjax.metrics.transport import wasserstein
from fmjax.numerics.host_assignment import least_cost_columns
from fmjax.paths import AffinePath, BrownianBridge, NoisyStraight
from fmjax.predictions import change_path, convert, error_ratio
from fmjax.schedules import VP, Cosine, Linear, LinearVP, Polynomial, inverse_log_snr

GOLDEN = Path(__file__).resolve().parent / "golden"
PEERS = dict(np.load(GOLDEN / "peers.npz"))
MAKE = runpy.run_path(str(GOLDEN / "make_peers.py"))
SCHEDULES = {
    "condot": Linear(),
    "polynomial2": Polynomial(2),
    "polynomial3": Polynomial(3),
    "vp": VP(0.1, 20.0),
    "linear_vp": LinearVP(),
    "cosine": Cosine(),
}
TOLERANCES = {"float64": 1e-12, "float32": 1e-6}
both_precisions = pytest.mark.parametrize("dtype", TOLERANCES)


def given(dtype, *names):
    return [jnp.asarray(PEERS[name], dtype) for name in names]


def agree(ours, name, dtype, factor=1.0):
    theirs = PEERS[name]
    assert ours.dtype == dtype
    error = np.abs(np.asarray(ours, np.float64) - theirs) / max(1.0, np.abs(theirs).max())
    assert np.all(error <= factor * TOLERANCES[dtype]), (name, error.max())


@both_precisions
def test_schedules(dtype):
    @jax.jit
    def everything(t, snr):
        out = {}
        for name, schedule in SCHEDULES.items():
            for key in ("alpha", "sigma", "d_alpha", "d_sigma"):
                out[f"{name}/{key}_t"] = getattr(schedule, key)(t)
            # Their signal-to-noise ratio is alpha / sigma, ours the log of its square.
            out[f"{name}/snr_inverse"] = inverse_log_snr(schedule, 2 * jnp.log(snr))
        return out

    with jax.enable_x64(True):
        for key, ours in everything(*given(dtype, "t", "snr")).items():
            agree(ours, key, dtype)


CONVERSIONS = list(itertools.permutations(("velocity", "x0", "x1"), 2))


@pytest.mark.slow
@both_precisions
def test_paths_and_conversions(dtype):
    # Outside jit: six conversions of each schedule are the same few operations again and again.
    with jax.enable_x64(True):
        x0, x1, t = given(dtype, "x0", "x1", "t")
        for (name, schedule), (source, target) in itertools.product(SCHEDULES.items(), CONVERSIONS):
            x_t, u_t = AffinePath(schedule).sample(x0, x1, t)
            agree(x_t, f"{name}/x_t", dtype)
            agree(u_t, f"{name}/dx_t", dtype)
            prediction, how = x0 if source == "x0" else x1, {"source": source, "target": target}
            ours = convert(prediction, x_t, t, schedule, **how)
            # (x_t - sigma x0) / alpha at alpha = t^3 multiplies the rounding of x0 by 40,000.
            lost = np.maximum(1, np.abs(error_ratio(t[:, None], schedule, **how)))
            factor = 4 if dtype == "float64" else 4 * lost
            agree(ours, f"{name}/{source}_to_{target}", dtype, factor)


@both_precisions
def test_a_change_of_path_after_training(dtype):
    def velocity(x, t, labels):
        return jnp.sin(x) + t[:, None]

    @jax.jit
    def everything(x, t):
        return {
            f"{a}_to_{b}": change_path(velocity, SCHEDULES[a], SCHEDULES[b])(x, t, None)
            for a, b in MAKE["TRANSFORMS"]
        }

    with jax.enable_x64(True):
        for key, ours in everything(*given(dtype, "x0", "t")).items():
            agree(ours, key, dtype, factor=10)


@both_precisions
def test_paths_of_torchcfm(dtype):
    sigma = MAKE["MATCHERS"]
    with jax.enable_x64(True):
        x0, x1, t, z = given(dtype, "x0", "x1", "t", "noise")
        paths = {
            "independent": (NoisyStraight(sigma["independent"]), {"z": z}),
            "target": (AffinePath(Linear(sigma["target"])), {}),
            "trigonometric": (AffinePath(Cosine()), {}),
        }
        for name, (path, noise) in paths.items():
            x_t, u_t = jax.jit(path.sample)(x0, x1, t, noise)
            agree(x_t, f"{name}/x_t", dtype)
            # Their velocity is a quotient that cancels; ours is the derivative, written out.
            agree(u_t, f"{name}/u_t", dtype, factor=4)


def test_the_bridge_of_torchcfm_is_ours_without_the_softening_of_the_ends():
    sigma = MAKE["MATCHERS"]["bridge"]
    with jax.enable_x64(True):
        x0, x1, t, z = given("float64", "x0", "x1", "t", "noise")
        bridge = BrownianBridge(sigma, softening=1e-8)
        x_t, u_t = jax.jit(bridge.sample)(x0, x1, t, {"z": z})
        agree(x_t, "bridge/x_t", "float64")
        u_t, x0, x1, t = (np.asarray(a) for a in (u_t, x0, x1, t))
        # They add 1e-8 to the denominators 2 t (1 - t) and sigma^2; so do we, to compare.
        straight, q = x1 - x0, (2 * t * (1 - t))[:, None]
        agree(straight + (u_t - straight) * q / (q + 1e-8), "bridge/u_t", "float64", factor=10)
        weight = 2 * bridge.score_weight(t) / (sigma**2 + 1e-8)
        agree(weight, "bridge/lambda", "float64", factor=10)


def test_the_bridge_of_torchcfm_has_spikes_and_ours_has_not():
    # |u_t - (x1 - x0)| = sigma |1 - 2 t| |z| / (2 sqrt(t (1 - t))), which is infinite at the ends.
    sigma, t = 1.0, 1e-7
    theirs = sigma * (1 - 2 * t) / (2 * np.sqrt(t * (1 - t)))
    assert theirs > 1.5e3
    times = np.linspace(0, 1, 100_001, dtype=np.float32)
    assert np.abs(np.asarray(jax.jit(BrownianBridge(sigma).d_std)(times))).max() <= 50 * sigma


def test_the_peers_derivative_at_the_data_is_infinite_and_ours_is_not():
    # d sigma of flow-matching's VP and LinearVP is -t / sqrt(1 - t^2) and its like: -inf at t = 1.
    with np.errstate(divide="ignore"):
        assert np.isneginf(-1.0 / np.sqrt(np.zeros(())))
    for schedule in (VP(), LinearVP()):
        assert np.all(np.isfinite(jax.jit(jax.value_and_grad(schedule.d_sigma))(1.0)))


@pytest.mark.slow
def test_plans_and_distances():
    x0, x1 = PEERS["x0"], PEERS["x1"]
    theirs = PEERS["plan/exact"]
    cost = ((x0[:, None] - x1[None]) ** 2).sum(axis=-1)
    ours = least_cost_columns(cost)
    np.testing.assert_allclose(
        cost[np.arange(len(x0)), ours].mean(), (theirs * cost).sum(), rtol=1e-12
    )
    with jax.enable_x64(True):
        plan = jnp.exp(
            log_plan(
                jnp.asarray(cost), MAKE["REGULARISATION"], threshold=1e-13, max_iterations=10**4
            )
        )
        # POT stops when the marginals miss by 1e-9.
        np.testing.assert_allclose(plan, PEERS["plan/sinkhorn"], atol=1e-9)
    for power in (1, 2):
        np.testing.assert_allclose(
            wasserstein(x0, x1, p=power), PEERS[f"wasserstein/{power}"], rtol=1e-12
        )


def test_their_draw_from_the_plan_loses_targets_and_ours_keeps_all():
    """With replacement, a target of n is never drawn with probability (1 - 1/n)^n, about 0.37."""
    n, rng = 256, np.random.default_rng(0)
    x0, x1 = rng.normal(size=(2, n, 2))
    drawn = rng.choice(n, size=n)  # the rows of a permutation plan, as torchcfm draws them
    assert 0.55 < len(np.unique(drawn)) / n < 0.7
    cost = ((x0[:, None] - x1[None]) ** 2).sum(axis=-1)
    np.testing.assert_array_equal(np.sort(least_cost_columns(cost)), np.arange(n))


def test_the_golden_file_is_what_the_installed_packages_compute():
    pytest.importorskip("flow_matching")
    pytest.importorskip("torchcfm")
    computed = MAKE["arrays"]()
    assert computed.keys() == PEERS.keys() - {"versions"}
    for name, value in computed.items():
        np.testing.assert_allclose(value, PEERS[name], rtol=1e-12, atol=1e-14, err_msg=name)
