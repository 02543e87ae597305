"""Flows on the simplex: a token as a point of probabilities, which moves continuously.

A token is a corner of the simplex, the one-hot vector of its number, and its path a line that ends
there: straight, or a geodesic of the Fisher metric (`fmjax.manifolds.Simplex`), which is a great
circle of the square roots. The network gives logits of the corner, as for jumps, and its velocity
is the mean of those towards the corners:

    u(x, t) = kappa' / (1 - kappa) sum over y of p(y | x_t) log_x(e_y),

log_x(e_y) = e_y - x on the straight line. Sources: Stark et al., arXiv:2402.05841, for the straight
line and the logits; Davis et al., arXiv:2405.14664 (Fisher-Flow).

    path = SimplexPath(27, "fisher")
    loss_fn = make_loss_fn(apply_fn, path)
    draw = Draw(source=path.source)                       # x1 = corners(tokens, 27)
    solver = solver_spec("geodesic_euler", 50, manifold=path.manifold)
    tokens = nearest_corners(solve(simplex_velocity(network, path), x0, labels, solver).x1)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Float, Int, PRNGKeyArray

from fmjax.array_checks import as_floats, check_returned, check_shaped_as, times_of
from fmjax.checks import check_between, check_methods, check_name, check_positive
from fmjax.conventions import (
    Array,
    Labels,
    Velocity,
    at_least_float32,
    example_keys,
    expand,
    per_example_sum,
    take_part,
)
from fmjax.discrete.base import LOGITS
from fmjax.discrete.kappas import check_kappa, hazard
from fmjax.discrete.solvers import Denoiser
from fmjax.discrete.token_sources import check_vocabulary
from fmjax.discrete.tokens import OfTokens, Tokens, TokenTimes, as_tokens
from fmjax.errors import InputError
from fmjax.manifolds import Simplex
from fmjax.paths import AffinePath, GeodesicPath, PathSample
from fmjax.schedules import Linear, Schedule
from fmjax.sources import NO_NOISE, Shape

Geometry = Literal["linear", "fisher"]
GEOMETRIES: tuple[Geometry, ...] = get_args(Geometry)
_LEAST = 1e-30  # a weight of 0 would lie on the boundary, where a path must not begin


@dataclass(frozen=True)
class DirichletPoints:
    """Points of the simplex, independent of each other, from a symmetric Dirichlet distribution.

    Args:
        vocabulary: the number of corners, the size of the last axis.
        concentration: 1 is uniform in the probabilities, 1/2 in the Fisher metric; positive.

    Raises:
        InputError: the vocabulary is below 2, or the concentration is not positive.
    """

    vocabulary: int
    concentration: float = 1.0

    def __post_init__(self):
        check_vocabulary(self.vocabulary)
        check_positive("the concentration", self.concentration)

    def sample(
        self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape
    ) -> Float[Array, "batch ..."]:
        """Points (batch, *shape), float32, shape ending in the vocabulary; see `Law.sample`.

        Raises:
            InputError: the shape ends in another number.
        """
        if not isinstance(shape, tuple) or shape[-1:] != (self.vocabulary,):
            raise InputError(
                f"points of this simplex have shape (..., {self.vocabulary}); got {shape}. Write "
                "x1 = corners(tokens, vocabulary)."
            )

        def one(key):
            return _drawn_points(key, self.concentration, shape)

        return jax.vmap(one)(example_keys(key, index))

    def log_prob(self, x: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
        """The log-density in nats (batch,), with respect to all probabilities but the last."""
        x, a, n = as_floats("x", x), self.concentration, self.vocabulary
        constant = gammaln(n * a) - n * gammaln(a)
        return per_example_sum(constant + (a - 1) * jnp.sum(jnp.log(x), axis=-1))


@dataclass(frozen=True)
class SimplexPath:
    """A `fmjax.paths.Path` of points of the simplex, on which a network gives logits.

    Args:
        vocabulary: the number of tokens.
        geometry: ``"linear"``, the straight line, or ``"fisher"``, the geodesic of the Fisher
            metric.
        kappa: how far along the line a point is at t (`fmjax.discrete.kappas`).

    Raises:
        InputError: the vocabulary is below 2, the geometry is unknown, or kappa is none.
    """

    vocabulary: int
    geometry: Geometry = "fisher"
    kappa: Schedule = field(default_factory=Linear)
    takes: ClassVar[str] = LOGITS
    noise = NO_NOISE

    def __post_init__(self):
        check_vocabulary(self.vocabulary)
        check_name("geometry of the simplex", self.geometry, GEOMETRIES)
        check_kappa(self.kappa)

    @property
    def manifold(self) -> Simplex | None:
        """The simplex in its Fisher metric; None for the straight line."""
        return Simplex(self.vocabulary - 1) if self.geometry == "fisher" else None

    @property
    def source(self) -> DirichletPoints:
        """The law of x0: uniform, in the Fisher metric or in the probabilities."""
        return DirichletPoints(self.vocabulary, 0.5 if self.geometry == "fisher" else 1.0)

    def sample(
        self,
        x0: Float[Array, "*points"],
        x1: Float[Array, "*points"],
        t: TokenTimes,
        noise: Mapping[str, Any] | None = None,
    ) -> PathSample:
        """The point at t, and x1, which is what the network is to guess.

        Args:
            x0: points inside the simplex (batch, ..., vocabulary).
            x1: corners, shaped as x0.
            t: times (batch,); or (batch, n, ...), one for each point of leading axes.
            noise: none.

        Raises:
            InputError: as in `fmjax.paths.AffinePath.sample`, or the last axis is no vocabulary.
        """
        wanted = (*jnp.shape(x1)[:-1], self.vocabulary)
        check_shaped_as("x1", x1, "points of the simplex", wanted)
        if (manifold := self.manifold) is not None:
            x_t = GeodesicPath(manifold, self.kappa).sample(x0, x1, t, noise).x_t
        else:
            x_t = AffinePath(self.kappa).sample(x0, x1, t, noise).x_t
        return PathSample(x_t, at_least_float32(x1))

    def distance(
        self,
        predicted: Float[Array, "*points"],
        target: Float[Array, "*points"],
        x_t: Float[Array, "*points"],
        t: TokenTimes,
    ) -> Float[Array, " batch"]:
        """The cross-entropy of each example (batch,), the mean over its tokens, in nats."""
        check_returned("the network", predicted, "x", x_t)
        log_p = jax.nn.log_softmax(at_least_float32(predicted))
        cost = -jnp.sum(target * log_p, axis=-1)
        return per_example_sum(cost) / max(cost[0].size, 1)


def _drawn_points(key: Array, concentration: float, shape: Shape) -> Array:
    """Gamma variables over their sum.

    Those of the two uniform laws are functions of one draw each: at K = 160 on a CPU, 70 times as
    fast as the rejections of the others.
    """
    if concentration == 0.5:
        weights = jnp.square(jax.random.normal(key, shape))
    elif concentration == 1:
        weights = jax.random.exponential(key, shape)
    else:
        return jax.nn.softmax(jax.random.loggamma(key, concentration, shape))
    weights = jnp.maximum(weights, _LEAST)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


def simplex_velocity(denoiser: Denoiser, path: SimplexPath) -> Velocity:
    """The velocity that the logits of a network imply, for every solver of differential equations.

    Args:
        denoiser: the network with its parameters bound, ``denoiser(x, t, labels) -> logits``.
        path: the path that it was trained on.

    Returns:
        ``velocity(x, t, labels)``, shaped as x; near t = 1 the rate is read at most at 1 - 1e-5.

    Raises:
        InputError: the path is none of the simplex; calling the result raises it when the logits
            are not shaped as x.
    """
    check_methods("the network", denoiser, such_as="lambda x, t, labels: ...")
    if not isinstance(path, SimplexPath):
        raise InputError(f"simplex_velocity takes a SimplexPath; got {path!r:.60}.")

    def velocity(x: Array, t: Array, labels: Labels) -> Array:
        logits = take_part(denoiser(x, t, labels), LOGITS)
        check_returned("the network", logits, "x", x)
        p = jax.nn.softmax(at_least_float32(logits))
        towards = p - x if path.manifold is None else _towards_corners(x, p)
        return expand(hazard(path.kappa, times_of(t, x)), x) * towards

    return velocity


def _towards_corners(x: Array, p: Array) -> Array:
    """The sum over y of p_y log_x(e_y) in the Fisher metric.

    On the sphere z = sqrt(x), log_z(e_y) = a_y / sin(a_y) (e_y - z_y z) with cos(a_y) = z_y.
    """
    z = jnp.sqrt(jnp.maximum(x, 1e-12))
    sine = jnp.sqrt(jnp.maximum(1 - jnp.square(z), 1e-12))
    pull = p * jnp.arctan2(sine, z) / sine
    return 2 * z * (pull - jnp.sum(pull * z, axis=-1, keepdims=True) * z)


def corners(
    tokens: Tokens, vocabulary: int, smoothing: float = 0.0
) -> Float[Array, "*places {vocabulary}"]:
    """Tokens as points of the simplex.

    Args:
        tokens: integers (...).
        vocabulary: how many there are.
        smoothing: how much of each point is spread evenly over all corners, in [0, 1).

    Returns:
        (..., vocabulary), float32.

    Raises:
        InputError: a token is none, or smoothing leaves [0, 1).
    """
    check_vocabulary(vocabulary)
    check_between("smoothing", smoothing, 0, 1, "[)")
    hot = jax.nn.one_hot(as_tokens("tokens", tokens, vocabulary), vocabulary)
    return (1 - smoothing) * hot + smoothing / vocabulary


def nearest_corners(x: OfTokens) -> Tokens:
    """The tokens (...), int32, whose corners are nearest to points (..., vocabulary)."""
    return jnp.argmax(as_floats("x", x), axis=-1).astype(jnp.int32)
