import functools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.guidance import Guided, classifier_free
from fmjax.likelihood import (
    Exact,
    Hutchinson,
    bits_per_dim,
    check_path,
    draw_probes,
    log_likelihood,
    sample_with_log_prob,
    velocity_and_divergence,
)
from fmjax.paths import AffinePath, BrownianBridge, NoisyStraight
from fmjax.samplers import solver_spec
from fmjax.sources import Empirical, StandardNormal, UniformBox

KEY = jax.random.key(0)
FINE = solver_spec("dopri5", 12)


class OneNumber(StandardNormal):
    """A source that gives one density for a whole batch."""

    def log_prob(self, x):
        return jnp.sum(x)


class Gaussian:
    """The straight path from N(0, I) to N(m, Q diag(s^2) Q^T), for examples of any shape."""

    def __init__(self, shape, seed=0):
        rng, dims = np.random.default_rng(seed), math.prod(shape)
        self.dims = dims
        self.q = np.linalg.qr(rng.normal(size=(dims, dims)))[0]
        self.s = rng.uniform(0.5, 1.5, dims)
        self.m = rng.normal(size=dims)

    def sample(self, n, shape):
        rng = np.random.default_rng(1)
        return (self.m + rng.normal(size=(n, self.dims)) * self.s @ self.q.T).reshape(n, *shape)

    def velocity(self, x, t, labels=None, m=None):
        m = jnp.asarray(self.m if m is None else m, x.dtype)[None]
        flat, t = x.reshape(len(x), -1), t[:, None]
        s2 = jnp.asarray(self.s**2, x.dtype)[None]
        slope = (t * s2 - (1 - t)) / (t**2 * s2 + (1 - t) ** 2)
        q = jnp.asarray(self.q, x.dtype)
        return (m + ((flat - t * m) @ q * slope) @ q.T).reshape(x.shape)

    def source(self, x1):
        flat = x1.reshape(len(x1), -1) - self.m
        return (flat @ self.q / self.s @ self.q.T).reshape(x1.shape)

    def log_p(self, x1):
        z = self.source(x1).reshape(len(x1), -1)
        norm = 0.5 * self.dims * np.log(2 * np.pi) + np.log(self.s).sum()
        return -0.5 * (z**2).sum(axis=1) - norm

    def score(self, x1):
        flat = x1.reshape(len(x1), -1) - self.m
        return -(flat @ self.q / self.s**2 @ self.q.T).reshape(x1.shape)


RNG = np.random.default_rng(7)
W, V = RNG.normal(size=(3, 16)), RNG.normal(size=(16, 2)) / 4


def net(x, t, labels=None):
    """A fixed nonlinear field on the plane whose Jacobian is neither diagonal nor symmetric."""
    hidden = jnp.tanh(jnp.concatenate([x, t[:, None]], axis=1) @ jnp.asarray(W, x.dtype))
    return hidden @ jnp.asarray(V, x.dtype)


POINTS = RNG.normal(size=(1000, 2)).astype("float32")


SLOW = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(), (3, 8, 8)])
def test_the_density_of_a_gaussian_is_its_closed_form_for_any_shape(shape):
    flow = Gaussian(shape)
    with jax.enable_x64(True):
        x1 = flow.sample(4, shape)
        out = jax.jit(lambda x: log_likelihood(flow.velocity, x, spec=FINE))(x1)
        assert out.log_p.shape == out.std_error.shape == out.nfe.shape == (4,)
        assert out.log_p.dtype == jnp.float64
        np.testing.assert_allclose(out.log_p, flow.log_p(x1), atol=1e-6)
        np.testing.assert_allclose(out.x0, flow.source(x1), atol=1e-6)
        np.testing.assert_array_equal(out.std_error, 0)
        assert out.success.all()


@pytest.mark.slow
def test_a_pytree_has_the_density_of_its_numbers_laid_side_by_side():
    flow = Gaussian((5,))

    def laid(x):
        return jnp.concatenate([x["a"][:, None], x["b"].reshape(-1, 4)], axis=1)

    def velocity(x, t, labels):
        u = flow.velocity(laid(x), t)
        return {"a": u[:, 0], "b": u[:, 1:].reshape(-1, 2, 2)}

    with jax.enable_x64(True):
        x1 = flow.sample(3, (5,))
        tree = {"a": x1[:, 0], "b": x1[:, 1:].reshape(3, 2, 2)}
        run = jax.jit(lambda x: log_likelihood(velocity, x, spec=FINE, trace=Exact(chunk=2)))
        out = run(tree)
        np.testing.assert_allclose(out.log_p, flow.log_p(x1), atol=1e-6)
        np.testing.assert_allclose(laid(out.x0), flow.source(x1), atol=1e-6)
        trace = Hutchinson(64)
        run = jax.jit(lambda x, k: log_likelihood(velocity, x, spec=FINE, trace=trace, key=k))
        out = run(tree, KEY)
        assert jnp.all(jnp.abs(out.log_p - flow.log_p(x1)) < 5 * out.std_error + 1e-6)


@pytest.mark.parametrize("trace", [Exact(), Exact(chunk=1), Hutchinson(5, "gaussian", chunk=2)])
def test_the_divergence_is_that_of_the_jacobian(trace):
    x, t = POINTS[:6], np.linspace(0, 1, 6, dtype="float32")
    probes = draw_probes(trace, KEY, x)

    @jax.jit
    def run(x, t, probes):
        jacobian = jax.vmap(jax.jacrev(lambda x, t: net(x[None], t[None])[0]))
        found = velocity_and_divergence(net, x, t, None, trace, probes)
        return *found, net(x, t), jacobian(x, t)

    u, columns, velocity, jacobians = (np.asarray(a) for a in run(x, t, probes))
    if isinstance(trace, Exact):
        expected = np.trace(jacobians, axis1=1, axis2=2)[:, None]
    else:
        expected = np.einsum("bki,bij,bkj->bk", probes, jacobians, probes)
    np.testing.assert_allclose(columns, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(u, velocity, rtol=1e-5, atol=1e-5)


@functools.cache
def in_few_steps(trace):
    run = partial(log_likelihood, net, spec=solver_spec("euler", 8), trace=trace)
    return jax.tree.map(np.asarray, jax.jit(lambda x, k: run(x, key=k))(POINTS, KEY))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_the_probes_agree_with_the_trace_within_the_error_they_report(kind):
    exact, far, size = in_few_steps(Exact()).log_p, {}, {}
    for num in (16, 64):
        out = in_few_steps(Hutchinson(num, kind, chunk=64))
        far[num] = out.log_p - exact
        size[num] = float(np.sqrt(np.mean(far[num] ** 2)))
        assert abs(float(far[num].mean())) < 4 * size[num] / math.sqrt(len(POINTS))
        assert float(np.sqrt(np.mean(out.std_error**2))) == pytest.approx(size[num], rel=0.1)
    # Student's t with 63 degrees of freedom: a standard deviation of 1.02.
    assert 0.9 < float(np.std(far[64] / out.std_error)) < 1.15
    assert size[16] / size[64] == pytest.approx(2, rel=0.15)


@pytest.mark.slow
def test_the_error_is_the_standard_error_of_the_mean_over_the_probes():
    matrix, x = np.array([[1.0, 2.0], [0.5, -1.0]], np.float32), POINTS[:5]
    trace = Hutchinson(6, "gaussian")
    probes = np.asarray(draw_probes(trace, KEY, x), np.float64)
    of_one = np.einsum("bki,ij,bkj->bk", probes, matrix, probes)
    out = log_likelihood(
        lambda x, t, labels: x @ matrix.T, x, spec=solver_spec("euler", 1), trace=trace, key=KEY
    )
    np.testing.assert_allclose(out.std_error, of_one.std(axis=1, ddof=1) / np.sqrt(6), rtol=1e-4)


@pytest.mark.parametrize("kind", ["rademacher", pytest.param("gaussian", marks=SLOW)])
def test_probes_have_unit_covariance_and_are_a_function_of_the_example_s_key(kind):
    x = {"a": np.zeros(400, np.float32), "b": np.zeros((400, 3), np.float32)}
    draw = jax.jit(lambda key, x: draw_probes(Hutchinson(30, kind), key, x))
    drawn = draw(KEY, x)
    assert drawn["a"].shape == (400, 30)
    assert drawn["b"].shape == (400, 30, 3)
    flat = np.concatenate([drawn["a"][..., None], drawn["b"]], axis=-1).reshape(-1, 4)
    np.testing.assert_allclose(flat.T @ flat / len(flat), np.eye(4), atol=0.07)
    assert abs(flat.mean()) < 0.03
    rolled = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))(KEY, np.roll(np.arange(400), 7))
    moved = draw(rolled, x)
    np.testing.assert_array_equal(np.roll(moved["b"], -7, axis=0), drawn["b"])
    assert np.mean(np.asarray(draw(jax.random.key(1), x)["b"] != drawn["b"])) > 0.4


def counted(field):
    calls = []

    @jax.custom_jvp
    def mark(x):
        return jax.pure_callback(
            lambda _: calls.append(1) or np.zeros((), np.float32),
            jax.ShapeDtypeStruct((), jnp.float32),
            x,
        )

    mark.defjvp(lambda primals, tangents: (mark(*primals), jnp.zeros(())))
    return lambda x, t, labels: field(x, t, labels) + mark(x.ravel()[0]), calls


@pytest.mark.slow
@pytest.mark.parametrize("trace", [pytest.param(Exact(), marks=SLOW), Hutchinson(4)])
def test_fixed_probes_keep_the_calls_of_an_adaptive_solve_below_forty(trace):
    # A probe drawn anew at every call is noise to the step control: a peer needs 976.
    field, calls = counted(Gaussian((2,)).velocity)
    spec = solver_spec("dopri5", rtol=1e-5, atol=1e-5, control="batch")
    run = jax.jit(lambda x, k: log_likelihood(field, x, spec=spec, trace=trace, key=k))
    out = jax.block_until_ready(run(POINTS[:1], KEY))
    assert len(calls) == int(out.nfe[0])
    assert 6 < len(calls) < 40


@pytest.mark.slow
def test_an_example_has_the_density_it_has_alone():
    spec, trace = solver_spec("dopri5", rtol=1e-4), Hutchinson(3, "gaussian")
    run = jax.jit(lambda x, k: log_likelihood(net, x, spec=spec, trace=trace, key=k))
    keys = jax.random.split(KEY, 6)
    whole = run(POINTS[:6], keys)
    # The same program with other neighbours: the last two come first.
    moved = run(POINTS[np.array([4, 5, 100, 101, 102, 103])], keys[jnp.array([4, 5, 0, 1, 2, 3])])
    for name in ("log_p", "std_error", "nfe"):
        np.testing.assert_allclose(getattr(moved, name)[:2], getattr(whole, name)[4:], rtol=1e-4)
    other = run(POINTS[:6], jax.random.split(jax.random.key(1), 6))
    assert jnp.all(other.log_p != whole.log_p)


@pytest.mark.slow
@pytest.mark.parametrize("trace", [Exact(), pytest.param(Hutchinson(3), marks=SLOW)])
def test_a_sample_comes_with_the_density_that_is_found_for_it(trace):
    with jax.enable_x64(True):
        x0, how = POINTS[:20].astype("float64"), {"spec": FINE, "trace": trace}

        @jax.jit
        def there_and_back(x0, key):
            out = sample_with_log_prob(net, x0, key=key, **how)
            return out, log_likelihood(net, out.x1, key=key, **how), StandardNormal().log_prob(x0)

        out, back, normal = there_and_back(x0, KEY)
        np.testing.assert_allclose(back.log_p, out.log_p, atol=1e-6)
        np.testing.assert_allclose(back.std_error, out.std_error, atol=1e-6)
        np.testing.assert_allclose(back.x0, x0, atol=1e-6)
        assert np.abs(np.asarray(out.x1) - x0).min(axis=1).max() > 0.01
        assert np.abs(np.asarray(out.log_p) - normal).max() > 0.1


@pytest.mark.slow
def test_a_gaussian_has_its_closed_form_and_its_gradients_are_the_score_and_that_by_parameters():
    flow = Gaussian((2,))

    def total(x, m):
        def velocity(x, t, labels):
            return flow.velocity(x, t, m=m)

        out = log_likelihood(velocity, x, spec=FINE)
        return out.log_p.sum(), out

    with jax.enable_x64(True):
        x1 = flow.sample(5, (2,))
        (by_x, by_m), out = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(x1, flow.m)
        assert out.log_p.dtype == jnp.float64
        np.testing.assert_allclose(out.log_p, flow.log_p(x1), atol=1e-6)
        np.testing.assert_allclose(out.x0, flow.source(x1), atol=1e-6)
        np.testing.assert_array_equal(out.std_error, 0)
        assert out.success.all()
        np.testing.assert_allclose(by_x, flow.score(x1), atol=1e-6)
        np.testing.assert_allclose(by_m, -flow.score(x1).sum(axis=0), atol=1e-6)


@pytest.mark.slow
def test_the_gradient_through_the_probes_is_finite_where_their_error_is_zero():
    # Signs see a diagonal Jacobian exactly, so that all columns are the same.
    spec, trace = solver_spec("rk4", 5), Hutchinson(3)

    def total(scale, key):
        field = lambda x, t, _: scale * x  # noqa: E731
        out = log_likelihood(field, POINTS[:4], spec=spec, trace=trace, key=key)
        return out.log_p.sum() + out.std_error.sum(), out

    grad, out = jax.jit(jax.grad(total, has_aux=True))(0.3, KEY)
    np.testing.assert_array_equal(out.std_error, 0)
    # log p(x) = log N(x exp(-a)) - 2 a, so d/da = |x|^2 exp(-2 a) - 2.
    expected = jnp.sum(jnp.sum(POINTS[:4] ** 2, axis=1) * jnp.exp(-0.6) - 2)
    np.testing.assert_allclose(grad, expected, rtol=1e-3)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("control", "w"),
    [
        ("sample", [0.0, 1.0, 3.0]),
        pytest.param("sample", 2.0, marks=SLOW),
        pytest.param("fixed", [0.0, 1.0, 3.0], marks=SLOW),
        pytest.param("batch", [0.0, 1.0, 3.0], marks=SLOW),
    ],
)
def test_a_guided_flow_has_the_density_of_its_own_samples(control, w):
    rate = np.array([0.5, -0.2, 0.1], np.float32)  # the last of them is null

    def velocity(x, t, labels):
        return jnp.asarray(rate)[labels][:, None] * x

    guided, labels = classifier_free(velocity, 2), np.array([0, 1, 0])
    spec = solver_spec("heun", 20 if control == "fixed" else None, control)
    x1, scale = POINTS[:3], np.asarray(w, np.float32)
    run = jax.jit(lambda x, labels: log_likelihood(guided, x, labels, spec))
    out = run(x1, Guided(labels, scale))
    a = (1 - scale) * rate[2] + scale * rate[labels]
    np.testing.assert_allclose(out.x0, x1 * np.exp(-a)[:, None], rtol=1e-3)
    log_p0 = -0.5 * np.sum(np.asarray(out.x0) ** 2, axis=1) - math.log(2 * math.pi)
    np.testing.assert_allclose(out.log_p, log_p0 - 2 * a, atol=1e-3)


@pytest.mark.slow
def test_another_source_has_its_own_density():
    source = UniformBox(-1.0, 1.0)
    run = jax.jit(lambda x: log_likelihood(lambda x, t, _: 0.7 * x, x, source=source))
    out = run(np.array([[0.5, 1.9], [0.0, 2.1]], np.float32))
    np.testing.assert_allclose(out.log_p[0], -2 * math.log(2) - 1.4, atol=1e-4)
    # Outside there is no density: -inf is what the formula gives, and no number is made of it.
    assert not out.success[1]
    assert jnp.isnan(out.log_p[1])


@pytest.mark.slow
def test_half_precision_is_widened_and_float32_stays():
    for dtype in (jnp.bfloat16, jnp.float32):
        run = partial(log_likelihood, lambda x, t, _: -x, spec=solver_spec("euler", 1))
        out = jax.eval_shape(run, jax.ShapeDtypeStruct((2, 2), dtype))
        assert out.log_p.dtype == out.x0.dtype == jnp.float32


@pytest.mark.slow
def test_other_labels_points_and_keys_compile_nothing_and_one_probe_knows_no_error(
    count_compilations,
):
    @jax.jit
    def run(x, key, rate):
        how = {"spec": solver_spec("dopri5", rtol=1e-3), "trace": Hutchinson(1), "key": key}
        return log_likelihood(lambda x, t, rate: rate[:, None] * x, x, rate, **how)

    first = POINTS[:2], KEY, np.ones(2, np.float32)
    second = POINTS[2:4], jax.random.key(1), np.zeros(2, np.float32)
    out = jax.block_until_ready(run(*first))
    with count_compilations() as compiled:
        jax.block_until_ready(run(*second))
    assert compiled.count == 0, compiled.names
    assert np.all(np.isfinite(out.log_p))
    assert np.all(np.isnan(out.std_error))


def test_evenly_spread_pixels_cost_eight_bits():
    # 256 bins of 2 / 255 make an interval of length 512 / 255, on which the density is uniform.
    for dims in (1, 64):
        log_p = -dims * math.log(512 / 255) * np.ones(3, np.float32)
        np.testing.assert_allclose(bits_per_dim(log_p, dims), 8, rtol=1e-6)
    # One bit of entropy in a bin of width 1, by the definition.
    np.testing.assert_allclose(bits_per_dim(np.float32(-np.log(2.0)), 1, 1.0), 1, rtol=1e-6)


@pytest.mark.slow
def test_a_solve_that_gives_up_gives_no_number():
    def stiff(x, t, rate):
        return -rate[:, None] * (x - jnp.cos(20 * t)[:, None])

    spec = solver_spec("dopri5", rtol=1e-6, atol=1e-6, max_steps=20)
    run = jax.jit(lambda x, rate: log_likelihood(stiff, x, rate, spec))
    out = jax.tree.map(np.asarray, run(POINTS[:2], np.array([0.1, 500.0], np.float32)))
    np.testing.assert_array_equal(out.success, [True, False])
    assert np.isnan(out.log_p[1])
    assert np.isnan(out.std_error[1])
    assert 0 < out.t_end[1] < 1
    assert np.isfinite(out.log_p[0])


def test_a_path_without_a_likelihood_is_refused():
    check_path(AffinePath())
    for path in (NoisyStraight(0.1), BrownianBridge()):
        with pytest.raises(InputError, match=f"{type(path).__name__} is stochastic"):
            check_path(path)


def with_row(row, value):
    points = POINTS.copy()
    points[row] = value
    return points


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hutchinson(0), "number of probes must be a whole number of at least 1; got 0"),
        (lambda: Hutchinson(2.5), "at least 1"),
        (lambda: Hutchinson(kind="gausian"), "Did you mean 'gaussian'"),
        (lambda: Exact(chunk=0), "chunk"),
        (lambda: Hutchinson(chunk=-1), "chunk"),
        (lambda: bits_per_dim(jnp.ones(2), 0), "dims must be a whole number of at least 1"),
        (lambda: bits_per_dim(jnp.ones(2), 3, 0.0), "bin width"),
        (lambda: log_likelihood(net, POINTS, trace=Hutchinson()), r"give key=jax.random.key\(0\)"),
        (
            lambda: log_likelihood(net, POINTS, trace=Hutchinson(), key=jax.random.split(KEY, 3)),
            r"one such key per example, \(1000,\)",
        ),
        (lambda: log_likelihood(net, POINTS, trace=Hutchinson(), key=jnp.arange(2)), "got int32"),
        (lambda: log_likelihood(net, jnp.ones((2, 2), jnp.uint8)), "floats; got uint8"),
        (lambda: log_likelihood(net, None), r"of at least one example; got \[\]"),
        (lambda: log_likelihood(net, jnp.float32(1.0)), "leading batch axis"),
        (lambda: log_likelihood(net, (POINTS, POINTS[:3])), "leading batch axis"),
        (lambda: log_likelihood(net, with_row(3, np.nan)), "the first of them 3"),
        (lambda: sample_with_log_prob(net, with_row(3, np.inf)), "x0 must be finite"),
        (lambda: log_likelihood(lambda x, t, _: x[:, :1], POINTS), "shaped as x"),
        (lambda: log_likelihood(lambda x, t, _: (x,), POINTS), "what is built as x"),
        (
            lambda: jax.eval_shape(lambda x: log_likelihood(net, x, source=OneNumber()), POINTS),
            "log_prob of OneNumber must return one float per example",
        ),
        (
            lambda: log_likelihood(net, POINTS, None, FINE, source=Empirical(POINTS)),
            "a source that is data has no density",
        ),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()
