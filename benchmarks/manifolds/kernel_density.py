"""A kernel density on the sphere whose kernels are as narrow as the data are dense.

    p(x) = (1 - m) mean_i vMF(x; y_i, 1 / h_i^2) + m / 4 pi,   h_i = max(c d_i, floor)

with d_i the distance of y_i to its k-th neighbour among the other points. k, c, the floor and m are
those with the best likelihood of the validation points. In float64.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import logsumexp

_NEIGHBOURS = (3, 6, 12, 25, 50)
_SCALES = (0.35, 0.5, 0.7, 1.0)
_FLOORS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
_UNIFORM = (0.003, 0.01, 0.03)


class KernelDensity(NamedTuple):
    """A density of that form.

    Attributes:
        points: y (n, 3).
        widths: h (n,).
        uniform: m.
    """

    points: np.ndarray
    widths: np.ndarray
    uniform: float

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """The log-density in nats (batch,) of points (batch, 3)."""
        kernels = _log_kernels(_falls(x, self.points), self.widths)
        return _mixed(logsumexp(kernels, axis=1) - math.log(len(self.points)), self.uniform)

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Points (n, 3) drawn from it."""
        chosen = rng.integers(len(self.points), size=n)
        mean, kappa = self.points[chosen], self.widths[chosen] ** -2
        u = rng.uniform(size=n)
        fall = -np.log(u + (1 - u) * np.exp(-2 * kappa)) / kappa  # 1 - cos of the angle
        across = _tangent(rng, mean)
        sine = np.sqrt(np.maximum(fall * (2 - fall), 0))
        near = (1 - fall)[:, None] * mean + sine[:, None] * across
        far = rng.normal(size=(n, 3))
        far /= np.linalg.norm(far, axis=1, keepdims=True)
        return np.where(rng.uniform(size=(n, 1)) < self.uniform, far, near)


def fit_kernel_density(train: np.ndarray, validation: np.ndarray) -> KernelDensity:
    """The one that the validation points are likeliest under."""
    distances = cKDTree(train).query(train, max(_NEIGHBOURS) + 1)[0]
    falls, best, found = _falls(validation, train), -math.inf, None
    for k, c, floor in itertools.product(_NEIGHBOURS, _SCALES, _FLOORS):
        widths = np.maximum(c * distances[:, k], floor)
        kernels = logsumexp(_log_kernels(falls, widths), axis=1) - math.log(len(train))
        for m in _UNIFORM:
            value = _mixed(kernels, m).mean()
            if value > best:
                best, found = value, KernelDensity(train, widths, m)
    return found


def _falls(x: np.ndarray, points: np.ndarray) -> np.ndarray:
    """1 - cos of the angles (batch, n): half the squared chord, without cancellation nearby."""
    return 0.5 * sum((x[:, None, i] - points[None, :, i]) ** 2 for i in range(3))


def _log_kernels(falls: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """log vMF (batch, n) of 1 - cos."""
    kappa = widths**-2
    norm = np.log(kappa) - math.log(2 * math.pi) - np.log1p(-np.exp(-2 * kappa))
    return norm - kappa * falls


def _mixed(log_p: np.ndarray, uniform: float) -> np.ndarray:
    flat = math.log(uniform) - math.log(4 * math.pi)
    return np.logaddexp(log_p + math.log1p(-uniform), flat)


def _tangent(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Random unit tangent vectors (n, 3)."""
    v = rng.normal(size=x.shape)
    v -= np.sum(v * x, axis=1, keepdims=True) * x
    return v / np.linalg.norm(v, axis=1, keepdims=True)
