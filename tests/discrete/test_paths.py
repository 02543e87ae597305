"""Paths of tokens: probabilities and rates against the forward equation; samples; kappas."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fmjax import Draw, InputError, make_loss_fn
from fmjax.discrete import (
    CategoricalTokens,
    CosineKappa,
    CubicKappa,
    MaskTokens,
    MetricPath,
    MixturePath,
    OwnPath,
    UniformTokens,
    embedding_distances,
)
from fmjax.schedules import Custom, Linear, Polynomial
from tests.discrete.small import (
    DISTANCES,
    P0,
    PATHS,
    V,
    curved,
    marginal,
    posterior,
    states,
)

EACH_PATH = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
TIMES = (0.05, 0.3, 0.5, 0.8, 0.95)


def all_states(path, t):
    """x (V, states), x1 (V, states) and t likewise: every state under every x1."""
    x = jnp.broadcast_to(jnp.arange(path.states)[None], (V, path.states))
    x1 = jnp.broadcast_to(jnp.arange(V)[:, None], x.shape)
    return x, x1, jnp.full(x.shape, t)


@pytest.mark.day_cases(9)
@pytest.mark.slow
@EACH_PATH
@pytest.mark.parametrize("t", TIMES)
def test_the_rates_given_x1_solve_the_forward_equation(path, t):
    with jax.enable_x64(True):
        x1, times = jnp.arange(V), jnp.full(V, t)
        p, change = jax.jvp(lambda t: path.probabilities(x1, t), (times,), (jnp.ones(V),))
        rates = path.rates(*all_states(path, t))
        flow = jnp.einsum("ax,axy->ay", p, rates) - p * rates.sum(-1)
        np.testing.assert_allclose(flow, change, atol=1e-10)
        assert rates.min() >= 0
        assert np.all(np.diagonal(rates[:, :, :], axis1=1, axis2=2) == 0)


@pytest.mark.day_cases(9)
@pytest.mark.slow
@EACH_PATH
@pytest.mark.parametrize("t", TIMES)
def test_the_rates_of_both_tokens_solve_the_forward_equation_of_their_law(path, t):
    with jax.enable_x64(True):
        x = jnp.asarray(states(path))
        change = jax.jvp(lambda t: marginal(path, t), (t,), (1.0,))[1]
        p = marginal(path, t)
        log_p = jnp.log(jnp.nan_to_num(posterior(path, x, t)) + 1e-300)
        rates = path.marginal_rates(log_p, x, jnp.full(x.shape, t))  # (n, 2, states)
        flow = np.zeros(len(x))
        for i, place in ((0, path.states), (1, 1)):
            for y in range(path.states):
                to = np.arange(len(x)) + (y - np.asarray(x[:, i])) * place
                moved = np.asarray(p * rates[:, i, y])
                np.add.at(flow, to, moved)
                flow -= moved
        np.testing.assert_allclose(flow, change, atol=1e-9)


@pytest.mark.quick_cases(2)
@EACH_PATH
def test_a_path_goes_from_its_source_to_the_data(path):
    x1 = jnp.arange(V)
    ends = [np.asarray(path.probabilities(x1, jnp.full(V, t))) for t in (0.0, 1.0)]
    p0 = np.append(path.source.probabilities(), 1.0) if path.states > V else None
    expected = path.source.probabilities() if p0 is None else p0
    np.testing.assert_allclose(ends[0], np.broadcast_to(expected, ends[0].shape), atol=1e-3)
    np.testing.assert_allclose(ends[1][:, :V], np.eye(V), atol=1e-3)


@pytest.mark.day_cases(2)
@pytest.mark.slow
@EACH_PATH
def test_samples_have_the_probabilities_of_the_path(path):
    n, key = 20_000, jax.random.key(0)
    for t in (0.0, 0.4, 0.9, 1.0):
        x1 = jnp.full((n, 2), 1)
        index = jnp.arange(n)
        args = Draw(source=path.source, noise=path.noise)(key, index, x1)
        assert args.x0.dtype == jnp.int32
        x_t, target = path.sample(args.x0, x1, jnp.full(n, t), args.noise)
        assert x_t.dtype == target.dtype == jnp.int32
        p = np.asarray(path.probabilities(x1[:1, 0], jnp.full(1, t)), np.float64)[0]
        found = np.bincount(np.asarray(x_t).ravel(), minlength=path.states)
        possible = p > 1e-4
        assert found[~possible].sum() <= 2
        if possible.sum() > 1:
            expected = p[possible] / p[possible].sum() * found[possible].sum()
            assert stats.chisquare(found[possible], expected).pvalue > 1e-3
        if t in (0.4, 0.9):  # the two tokens are independent given x1
            assert abs(np.corrcoef((np.asarray(x_t) == 1).T)[0, 1]) < 0.04


def test_a_draw_depends_on_the_place_in_the_global_batch_alone():
    path = PATHS["uniform"]
    draw, key = Draw(source=path.source, noise=path.noise), jax.random.key(3)
    x1 = jnp.ones((8, 4), jnp.int32)
    whole = draw(key, jnp.arange(8), x1)
    part = draw(key, jnp.arange(3, 6), x1[3:6])
    np.testing.assert_array_equal(whole.x0[3:6], part.x0)
    np.testing.assert_array_equal(whole.noise["jump"][3:6], part.noise["jump"])


@pytest.mark.day_cases(2)
@pytest.mark.slow
@EACH_PATH
def test_the_likelihood_of_the_own_token_makes_the_posterior_of_bayes(path):
    # A network that knows the law of one token, and nothing else of it.
    prior = np.array([0.5, 0.3, 0.2])
    x = jnp.arange(path.states)[:, None]
    for t in (0.1, 0.6, 0.97):
        own = path if path.states > V else dataclasses.replace(path, add_likelihood=True)
        logits = jnp.broadcast_to(jnp.log(prior), (path.states, 1, V)).astype(jnp.float32)
        found = jnp.exp(own.log_posterior(logits, x, jnp.full(path.states, t)))
        each = np.asarray(path.probabilities(jnp.arange(V), jnp.full(V, t)), np.float64)
        joint = prior[:, None] * each
        np.testing.assert_allclose(found[:, 0], (joint / joint.sum(0)).T, atol=2e-5)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "kappa", [Linear(), Polynomial(1.5), CubicKappa(0.3, 2.0), CosineKappa()], ids=repr
)
def test_a_kappa_is_a_share_with_its_derivative(kappa):
    with jax.enable_x64(True):
        t = jnp.linspace(0, 1, 101)
        np.testing.assert_allclose(kappa.alpha(t) + kappa.sigma(t), 1, atol=1e-14)
        np.testing.assert_allclose(kappa.alpha(t[jnp.array([0, -1])]), [0, 1], atol=1e-15)
        slope = jax.vmap(jax.grad(kappa.alpha))(t[1:])
        np.testing.assert_allclose(kappa.d_alpha(t[1:]), slope, atol=1e-12)
        np.testing.assert_allclose(kappa.d_sigma(t), -kappa.d_alpha(t))
    near = jnp.float32(1) - 3 * np.finfo(np.float32).epsneg
    with jax.enable_x64(True):
        exact = kappa.sigma(jnp.float64(near))
    np.testing.assert_allclose(kappa.sigma(near), exact, rtol=1e-5)


def test_the_two_slopes_of_the_cubic_are_its_parameters():
    kappa = CubicKappa(0.4, 1.7)
    np.testing.assert_allclose(kappa.d_alpha(jnp.array([0.0, 1.0])), [0.4, 1.7])


def test_a_kappa_of_your_own():
    kappa = Custom(lambda t: t**3, lambda t: 1 - t**3)
    path = MixturePath(V, "uniform", kappa)
    p = path.probabilities(jnp.array([1]), jnp.array([0.5]))
    np.testing.assert_allclose(p[0], [0.875 / 3, 0.125 + 0.875 / 3, 0.875 / 3], rtol=1e-6)


@pytest.mark.slow
def test_the_metric_path_leads_towards_the_data_alone():
    path = PATHS["metric"]
    rates = np.asarray(path.rates(*all_states(path, 0.5)))
    for x1 in range(V):
        for x in range(V):
            nearer = DISTANCES[x1] < DISTANCES[x1][x]
            assert np.all((rates[x1, x] > 0) == nearer)


@pytest.mark.slow
def test_the_kinetic_rates_of_a_mixture_are_those_of_the_mixture_path():
    def weights(x1, t):
        t = t[..., None]
        p0 = jnp.asarray(P0).reshape((1,) * (t.ndim - 1) + (V,)).astype(t.dtype)
        return jnp.log((1 - t) * p0 + t * jax.nn.one_hot(x1, V))

    own, mixture = OwnPath(V, weights), MixturePath(V, CategoricalTokens(P0))
    with jax.enable_x64(True):
        for t in TIMES:
            rates = [path.rates(*all_states(path, t)) for path in (own, mixture)]
            np.testing.assert_allclose(*rates, atol=1e-9)


def test_distances_of_an_embedding():
    e = np.random.default_rng(0).normal(size=(5, 3))
    d = embedding_distances(e, power=1)
    gaps = np.linalg.norm(e[:, None] - e[None], axis=-1)
    np.testing.assert_allclose(d, gaps / (gaps.sum() / 20), atol=1e-12)
    assert MetricPath(d).vocabulary == 5


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("source", [MaskTokens(4), UniformTokens(4), CategoricalTokens(P0)])
def test_sources_of_tokens(source):
    index = jnp.arange(4000)
    x = source.sample(jax.random.key(1), index, (3,))
    assert x.shape == (4000, 3)
    assert x.dtype == jnp.int32
    np.testing.assert_array_equal(x[7:9], source.sample(jax.random.key(1), index[7:9], (3,)))
    p = source.probabilities()
    if isinstance(source, MaskTokens):
        assert np.all(x == source.mask)
        assert np.all(source.log_prob(x) == 0)
        return
    np.testing.assert_allclose(np.bincount(x.ravel(), minlength=len(p)) / x.size, p, atol=0.02)
    expected = np.log(p)[np.asarray(x)].sum(-1)
    np.testing.assert_allclose(source.log_prob(x), expected, rtol=1e-5)


X1 = jnp.ones((4, 2), jnp.int32)
T = jnp.full(4, 0.5)
U = {"jump": jnp.full((4, 2), 0.5)}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: MixturePath(3).sample(X1, X1 + 2, T, U), "x1 must be tokens from 0 to 2; got 3"),
        (lambda: MixturePath(3).sample(X1 + 3, X1, T, U), "x0 must be tokens from 0 to 3; got 4"),
        (lambda: MixturePath(3).sample(X1, X1 - 2, T, U), "got -1"),
        (lambda: MixturePath(3).sample(X1, X1 * 1.0, T, U), "x1 must be tokens, integers from 0"),
        (lambda: MixturePath(3).sample(X1, X1, T), "takes the noise jump"),
        (
            lambda: MixturePath(3).sample(X1, X1, T, {"jump": jnp.ones(4)}),
            "the noise jump must be shaped as x1",
        ),
        (lambda: MixturePath(1), "the vocabulary, the number of tokens, must be a whole number"),
        (lambda: MixturePath(3, "masked"), "unknown source of tokens 'masked'. Did you mean"),
        (lambda: MixturePath(3, UniformTokens(4)), "the source has 4 tokens and the path 3"),
        (lambda: MixturePath(3, UniformTokens), "is the class UniformTokens"),
        (lambda: MixturePath(3, kappa=Polynomial), "kappa is the class Polynomial"),
        (lambda: CubicKappa(-0.5, 0.0), "kappa must never fall"),
        (lambda: CubicKappa(float("nan")), "a of CubicKappa must be a finite number"),
        (
            lambda: MixturePath(3, kappa=Custom(lambda t: 0.995 * t, lambda t: 1 - 0.995 * t)),
            "kappa must go from 0 at t = 0 to 1 at t = 1",
        ),
        (
            lambda: MixturePath(3, kappa=Custom(lambda t: t, lambda t: (1 - t) ** 2)),
            "alpha and sigma of a kappa must sum to 1",
        ),
        (lambda: CategoricalTokens((0.5, 0.6)), "that sum to 1"),
        (lambda: CategoricalTokens(("a", "b")), "that sum to 1"),
        (lambda: MetricPath(np.ones((3, 3))), "0 from a token to itself"),
        (lambda: MetricPath(np.ones((3, 2))), "must be (vocabulary, vocabulary)"),
        (lambda: MetricPath(DISTANCES, c=0), "c of MetricPath must be a positive number"),
        (lambda: embedding_distances(np.ones(3)), "numbers (vocabulary, width)"),
        (lambda: OwnPath(3, lambda x1, t: curved(x1, 0.5 * t)), "x1 alone at t = 1"),
        (
            lambda: OwnPath(3, lambda x1, t: curved(x1, 0.5 + 0.5 * t)),
            "the same for every x1 at t = 0",
        ),
        (lambda: OwnPath(3, lambda x1, t: t), "weights_fn must return floats shaped as"),
        (lambda: OwnPath(3, "x"), "weights_fn must be a function"),
    ],
)
def test_what_is_wrong_with_a_path_is_said(wrong, sentence):
    with pytest.raises(InputError) as caught:
        wrong()
    assert sentence in str(caught.value), str(caught.value)


def test_a_network_without_logits_is_refused():
    loss_fn = make_loss_fn(lambda params, x, t, labels: x * 1.0, MixturePath(3))
    with pytest.raises(InputError, match="logits"):
        loss_fn(None, X1, X1, T, None, noise=U)
