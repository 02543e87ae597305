"""Distributions on manifolds whose density is known, to learn."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fmjax.manifolds import SO3, Hyperbolic, Manifold, Sphere, Torus, UniformOn, WrappedNormal


class Task(NamedTuple):
    """A distribution, and how a network looks at its points.

    Attributes:
        manifold: where it is.
        source: of the flow.
        sample: ``sample(key, n)``, points.
        log_prob: of points, in nats.
        features: ``features(x)``, numbers (batch, k) without a seam.
        velocity: ``velocity(x, out)``, tangent vectors of as many numbers as `outputs` says.
        outputs: the numbers that a network gives.
        apart: ``apart(x, y)``, a distance of points of negative type.
    """

    manifold: Manifold
    source: Any
    sample: Callable[[jax.Array, int], jax.Array]
    log_prob: Callable[[jax.Array], jax.Array]
    features: Callable[[jax.Array], jax.Array]
    velocity: Callable[[jax.Array, jax.Array], jax.Array]
    outputs: int
    apart: Callable[[jax.Array, jax.Array], jax.Array]


def tasks() -> dict[str, Task]:
    """All of them, by name."""
    return {
        "checkerboard, sphere": _checkered_sphere(),
        "checkerboard, torus": _checkered_torus(),
        "mixture, hyperbolic plane": _mixture(Hyperbolic(2), 0.25, 1.5),
        "mixture, rotations": _mixture(SO3(), 0.25, 1.8),
    }


def _squares(key: jax.Array, n: int) -> jax.Array:
    """Points (n, 2) on the dark squares of a board of 4 x 4 over the unit square."""
    row_key, column_key, place = jax.random.split(key, 3)
    row = jax.random.randint(row_key, (n,), 0, 4)
    column = 2 * jax.random.randint(column_key, (n,), 0, 2) + row % 2
    return (jnp.stack([column, row], axis=1) + jax.random.uniform(place, (n, 2))) / 4


def _on_dark(place: jax.Array) -> jax.Array:
    square = jnp.floor(4 * place).astype(int)
    return (square[:, 0] + square[:, 1]) % 2 == 0


def _checkered_torus() -> Task:
    torus = Torus(2)

    def log_prob(x):
        dark = _on_dark((torus.project(x) + math.pi) / (2 * math.pi))
        return jnp.where(dark, math.log(2) - 2 * math.log(2 * math.pi), -jnp.inf)

    def features(x):
        return jnp.concatenate([jnp.cos(x), jnp.sin(x)], axis=1)

    return Task(
        torus,
        UniformOn(torus),
        lambda key, n: 2 * math.pi * _squares(key, n) - math.pi,
        log_prob,
        features,
        lambda x, out: out,
        2,
        lambda x, y: _chord(features(x), features(y)),
    )


def _checkered_sphere() -> Task:
    """Squares of equal areas: in the longitude and in the height."""
    sphere = Sphere(2)

    def sample(key, n):
        turn, height = _squares(key, n).T
        z, angle = 2 * height - 1, 2 * math.pi * turn
        across = jnp.sqrt(1 - z**2)
        return jnp.stack([across * jnp.cos(angle), across * jnp.sin(angle), z], axis=1)

    def log_prob(x):
        turn = jnp.arctan2(x[:, 1], x[:, 0]) / (2 * math.pi) % 1
        dark = _on_dark(jnp.stack([turn, jnp.clip((x[:, 2] + 1) / 2, 0, 1 - 1e-7)], axis=1))
        return jnp.where(dark, math.log(2) - math.log(4 * math.pi), -jnp.inf)

    return Task(
        sphere,
        UniformOn(sphere),
        sample,
        log_prob,
        lambda x: x,
        lambda x, out: sphere.to_tangent(x, out),
        3,
        _chord,
    )


def _mixture(manifold: Manifold, scale: float, reach: float) -> Task:
    """Four wrapped normals around means at one distance from the origin."""
    directions = jax.random.normal(jax.random.key(5), (4, manifold.dim))
    directions *= reach / jnp.linalg.norm(directions, axis=1, keepdims=True)
    origin = jnp.broadcast_to(manifold.origin, (4, *manifold.shape))
    means = manifold.exp(origin, manifold.tangent(origin, directions))

    def sample(key, n):
        which, drawn = jax.random.split(key)
        mean = means[jax.random.randint(which, (n,), 0, 4)]
        return manifold.wrapped_normal(drawn, mean, scale)

    def log_prob(x):
        each = [
            manifold.wrapped_normal_log_prob(x, jnp.broadcast_to(mean, x.shape), scale)
            for mean in means
        ]
        return jax.nn.logsumexp(jnp.stack(each), axis=0) - math.log(4)

    compact = math.isfinite(manifold.volume)
    return Task(
        manifold,
        UniformOn(manifold) if compact else WrappedNormal(manifold),
        sample,
        log_prob,
        lambda x: x.reshape(len(x), -1),
        lambda x, out: manifold.tangent(x, out),
        manifold.dim,
        _chord if compact else _geodesic(manifold),
    )


def _chord(x: jax.Array, y: jax.Array) -> jax.Array:
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    return jnp.linalg.norm(x[:, None] - y[None], axis=-1)


def _geodesic(manifold: Manifold) -> Callable[[jax.Array, jax.Array], jax.Array]:
    def apart(x, y):
        shape = (len(x), len(y), *manifold.shape)
        return manifold.dist(jnp.broadcast_to(x[:, None], shape), jnp.broadcast_to(y[None], shape))

    return apart
