"""A law of two tokens out of three, of which everything is known, for every path."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from fmjax.discrete import (
    CategoricalTokens,
    CosineKappa,
    CubicKappa,
    MetricPath,
    MixturePath,
    OwnPath,
)
from fmjax.schedules import Linear, Polynomial

V, L = 3, 2
DATA = np.array(list(itertools.product(range(V), repeat=L)))
LAW = np.array([0.30, 0.02, 0.05, 0.03, 0.04, 0.26, 0.02, 0.25, 0.03])
OTHER = np.array([0.02, 0.20, 0.05, 0.18, 0.05, 0.05, 0.20, 0.05, 0.20])
DISTANCES = np.array([[0.0, 1.0, 2.5], [1.0, 0.0, 1.2], [2.5, 1.2, 0.0]])
P0 = (0.2, 0.3, 0.5)


def curved(x1, t):
    """log of a path that is no mixture: it goes through another law of its own in the middle."""
    t = t[..., None]
    start = jnp.asarray(P0).reshape((1,) * (t.ndim - 1) + (V,)).astype(t.dtype)
    bump = jnp.asarray([0.1, 0.7, 0.2]).reshape(start.shape).astype(t.dtype)
    rest = (1 - t) ** 2 * start + 2 * t * (1 - t) * (1 - t) * bump
    return jnp.log(rest / rest.sum(-1, keepdims=True) * (1 - t**2) + t**2 * jax.nn.one_hot(x1, V))


PATHS = {
    "mask": MixturePath(V, "mask", Linear()),
    "mask, cosine": MixturePath(V, "mask", CosineKappa()),
    "uniform": MixturePath(V, "uniform", Linear(), add_likelihood=False),
    "uniform, squared": MixturePath(V, "uniform", Polynomial(2), add_likelihood=False),
    "any p0, cubic": MixturePath(
        V, CategoricalTokens(P0), CubicKappa(0.5, 1.0), add_likelihood=False
    ),
    "metric": MetricPath(DISTANCES, c=1.0, a=0.9, add_likelihood=False),
    "own": OwnPath(V, curved, add_likelihood=False),
}


def states(path):
    """All pairs of states (states^2, 2)."""
    return np.array(list(itertools.product(range(path.states), repeat=L)))


def likelihoods(path, t):
    """p_t(x | x1) of one token: (V, states), at one time."""
    x1 = jnp.arange(V)
    return path.probabilities(x1, jnp.full(x1.shape, t))


def pair_likelihoods(path, t, x):
    """p_t(x | x1) of both tokens, for every x1 of DATA: (batch, V^2)."""
    one = likelihoods(path, t)
    return one[DATA[:, 0]].T[x[:, 0]] * one[DATA[:, 1]].T[x[:, 1]]


def marginal(path, t, law=LAW):
    """p_t(x) of all pairs of states (states^2,)."""
    return pair_likelihoods(path, t, jnp.asarray(states(path))) @ jnp.asarray(law)


def posterior(path, x, t, law=LAW):
    """p(x1^i | x_t) (batch, 2, V) at one time."""
    weights = pair_likelihoods(path, t, x) * jnp.asarray(law)[None]
    tokens = jax.nn.one_hot(jnp.asarray(DATA), V, dtype=weights.dtype)
    return jnp.einsum("bn,nlv->blv", weights, tokens) / weights.sum(-1)[:, None, None]


def number(path, x):
    """The number of each pair of states among `states`."""
    return x[:, 0] * path.states + x[:, 1]


def network(path, laws=(LAW,)):
    """The exact posterior as a network: logits of x1 under the law of each label.

    It is computed for each pair of states at the time of the first example, which is that of all
    within a solve; at t = 0, where most states have no posterior, it is that of a time just after.
    """
    pairs = jnp.asarray(states(path))

    def apply(x, t, labels=None):
        time = jnp.maximum(t[0], 1e-4)
        tables = [
            jnp.log(jnp.nan_to_num(posterior(path, pairs, time, jnp.asarray(law, t.dtype))) + 1e-20)
            for law in laws
        ]
        labels = jnp.zeros(len(x), int) if labels is None else labels
        return jnp.stack(tables)[labels, number(path, x)]

    return apply


def counts(path, x):
    """How often each pair of states is among x (n, 2)."""
    return np.bincount(np.asarray(number(path, x)), minlength=path.states**L)
