import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.guidance import Guided, classifier_free
from fmjax.schedules import VP, Cosine, Linear, LinearVP, Polynomial
from fmjax.testing import (
    FiniteDataFlow,
    GaussianFlow,
    MixtureFlow,
    check_continuity,
    check_density_integrates_to_one,
    check_recovers,
    check_score_matches_density,
    check_velocity_matches_score,
    convergence_order,
)

COV = np.array([[1.0, 0.6], [0.6, 0.5]])
CENTERS = np.array([[-2.0, 0.5], [1.0, 1.0], [0.5, -2.0]])
MIXTURE = MixtureFlow([0.5, 0.3, 0.2], CENTERS, np.stack([0.2 * COV, COV, 0.5 * COV]))
IMAGES = GaussianFlow(np.linspace(-1, 1, 192).reshape(3, 8, 8), 0.5)
FLOWS = {
    "a number": GaussianFlow(1.5, 0.5, Cosine()),
    "a vector": GaussianFlow([1.0, -2.0], [0.5, 2.0], VP()),
    "a covariance": GaussianFlow([1.0, -2.0], COV, Polynomial(2)),
    "images": IMAGES,
    "numbers": MixtureFlow([1, 3], [-1.0, 2.0], [0.5, 1.0]),
    "vectors": MixtureFlow([1, 3], [[-1.0, 0.0], [2.0, 1.0]], 0.5, LinearVP()),
    "covariances": MIXTURE,
    "data": FiniteDataFlow(np.array([[0.0, 1.0], [2.0, 0.5], [-1.0, -1.0]]), Linear(0.01)),
}
flows = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)


def mostly_slow(*quick):
    slow = pytest.mark.slow
    return [pytest.param(name, marks=() if name in quick else slow) for name in FLOWS]


def points(flow, n=6, t=None, dtype=np.float64):
    rng = np.random.default_rng(0)
    t = np.linspace(0.1, 0.9, n) if t is None else np.full(n, t)
    return np.asarray(rng.normal(size=(n, *flow.shape)), dtype), np.asarray(t, dtype)


def everything(flow):
    return jax.jit(lambda *at: (flow.velocity(*at), flow.score(*at), flow.log_density(*at)))


# A number is a vector of one entry, and one Gaussian is a mixture of one.
@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "name", mostly_slow("a vector", "images", "vectors", "covariances", "data")
)
def test_density_score_and_velocity_agree(name):
    """score = grad log p, and the continuity equation d/dt log p + div u + u . grad log p = 0.

    The program also evaluates everything at both ends, in float64.
    """
    flow = FLOWS[name]

    def one(x, t):
        u, log_p = (
            lambda x, t, f=f: f(x[None], t[None])[0] for f in (flow.velocity, flow.log_density)
        )
        divergence = jnp.trace(jax.jacfwd(u)(x, t).reshape(x.size, x.size))
        gradient, slope = jax.grad(log_p, (0, 1))(x, t)
        return gradient, slope + divergence + jnp.sum(u(x, t) * gradient)

    @jax.jit
    def program(x, t, ends):
        all_of = (flow.velocity, flow.score, flow.log_density)
        return flow.score(x, t), *jax.vmap(one)(x, t), [f(x[:2], ends) for f in all_of]

    with jax.enable_x64(True):
        x, t = points(flow, 3)
        score, gradient, residual, at_ends = program(x, t, np.array([0.0, 1.0]))
        np.testing.assert_allclose(score, gradient, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(residual, np.zeros(3), atol=1e-7)
    assert_finite_at_the_ends(at_ends, x[:2])


@flows
def test_the_ends_are_finite_in_float32(flow):
    x, _ = points(flow, 2, dtype=np.float32)
    assert_finite_at_the_ends(everything(flow)(x, np.array([0, 1], np.float32)), x)


def assert_finite_at_the_ends(found, x):
    assert [f.dtype for f in found] == [x.dtype] * 3
    assert [f.shape for f in found] == [x.shape, x.shape, (2,)]
    assert all(np.all(np.isfinite(f)) for f in found)


@pytest.mark.parametrize(
    "name", [pytest.param("a covariance", marks=pytest.mark.slow), "covariances"]
)
def test_samples_have_the_stated_mean_and_covariance(name):
    flow, n = FLOWS[name], 100_000

    @jax.jit
    def draw(t):
        return flow.sample(jax.random.key(1), n, t), flow.mean(t), flow.cov(t)

    for t in (0.0, 0.4, 1.0):
        x, mean, cov = (np.asarray(a) for a in draw(np.float32(t)))
        apart = x - mean
        products = apart[:, :, None] * apart[:, None]
        for values, expected in ((apart, 0), (products, cov)):
            error = 4.5 * values.std(axis=0) / np.sqrt(n)
            assert np.all(np.abs(values.mean(axis=0) - expected) < error)


def test_moments_have_the_axes_of_t_first():
    mean, cov = jax.jit(lambda t: (IMAGES.mean(t), IMAGES.cov(t)))(np.linspace(0, 1, 5, dtype="f4"))
    assert mean.shape == (5, 3, 8, 8)
    assert cov.shape == (5, 192, 192)
    np.testing.assert_allclose(np.asarray(mean)[3], 0.75 * IMAGES.center, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(cov)[3], (0.375**2 + 0.25**2) * np.eye(192), rtol=1e-6)


@pytest.mark.parametrize("name", ["a vector", "a covariance"])
def test_the_flow_lines_of_a_gaussian_follow_its_velocity(name):
    flow = FLOWS[name]

    @jax.jit
    def at(x, t1):
        y, slope = jax.jvp(lambda t1: flow.carry(x, 0.2, t1), (t1,), (jnp.ones_like(t1),))
        return y, slope, flow.velocity(y, jnp.full(len(x), t1)), flow.carry(y, t1, 0.2)

    with jax.enable_x64(True):
        x, _ = points(flow)
        for t1 in (0.0, 0.2, 0.7):
            _, slope, velocity, back = at(x, jnp.float64(t1))
            np.testing.assert_allclose(slope, velocity, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(back, x, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(at(x, jnp.float64(0.2))[0], x, rtol=1e-9)


def test_the_flow_lines_of_a_straight_gaussian_end_at_m_plus_s_x():
    x = np.linspace(-2, 2, 9, dtype="f4")
    np.testing.assert_allclose(jax.jit(GaussianFlow(2.0, 0.5).carry)(x), 2 + 0.5 * x, atol=1e-5)


def test_the_velocity_of_a_mixture_is_the_expected_velocity_of_its_pairs():
    """By importance weights: E[u | x_t = x] over the pairs that could have led to x."""
    flow, n, t = FLOWS["vectors"], 400_000, 0.4  # on the path of LinearVP
    x = np.array([[0.3, 0.2]], np.float32)
    program = jax.jit(lambda x, t: (flow.sample(jax.random.key(2), n), flow.velocity(x, t)))
    x1, velocity = (np.asarray(a, np.float64) for a in program(x, np.float32([t])))
    sigma = np.sqrt(1 - t**2)
    x0 = (x - t * x1) / sigma
    weights = np.exp(-0.5 * np.sum(x0**2, axis=1))
    weights /= weights.sum()
    u = x1 - t / sigma * x0
    mean = weights @ u
    error = 4.5 * np.sqrt(weights**2 @ (u - mean) ** 2)
    assert np.all(np.abs(velocity[0] - mean) < error)


def test_labels_choose_the_components_of_a_mixture_and_a_label_of_none_all_of_them():
    x, t = points(MIXTURE, 5, dtype=np.float32)
    gaussians = [GaussianFlow(CENTERS[k], MIXTURE.spreads[k]) for k in range(3)]

    @jax.jit
    def program(x, t, labels):
        flows = (MIXTURE, MIXTURE.given(1), *gaussians)
        at = [(flow, None) for flow in flows] + [(MIXTURE, labels)]
        return [(f.velocity(x, t, y), f.score(x, t, y), f.log_density(x, t, y)) for f, y in at]

    found = jax.tree.map(np.asarray, program(x, t, np.array([0, 1, 2, 3, -1])))
    whole, alone, *single, chosen = found
    for f in range(3):
        expected = [single[k][f][k] for k in range(3)] + [whole[f][3], whole[f][4]]
        np.testing.assert_allclose(chosen[f], np.stack(expected), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(alone[f], single[1][f], rtol=1e-4, atol=1e-4)


def test_the_guided_velocity_of_a_mixture_has_a_closed_form():
    x, t = points(MIXTURE, dtype=np.float32)
    labels = np.array([0, 1, 2, 0, 1, 2])
    guided = classifier_free(MIXTURE.velocity, null_labels=3)
    found, none, one = jax.jit(
        lambda x, t: (
            guided(x, t, Guided(labels, 2.0)),
            MIXTURE.velocity(x, t),
            MIXTURE.velocity(x, t, labels),
        )
    )(x, t)
    expected = 2 * np.asarray(one) - np.asarray(none)
    # The logarithms of the weights reach tens, and their rounding is that of the weights.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_samples_of_a_class_come_from_its_component():
    draw = jax.jit(lambda key, labels: MIXTURE.sample(key, 20_000, labels=labels))
    x = np.asarray(draw(jax.random.key(0), np.full(20_000, 1)))
    np.testing.assert_allclose(x.mean(axis=0), CENTERS[1], atol=0.04)
    np.testing.assert_allclose(np.cov(x.T), COV, atol=0.06)


DATA = np.array([[0.0, 1.0], [2.0, 0.5], [-1.0, -1.0]])


def test_the_flow_to_a_finite_data_set_is_the_limit_of_narrow_mixtures():
    data, narrow = FiniteDataFlow(DATA), MixtureFlow([1, 1, 1], DATA, 1e-4)
    x, t = points(data, dtype=np.float32)
    for found, expected in zip(everything(data)(x, t), everything(narrow)(x, t), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_the_flow_to_a_finite_data_set_ends_in_it():
    velocity = jax.jit(FiniteDataFlow(DATA).velocity)
    x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    for t in np.arange(25, dtype=np.float32) / 25:
        x = x + np.asarray(velocity(x, np.full(64, t))) / np.float32(25)
    distance = np.linalg.norm(x[:, None] - DATA, axis=2)
    assert distance.min(axis=1).max() < 1e-5
    assert set(distance.argmin(axis=1).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), LinearVP()])
def test_near_the_end_the_expected_point_is_the_nearest(schedule):
    flow, near = FiniteDataFlow(DATA, schedule), (DATA + 0.1).astype("float32")
    both = jax.jit(lambda x, t: (flow.expected_x1(x, t), flow.velocity(x, t)))
    for t in (0.999, 0.99999, 1.0):
        x1, velocity = both(near, np.full(3, t, np.float32))
        np.testing.assert_allclose(x1, DATA, atol=1e-6)
        assert np.all(np.isfinite(velocity))


@pytest.mark.slow
def test_samples_of_a_finite_data_set_are_its_points_and_noisy_before_the_end():
    flow = FiniteDataFlow(DATA)
    draw = jax.jit(lambda key, t: flow.sample(key, 20_000, t))
    x, noisy = (np.asarray(draw(jax.random.key(0), np.float32(t))) for t in (1.0, 0.5))
    assert {tuple(row) for row in x.tolist()} == {tuple(row) for row in DATA.tolist()}
    np.testing.assert_allclose(noisy.mean(axis=0), 0.5 * DATA.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(
        np.cov(noisy.T), 0.25 * np.cov(DATA.T, bias=True) + 0.25 * np.eye(2), atol=0.03
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianFlow(0.0, 0.0), "positive"),
        (lambda: GaussianFlow([0.0, 0.0], -np.eye(2)), "positive definite"),
        (lambda: GaussianFlow([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (lambda: MixtureFlow([1.0, -1.0], [0.0, 1.0], 1.0), "positive numbers"),
        (lambda: MixtureFlow([1.0, 1.0], [0.0, 1.0, 2.0], 1.0), "2 components"),
        (lambda: MixtureFlow([1.0, 1.0], np.zeros((2, 3)), np.ones((2, 2))), "spreads"),
        (lambda: FiniteDataFlow(np.zeros((0, 2))), "at least one"),
        (lambda: FiniteDataFlow(3.0), "at least one"),
        (lambda: FiniteDataFlow([[np.nan]]), "finite"),
        (lambda: IMAGES.velocity(jnp.zeros((2, 3)), jnp.zeros(2)), "takes x"),
        (lambda: MIXTURE.score(jnp.zeros((2, 2)), jnp.float32(0.5)), "takes x"),
        (lambda: FLOWS["data"].score(jnp.zeros((2, 2)), jnp.zeros(3)), "takes x"),
    ],
)
def test_a_flow_that_cannot_be_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("order", [1, 2, 3.5])
def test_the_order_is_the_slope_of_the_error(order):
    found = convergence_order(lambda n: np.array([1.0, 2.0]) + 3 * n**-order, [1.0, 2.0])
    np.testing.assert_allclose(found, order, rtol=1e-6)


def test_the_order_of_euler_is_one():
    x = np.linspace(-2, 2, 9, dtype="f4")
    velocity = jax.jit(GAUSSIAN.velocity)

    def euler(n):
        y = x
        for k in range(n):
            y = y + np.asarray(velocity(y, np.full(9, k / n, np.float32))) / np.float32(n)
        return y

    # The flow line of this Gaussian ends at m + s x.
    assert abs(convergence_order(euler, 2 + 0.5 * x, steps=(16, 32)) - 1) < 0.1


@pytest.mark.parametrize(
    ("result", "exact", "steps", "message"),
    [
        (1.0, 1.0, (16, 32), "no slope"),
        (np.nan, 1.0, (16, 32), "no slope"),
        (1.0, 2.0, (16, 16), "at least two"),
        (1.0, [1.0, 2.0], (16, 32), "shaped as exact"),
    ],
)
def test_an_order_that_cannot_be_measured_is_refused(result, exact, steps, message):
    with pytest.raises(InputError, match=message):
        convergence_order(lambda n: result, exact, steps)


GAUSSIAN = GaussianFlow(2.0, 0.5)
LINE = GaussianFlow([2.0], 0.5)


@pytest.mark.parametrize(
    ("flow", "low", "high"), [(GAUSSIAN, -4, 8), (LINE, [-4], [8]), (MIXTURE, [-8, -8], [8, 8])]
)
def test_a_density_that_integrates_to_one_passes_and_another_fails(flow, low, high):
    def log_density(x, factor=1.0):
        return flow.log_density(x, jnp.full(len(x), 0.9)) + jnp.log(factor)

    integral = check_density_integrates_to_one(log_density, low, high, batch=4096)
    assert abs(integral - 1) < 1e-4
    with pytest.raises(AssertionError, match=r"integrates to 1\.01"):
        check_density_integrates_to_one(lambda x: log_density(x, 1.01), low, high)


def test_a_density_that_is_cut_off_or_not_a_number_fails():
    with pytest.raises(AssertionError, match=r"integrates to 0\.5"):
        check_density_integrates_to_one(lambda x: -0.5 * x**2 - 0.918939, 0.0, 8.0)
    with pytest.raises(AssertionError, match="nan"):
        check_density_integrates_to_one(lambda x: x * jnp.nan, 0.0, 8.0)
    for low, high in (([0, 0, 0], [1, 1, 1]), (1.0, 0.0)):
        with pytest.raises(InputError, match="border"):
            check_density_integrates_to_one(lambda x: x, low, high)


@pytest.mark.slow
def test_the_checks_pass_what_is_right_and_fail_what_is_wrong():
    flow, labels = FLOWS["vectors"], np.array([0, 1, 2, 0, 1, 0])  # 2: of no component
    x, t = points(flow, dtype=np.float32)
    u, s, p = flow.velocity, flow.score, flow.log_density
    path = {"schedule": flow.schedule}

    def scaled(f):
        return lambda x, t, labels: 1.01 * f(x, t, labels)

    # The score alone knows its size from the density, the velocity from either.
    checks = [
        (check_score_matches_density, (s, p), [(scaled(s), p)], {}),
        (check_velocity_matches_score, (u, s), [(scaled(u), s), (u, scaled(s))], path),
        (check_continuity, (u, p), [(scaled(u), p)], {}),
    ]
    for check, right, wrong, how in checks:
        assert check(*right, x, t, labels=labels, **how) < 1e-4
        for bad in wrong:
            with pytest.raises(AssertionError, match="differ by"):
                check(*bad, x, t, labels=labels, **how)


@pytest.mark.slow
def test_a_velocity_of_another_schedule_or_class_fails():
    x, t = points(MIXTURE, dtype=np.float32)
    other = MixtureFlow(MIXTURE.weights, CENTERS, MIXTURE.spreads, Cosine())
    check_velocity_matches_score(other.velocity, other.score, x, t, Cosine())
    with pytest.raises(AssertionError, match="differ"):
        check_velocity_matches_score(other.velocity, other.score, x, t, Linear())
    with pytest.raises(AssertionError, match="differ"):
        check_continuity(other.velocity, MIXTURE.log_density, x, t)


def test_a_field_that_stands_still_carries_a_density_that_does():
    x, t = points(LINE, dtype=np.float32)
    normal = GaussianFlow([0.0])

    def log_density(x, t, labels):
        return normal.log_density(x, 0 * t)

    assert check_continuity(lambda x, t, labels: 0 * x, log_density, x, t) == 0


def test_a_field_is_recovered_by_itself_and_not_by_another():
    flow = FLOWS["data"]

    def apply_fn(params, x, t, labels):
        return params * flow.velocity(x, t, labels)

    measured = check_recovers(apply_fn, 0.8, flow, jax.random.key(0), n=512)
    np.testing.assert_allclose(measured, 0.04, rtol=1e-4)
    with pytest.raises(AssertionError, match="error of the velocity is 1 "):
        check_recovers(apply_fn, 0.0, flow, jax.random.key(0), n=512)


@pytest.mark.slow
def test_points_that_check_a_network_are_those_of_their_time_and_class():
    seen = {}

    def apply_fn(params, x, t, labels):
        jax.debug.callback(lambda x, t: seen.update(x=np.asarray(x), t=np.asarray(t)), x, t)
        return MIXTURE.velocity(x, t, labels)

    labels = jnp.full(4000, 1)
    check_recovers(
        apply_fn, None, MIXTURE, jax.random.key(0), labels=labels, n=4000, low=0.8, high=0.9
    )
    jax.effects_barrier()
    assert 0.8 <= seen["t"].min() < 0.805 < 0.895 < seen["t"].max() < 0.9
    np.testing.assert_allclose(seen["x"].mean(axis=0), 0.85 * CENTERS[1], atol=0.06)
