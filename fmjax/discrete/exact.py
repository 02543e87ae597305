"""Exact probabilities on small alphabets: the forward equation of all sequences at once.

For tests and toys: of L tokens with S states there are S^L sequences, and their rates are a matrix.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fmjax.checks import check_at_least, check_between, check_methods
from fmjax.conventions import Array, Labels
from fmjax.discrete.base import TokenPath, check_token_path
from fmjax.discrete.guess import guess_of, guided_rates
from fmjax.discrete.solvers import Denoiser
from fmjax.errors import InputError

MOST = 1024
_END = 1e-6


def exact_probabilities(
    denoiser: Denoiser,
    path: TokenPath,
    length: int,
    label: Labels = None,
    *,
    t: float = 1.0,
    steps: int = 1000,
) -> Float[Array, "..."]:
    """The probability of every sequence at time t, by the forward equation of the model's rates.

        dp_t/dt = p_t R_t

    with R_t, sequences by sequences, the rates of the network for every single token. A step takes
    the matrix exponential of R in its middle, which is of order two; steps are even in log(1 - t).
    The last one, from 1 - 1e-6 to 1, takes every token from the guess, as a solver does.

    Args:
        denoiser: the network with its parameters bound; a guided one too.
        path: the path of the tokens.
        length: the number of tokens L of a sequence, one axis.
        label: the labels of one example, with a leading axis of 1 as `fmjax.solve` shares them, or
            None.
        t: the time, in [0, 1].
        steps: how many.

    Returns:
        Probabilities (states, ..., states) with L axes, in the dtype of jax's floats: float64 under
        ``jax.enable_x64``.

    Raises:
        InputError: there are more than 1,024 sequences, or t lies outside [0, 1].
    """
    check_methods("the network", denoiser, such_as="lambda x, t, labels: ...")
    check_token_path("the path", path)
    check_at_least("length", length)
    check_at_least("steps", steps)
    check_between("t", t, 0, 1)
    n = path.states**length
    if n > MOST:
        raise InputError(
            f"exact probabilities take at most {MOST} sequences; {length} tokens of {path.states} "
            f"states have {n}: take token_log_likelihood, a bound."
        )
    x = jnp.asarray(list(itertools.product(range(path.states), repeat=length)), jnp.int32)
    p = _start(path, length)
    times = 1 - np.geomspace(1, max(1 - t, _END), steps + 1)

    def step(p, ends):
        start, end = ends
        generator = _generator(denoiser, path, x, 0.5 * (start + end), label)
        return p @ jax.scipy.linalg.expm((end - start) * generator), None

    ends = jnp.asarray(times[:-1], p.dtype), jnp.asarray(times[1:], p.dtype)
    if t > 0:
        p, _ = jax.jit(lambda p: jax.lax.scan(step, p, ends))(p)
    if t == 1:
        p = p @ _last(denoiser, path, x, 1 - _END, label)
    return p.reshape((path.states,) * length)


def _start(path: TokenPath, length: int) -> Array:
    """The law of the source over all sequences (n,)."""
    p0 = path.source.probabilities()
    p0 = np.append(p0, 1.0) if path.states > path.vocabulary else p0
    p = np.ones(1)
    for _ in range(length):
        p = np.outer(p, p0).ravel()
    return jnp.asarray(p, jnp.result_type(float))


def _guess(denoiser, path, x, t, label):
    times = jnp.full(len(x), t, jnp.result_type(float))
    labels = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (len(x), *jnp.shape(leaf)[1:])), label
    )
    return guess_of(path, denoiser(x, times, labels), x, times), times


def _generator(denoiser, path, x, t, label) -> Array:
    """The rates between all sequences (n, n), with rows of sum 0."""
    guess, times = _guess(denoiser, path, x, t, label)
    at = jnp.broadcast_to(times[:, None], x.shape)
    if guess.branches is None:
        rates = path.marginal_rates(guess.log_p, x, at)
    else:
        rates = guided_rates(path, guess.branches, x, at)
    n, length = x.shape
    places = path.states ** np.arange(length - 1, -1, -1)
    here = jnp.arange(n)[:, None]
    matrix = jnp.zeros((n, n), rates.dtype)
    for i in range(length):
        to = here + (jnp.arange(path.states)[None] - x[:, i : i + 1]) * int(places[i])
        matrix = matrix.at[here, to].add(rates[:, i])
    return matrix - jnp.diag(jnp.sum(matrix, axis=1))


def _last(denoiser, path, x, t, label) -> Array:
    """The step that takes every token from the guess (n, n)."""
    p = jnp.exp(_guess(denoiser, path, x, t, label)[0].log_p)
    p = jnp.pad(p, [(0, 0), (0, 0), (0, path.states - path.vocabulary)])
    each = [p[:, i][:, x[:, i]] for i in range(x.shape[1])]
    return jnp.prod(jnp.stack(each), axis=0)
