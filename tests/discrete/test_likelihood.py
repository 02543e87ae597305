"""Bounds of the likelihood, exact probabilities, and infilling, against laws that are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import InputError, bits_per_dim, solve_sde
from fmjax.discrete import (
    Corrector,
    CrossEntropy,
    GeneralisedKL,
    Given,
    Masked,
    MixturePath,
    TauLeap,
    Unmask,
    exact_probabilities,
    infilling,
    predictor_free,
    token_log_likelihood,
)
from fmjax.guidance import Guided
from tests.discrete.small import DATA, LAW, OTHER, PATHS, V, marginal, network
from tests.discrete.test_solvers import check_law

KEY = jax.random.key(0)


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask", "uniform", "metric"])
@pytest.mark.parametrize("t", [0.5, 1.0])
def test_the_exact_posterior_has_exactly_the_law_of_the_path(name, t):
    path = PATHS[name]
    with jax.enable_x64(True):
        p = exact_probabilities(network(path), path, 2, t=t, steps=300)
        assert p.shape == (path.states, path.states)
        np.testing.assert_allclose(p.ravel(), marginal(path, t), atol=5e-5)


def wrong_network(x, t, labels=None):
    """Tokens that are independent given t, and do not look at x: any number will do."""
    logits = jnp.asarray([[0.2, 1.0, -0.3], [0.4, -0.5, 0.1]], t.dtype)
    return jnp.broadcast_to(logits[None], (*x.shape, V))


@pytest.mark.slow
def test_masks_that_are_guessed_alone_have_the_product_of_the_guesses():
    path = PATHS["mask"]
    with jax.enable_x64(True):
        p = exact_probabilities(wrong_network, path, 2, steps=200)[:V, :V]
        x = jnp.zeros((1, 2), int)
        each = jax.nn.softmax(wrong_network(x, jnp.zeros(1)))[0]
        np.testing.assert_allclose(p, each[0][:, None] * each[1][None], atol=1e-6)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask", "uniform", "any p0, cubic", "metric"])
def test_the_bound_is_below_the_exact_likelihood(name):
    """With any network; with masks that are guessed alone, it is exact."""
    path = PATHS[name]
    if name != "mask":  # without the likelihood a guess that does not know t has no finite bound
        path = dataclasses.replace(path, add_likelihood=True)
    with jax.enable_x64(True):
        exact = exact_probabilities(wrong_network, path, 2, steps=400)[:V, :V]
    x1 = jnp.repeat(jnp.asarray(DATA), 200, axis=0)
    found = token_log_likelihood(wrong_network, path, x1, key=KEY, times=32)
    mean = np.asarray(found.log_p).reshape(len(DATA), -1).mean(1)
    error = np.asarray(found.log_p).reshape(len(DATA), -1).std(1) / np.sqrt(200)
    exact = np.log(np.asarray(exact)[DATA[:, 0], DATA[:, 1]])
    assert np.all(mean < exact + 5 * error + 1e-4), (mean, exact)
    if name == "mask":
        np.testing.assert_allclose(mean, exact, atol=1e-5 + 5 * error.max())


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask", "uniform", "any p0, cubic"])
def test_the_bound_of_the_exact_posterior_is_the_entropy(name):
    path = PATHS[name]
    rng = np.random.default_rng(0)
    x1 = jnp.asarray(DATA[rng.choice(len(DATA), 20_000, p=LAW)])

    def each_at_its_time(x, t, labels):
        return jax.vmap(lambda x, t: network(path)(x[None], t[None])[0])(x, t)

    found = jax.jit(lambda x1: token_log_likelihood(each_at_its_time, path, x1, key=KEY, times=8))(
        x1
    )
    entropy = -np.sum(LAW * np.log(LAW))
    spread = np.asarray(found.log_p).std() / np.sqrt(len(x1))
    np.testing.assert_allclose(-found.log_p.mean(), entropy, atol=5 * spread)
    np.testing.assert_array_equal(found.nfe, 8)


@pytest.mark.slow
def test_the_standard_error_is_that_of_the_times():
    path, x1 = MixturePath(V, "uniform"), jnp.tile(jnp.array([[0, 2]]), (4000, 1))
    found = token_log_likelihood(wrong_network, path, x1, key=KEY, times=16)
    spread = np.asarray(found.log_p).std()
    error = np.sqrt(np.mean(np.square(found.std_error)))
    assert 0.8 * spread < error < 2 * spread
    one = token_log_likelihood(wrong_network, path, x1[:2], key=KEY, times=1)
    assert np.all(np.isnan(one.std_error))


@pytest.mark.nightly
def test_a_bound_depends_on_the_key_of_its_example_alone_and_is_differentiable():
    path, x1 = MixturePath(V, "uniform"), jnp.asarray(DATA)
    keys = jax.random.split(KEY, len(x1))
    whole = token_log_likelihood(wrong_network, path, x1, key=keys, times=4)
    part = token_log_likelihood(wrong_network, path, x1[2:4], key=keys[2:4], times=4)
    np.testing.assert_allclose(whole.log_p[2:4], part.log_p, rtol=1e-5)

    def mean(scale):
        def scaled(x, t, labels):
            return scale * wrong_network(x, t)

        return token_log_likelihood(scaled, path, x1, key=KEY, times=4).log_p.mean()

    slope = jax.grad(mean)(1.0)
    step = (mean(1.01) - mean(0.99)) / 0.02
    np.testing.assert_allclose(slope, step, rtol=0.02, atol=1e-3)


def test_bits_per_token_are_those_of_bits_per_dim():
    np.testing.assert_allclose(bits_per_dim(jnp.array([-8.0]), 4, bin_width=1.0), 2 / np.log(2))


@pytest.mark.slow
def test_guidance_has_exact_probabilities_too():
    path = PATHS["mask"]
    guided = predictor_free(network(path, (LAW, OTHER)), 1)
    with jax.enable_x64(True):
        for w, law in ((0.0, OTHER), (1.0, LAW)):
            p = exact_probabilities(guided, path, 2, Guided(jnp.zeros(1, int), w), steps=200)
            np.testing.assert_allclose(p.ravel(), marginal(path, 1.0, law), atol=1e-5)
        double = exact_probabilities(guided, path, 2, Guided(jnp.zeros(1, int), 2.0), steps=200)
        np.testing.assert_allclose(double.sum(), 1, atol=1e-6)
        assert double[0, 0] > marginal(path, 1.0, LAW)[0] + 0.02


# Infilling


@pytest.mark.slow
@pytest.mark.parametrize("guide", [False, True])
def test_masks_are_filled_in_with_the_conditional_law(guide):
    path, n = PATHS["mask"], 50_000
    exact = network(path)
    tokens = jnp.tile(jnp.array([[0, 1]]), (n, 1))
    known = jnp.tile(jnp.array([[False, True]]), (n, 1))
    labels = None
    if guide:
        exact = predictor_free(network(path, (LAW, OTHER)), 1)
        labels = Guided(jnp.zeros(n, int), 1.0)
    network_ = infilling(exact, path)
    keys = jax.random.split(KEY, n)
    x0 = path.source.sample(KEY, jnp.arange(n), (2,))
    solver = Unmask(path, 8)
    x = jax.jit(lambda x: solve_sde(network_, x, keys, Given(tokens, known, labels), solver).x1)(x0)
    assert np.all(x[:, 1] == 1)
    law = np.where(DATA[:, 1] == 1, LAW, 0)
    check_law(path, x, marginal(path, 1.0, law / law.sum()))


MENDING = Corrector(30.0, a=2.0, b=0.0)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "solver",
    [
        Unmask(PATHS["uniform"], 128, corrector=MENDING),
        TauLeap(PATHS["metric"], 128, corrector=MENDING),
    ],
    ids=["uniform", "metric"],
)
def test_given_tokens_are_in_every_sample_from_other_sources_too(solver):
    n, path = 4000, solver.path
    tokens = jnp.tile(jnp.array([[2, 1]]), (n, 1))
    known = jnp.tile(jnp.array([[True, False]]), (n, 1))
    x0 = path.source.sample(KEY, jnp.arange(n), (2,))
    keys = jax.random.split(KEY, n)
    x = solve_sde(infilling(network(path), path), x0, keys, Given(tokens, known), solver).x1
    assert np.all(x[:, 0] == 2)
    law = np.where(DATA[:, 0] == 2, LAW, 0)
    expected = law.reshape(V, V).sum(0) / law.sum()
    np.testing.assert_allclose(np.bincount(x[:, 1], minlength=V) / n, expected, atol=0.1)


PATH = MixturePath(V)
X, T = jnp.full((2, 2), V), jnp.full(2, 0.5)
FILL = infilling(wrong_network, PATH)
YES = jnp.ones((2, 2), bool)
ONES = jnp.ones((2, 2), int)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: FILL(X, T, Given(ONES, YES[:, :1])), "known, which tokens are given, must be"),
        (lambda: FILL(X, T, Given(ONES[:, :1], YES)), "the given tokens must be shaped as x"),
        (lambda: FILL(X, T, Given(ONES * V, YES)), "the given tokens must be tokens from 0 to 2"),
        (lambda: FILL(X, T, Given(ONES, ONES)), "must be True or False for each"),
        (lambda: FILL(X, T, ONES), "an infilling network takes Given"),
        (lambda: infilling(wrong_network, "mask"), "the path must be an object with"),
        (
            lambda: token_log_likelihood(wrong_network, PATH, X, key=KEY),
            "x1 must be tokens from 0 to 2; got 3",
        ),
        (
            lambda: token_log_likelihood(wrong_network, PATH, ONES, key=KEY, bound=CrossEntropy()),
            "CrossEntropy() is no bound",
        ),
        (
            lambda: token_log_likelihood(
                wrong_network, PATHS["uniform"], ONES, key=KEY, bound=Masked()
            ),
            "Masked() is a loss of paths that start from masks",
        ),
        (lambda: token_log_likelihood(wrong_network, PATH, ONES, key=0), "key must be one key"),
        (
            lambda: token_log_likelihood(wrong_network, PATH, ONES, key=KEY, times=0),
            "times must be a whole number of at least 1",
        ),
        (
            lambda: token_log_likelihood(
                predictor_free(wrong_network, 1),
                PATH,
                ONES,
                Guided(jnp.zeros(2, int), 2.0),
                key=KEY,
                bound=GeneralisedKL(),
            ),
            "a guided network of tokens has no bound",
        ),
        (lambda: exact_probabilities(wrong_network, PATH, 6), "at most 1024 sequences"),
        (lambda: exact_probabilities(wrong_network, PATH, 2, t=1.5), "t must lie in [0, 1]"),
    ],
)
def test_what_is_wrong_is_said(wrong, sentence):
    with pytest.raises(InputError) as caught:
        wrong()
    assert sentence in str(caught.value), str(caught.value)
