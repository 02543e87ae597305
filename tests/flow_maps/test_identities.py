"""The identities at the closed form of a flow map: they vanish there, and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import Span
from fmjax.errors import InputError
from fmjax.flow_maps import (
    AlphaFlow,
    Consistency,
    DivergenceHead,
    FiniteDifference,
    Lagrangian,
    MeanFlow,
    Semigroup,
    make_flow_map_loss_fn,
)
from fmjax.paths import AffinePath
from tests.flow_maps.gaussian_network import EXACT, FLOWS, network, pairs, spans

N = 64
EVERY = {
    "MeanFlow": MeanFlow(),
    "MeanFlow, its own tangent": MeanFlow(tangent="network"),
    "MeanFlow, normalised": MeanFlow(normalise=0.1),
    "Lagrangian": Lagrangian(),
    "Semigroup": Semigroup(),
    "Semigroup, a third": Semigroup(split=0.3),
    "Semigroup, random": Semigroup(split=None),
    "AlphaFlow, 0": AlphaFlow(0.0),
}
SELF_TAUGHT = [name for name in EVERY if "Lagrangian" in name or "Semigroup" in name]
"""Those that need no velocity but the network's own off the diagonal."""


def setting(identity, flow, taught=True, dtype=np.float32, ordered=True, **options):
    """The loss, and its arguments."""
    divergence = options.get("divergence")
    apply_fn = network(flow, divergence=divergence and divergence.scale)
    loss_fn = make_flow_map_loss_fn(
        apply_fn,
        identity,
        AffinePath(flow.schedule),
        teacher=flow.velocity if taught else None,
        **options,
    )
    noise = {"split": jnp.linspace(0.1, 0.9, N, dtype=dtype)} if "split" in loss_fn.noise else {}
    args = *pairs(N, dtype=dtype), spans(N, ordered=ordered, dtype=dtype), None
    return loss_fn, args, noise


def residual(loss_fn, args, noise, params=EXACT):
    """The root mean square difference of the two sides."""
    return float(jnp.sqrt(jax.jit(loss_fn)(params, *args, noise=noise)))


@pytest.mark.slow
@pytest.mark.parametrize("schedule", FLOWS)
@pytest.mark.parametrize("name", EVERY)
def test_an_identity_vanishes_at_the_closed_form_and_not_beside_it(name, schedule):
    loss_fn, args, noise = setting(EVERY[name], FLOWS[schedule])
    limit = 1e-4 if "normalised" in name else 1e-5  # which divides the error by c = 0.1
    assert residual(loss_fn, args, noise) < limit
    for wrong in ("shift", "stretch", "later", "curve"):
        assert residual(loss_fn, args, noise, EXACT | {wrong: 0.1}) > 1e-3, wrong


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("name", EVERY)
def test_in_float64_it_vanishes_to_1e_9(name):
    with jax.enable_x64(True):
        loss_fn, args, noise = setting(EVERY[name], FLOWS["linear"], dtype=np.float64)
        assert residual(loss_fn, args, noise) < 1e-9


@pytest.mark.parametrize("name", SELF_TAUGHT)
def test_the_network_is_its_own_teacher(name):
    loss_fn, args, noise = setting(EVERY[name], FLOWS["linear"], taught=False)
    assert residual(loss_fn, args, noise) < 1e-5
    assert residual(loss_fn, args, noise, EXACT | {"later": 0.1}) > 1e-3


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("name", EVERY)
def test_spans_may_run_backwards(name):
    loss_fn, args, noise = setting(EVERY[name], FLOWS["linear"], ordered=False)
    assert np.any(np.asarray(args[2].s > args[2].t))
    assert residual(loss_fn, args, noise) < (1e-4 if "normalised" in name else 2e-5)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", ["MeanFlow", "Lagrangian", "Semigroup", "Semigroup, random"])
def test_the_divergence_obeys_the_same_identity(name):
    divergence = DivergenceHead(scale=5.0, trace="exact")
    loss_fn, args, noise = setting(EVERY[name], FLOWS["linear"], divergence=divergence)
    assert residual(loss_fn, args, noise) < 1e-5
    assert residual(loss_fn, args, noise, EXACT | {"divergence": 0.1}) > 1e-2


def test_an_estimated_divergence_is_right_on_average():
    loss_fn, args, _ = setting(Lagrangian(), FLOWS["linear"], divergence=DivergenceHead())
    probes = jax.random.normal(jax.random.key(0), (4096, N, 2))

    def slope(probe):
        return jax.grad(lambda p: loss_fn(p, *args, noise={"probe": probe}))(EXACT)["divergence"]

    slopes = np.asarray(jax.jit(lambda p: jax.lax.map(slope, p, batch_size=64))(probes))
    error = slopes.std() / np.sqrt(len(slopes))
    assert abs(slopes.mean()) < 4 * error
    assert slopes.std() > 1e-3


def at_distance(distance, identity_of):
    """Residuals of an identity that is exact in a limit, as a distance from it is halved."""
    found = []
    for k in range(3):
        identity = identity_of(distance / 2**k)
        loss_fn, args, noise = setting(identity, FLOWS["linear"], dtype=np.float64)
        s, t = (0.05 + 0.9 * time for time in args[2])  # at the ends differences are one-sided
        t = jnp.ones(N) if isinstance(identity, Consistency) else t
        args = (*args[:2], Span(s, t), None)
        found.append(residual(loss_fn, args, noise))
    return np.array(found)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("distance", "identity_of", "order"),
    [
        # Their residual is divided by the root of alpha, which is weighted by 1 / alpha.
        pytest.param(0.1, AlphaFlow, 1.5, id="AlphaFlow"),
        pytest.param(0.1, Consistency, 1.5, id="Consistency"),
        pytest.param(0.02, lambda h: MeanFlow(derivative=FiniteDifference(h)), 2, id="MeanFlow"),
        pytest.param(
            0.02, lambda h: Lagrangian(derivative=FiniteDifference(h)), 2, id="Lagrangian"
        ),
    ],
)
def test_what_is_exact_in_a_limit_approaches_it_at_its_order(distance, identity_of, order):
    with jax.enable_x64(True):
        found = at_distance(distance, identity_of)
    orders = np.log2(found[:-1] / found[1:])
    np.testing.assert_allclose(orders, order, atol=0.25)


@pytest.mark.slow
def test_alpha_flow_at_one_is_flow_matching_along_the_line():
    loss_fn, args, _ = setting(AlphaFlow(1.0), FLOWS["linear"], taught=False)
    x0, x1, span, _ = args
    x = (1 - span.s)[:, None] * x0 + span.s[:, None] * x1
    error = FLOWS["linear"].average_velocity(x, span) - (x1 - x0)
    np.testing.assert_allclose(loss_fn(EXACT, *args), jnp.mean(error**2), rtol=1e-5)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("identity", [MeanFlow(), Lagrangian(), Semigroup(), AlphaFlow(0.3)])
def test_on_the_diagonal_it_is_flow_matching(identity):
    loss_fn, args, _ = setting(identity, FLOWS["linear"], taught=False)
    x0, x1, span, _ = args
    x = (1 - span.s)[:, None] * x0 + span.s[:, None] * x1
    error = FLOWS["linear"].velocity(x, span.s) - (x1 - x0)
    found = loss_fn(EXACT, x0, x1, Span(span.s, span.s), None)
    np.testing.assert_allclose(found, jnp.mean(error**2), rtol=1e-5)


GRADIENTS = ("shift", "stretch", "later", "curve")


def expected_gradient(loss_fn, n=2**15, batch=256):
    """The mean over many pairs of the gradient at the closed form, over its standard error."""
    x0, x1 = pairs(n, seed=3)
    span, args = spans(n, seed=4), None
    batches = jax.tree.map(lambda a: a.reshape(-1, batch, *a.shape[1:]), (x0, x1, span))

    def one(b):
        noise = {"split": jnp.linspace(0, 1, batch)} if "split" in loss_fn.noise else {}
        gradient = jax.grad(lambda p: loss_fn(p, *b, args, noise=noise))(EXACT)
        return jnp.stack([gradient[name] for name in GRADIENTS])

    found = np.asarray(jax.jit(lambda b: jax.lax.map(one, b))(batches))
    return found.mean(0) / (found.std(0) / np.sqrt(len(found)) + 1e-7)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "identity", [MeanFlow(), MeanFlow(tangent="network"), Lagrangian(), Semigroup(split=None)]
)
def test_the_expected_gradient_over_pairs_is_zero_at_the_closed_form(identity):
    loss_fn, _, _ = setting(identity, FLOWS["linear"], taught=False)
    assert np.abs(expected_gradient(loss_fn)).max() < 4


def test_a_wrong_target_has_another_expected_gradient():
    class Wrong(MeanFlow):
        def sides(self, fields, x, span, v, noise, step):
            # v - (t - s) du/ds: the sign that papers have whose time runs the other way.
            sides = super().sides(fields, x, span, v, noise, step)
            return sides._replace(goal=jax.tree.map(lambda g, v: 2 * v - g, sides.goal, v))

    loss_fn, _, _ = setting(Wrong(), FLOWS["linear"], taught=False)
    assert np.abs(expected_gradient(loss_fn)).max() > 20


def definition(name, params, constant, x, span, v):
    """The two sides written out; `constant` are the parameters that no gradient sees."""
    u = network(FLOWS["linear"])
    s, t = span
    length = (t - s)[:, None]
    h = 1e-3

    def at(p, x, s, t):
        return u(p, x, Span(s, t), None)

    if name == "MeanFlow":
        ahead, behind = (at(constant, x + k * h * v, s + k * h, t) for k in (1, -1))
        return at(params, x, s, t), v + length * (ahead - behind) / (2 * h)
    if name == "Lagrangian":
        slope = (at(params, x, s, t + h) - at(params, x, s, t - h)) / (2 * h)
        there = x + length * at(constant, x, s, t)
        return at(params, x, s, t) + length * slope, at(constant, there, t, t)
    middle = (s + t) / 2
    first = at(constant, x, s, middle)
    second = at(constant, x + length / 2 * first, middle, t)
    return at(params, x, s, t), (first + second) / 2


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["MeanFlow", "Lagrangian", "Semigroup"])
def test_the_gradient_is_that_of_the_definition_with_its_constants(name):
    with jax.enable_x64(True):
        loss_fn, args, _ = setting(EVERY[name], FLOWS["linear"], taught=False, dtype=np.float64)
        here = EXACT | {"shift": 0.2, "stretch": -0.1, "later": 0.3, "curve": 0.2}
        found = jax.grad(loss_fn)(here, *args)
        x0, x1, span, _ = args
        x = (1 - span.s)[:, None] * x0 + span.s[:, None] * x1

        def value(params):
            predicted, goal = definition(name, params, here, x, span, x1 - x0)
            return float(jnp.mean((predicted - goal) ** 2))

        for key in GRADIENTS:
            up, down = (value(here | {key: here[key] + h}) for h in (1e-4, -1e-4))
            np.testing.assert_allclose(found[key], (up - down) / 2e-4, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeanFlow(tangent="own"), "unknown tangent 'own'"),
        (lambda: MeanFlow(derivative="jpv"), "unknown derivative 'jpv'"),
        (lambda: MeanFlow(derivative=FiniteDifference), r"an object, FiniteDifference\(\); got"),
        (lambda: MeanFlow(normalise=0.0), "normalise of MeanFlow must be a positive number"),
        (lambda: MeanFlow(warmup=-1), "warmup of MeanFlow must be a whole number of at least 0"),
        (lambda: Semigroup(split=1.0), r"split of Semigroup must lie in \(0, 1\)"),
        (lambda: Semigroup(finest=2.0), r"finest of Semigroup must lie in \[0, 1\]"),
        (lambda: AlphaFlow(1.5), r"alpha of AlphaFlow must lie in \[0, 1\]"),
        (lambda: Consistency(0.0), r"steps of Consistency must lie in \(0, 1\]"),
        (lambda: FiniteDifference(1e-6), "all rounding; 5e-3 is usual"),
    ],
)
def test_a_wrong_identity_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_consistency_takes_spans_that_end_at_the_data():
    loss_fn, args, _ = setting(Consistency(0.1), FLOWS["linear"])
    with pytest.raises(InputError, match=r"end at the data, t = 1.*times.ToData\(\)"):
        loss_fn(EXACT, *args)
