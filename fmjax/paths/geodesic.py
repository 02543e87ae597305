"""The geodesic path: the affine path of a manifold, where exp and log stand in for plus and minus.

On a manifold a network predicts the velocity, a tangent vector at x_t, or the end x1 of the path.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.array_checks import check_alike, check_returned, times_of
from fmjax.checks import check_methods, check_name
from fmjax.conventions import Array, at_least_float32, expand
from fmjax.errors import InputError
from fmjax.manifolds import Manifold
from fmjax.paths.base import Path, PathSample, check_noise
from fmjax.paths.distances import SquaredError
from fmjax.schedules import Linear, Schedule
from fmjax.schedules.base import check_schedule
from fmjax.sources import NO_NOISE


@dataclass(frozen=True)
class GeodesicPath:
    """The geodesic from a source point to a data point, travelled at any pace.

    x_t = exp_{x0}(kappa_t log_{x0}(x1)),  u_t = d x_t / dt.

    kappa_t is alpha_t of a schedule: with the default x_t moves at constant speed, and on
    `Euclidean` this is the straight path. u_t is a tangent vector at x_t of length
    |d_kappa_t| dist(x0, x1). It is computed by a forward derivative of exp, which is smooth
    everywhere; transport of log_{x0}(x1) to x_t is the same, but not where x_t comes near the
    farthest points from x0.

    Where x0 and x1 have several shortest geodesics, as antipodal points of a sphere have, the path
    is the one whose direction `log` takes there; the class of the manifold says which. Under a
    source with a density such pairs have probability 0.

    Source: Chen and Lipman, arXiv:2302.03660, where kappa is 1 - kappa of here.

    Args:
        manifold: where the points are, `fmjax.manifolds`.
        kappa: a schedule of `fmjax.schedules`, of which alpha_t is taken; from 0 to 1.

    Raises:
        InputError: the manifold or the schedule is none, or alpha does not go from 0 to 1.

    Example:
        >>> from fmjax.manifolds import Sphere
        >>> x0, x1 = jnp.array([[1.0, 0.0, 0.0]]), jnp.array([[0.0, 1.0, 0.0]])
        >>> GeodesicPath(Sphere(2)).sample(x0, x1, jnp.array([0.5])).x_t.round(2)
        Array([[0.71, 0.71, 0.  ]], dtype=float32)
    """

    manifold: Manifold
    kappa: Schedule = field(default_factory=Linear)
    noise = NO_NOISE

    def __post_init__(self):
        check_methods("the manifold", self.manifold, "exp", "log", such_as="manifolds.Sphere(2)")
        check_schedule("kappa", self.kappa)
        with jax.ensure_compile_time_eval():
            ends = [float(one) for one in self.kappa.alpha(jnp.asarray([0.0, 1.0]))]
        if abs(ends[0]) > 1e-4 or abs(ends[1] - 1) > 1e-4:
            raise InputError(
                f"alpha of kappa must go from 0 at t = 0 to 1 at t = 1; got {ends[0]:.3g} and "
                f"{ends[1]:.3g} of {self.kappa}. Write kappa=Linear() or kappa=Cosine()."
            )

    def sample(
        self,
        x0: Any,
        x1: Any,
        t: Float[Array, "batch ..."],
        noise: Mapping[str, Any] | None = None,
    ) -> PathSample:
        """The point and the conditional velocity at t.

        Args:
            x0: source points (batch, ..., *shape of the manifold), or a pytree of such arrays for a
                `fmjax.manifolds.Product`.
            x1: data points, built as x0.
            t: times (batch,) in [0, 1]; or (batch, n, ...), one for each point of leading axes.
            noise: none: the pair fixes the path.

        Returns:
            x_t and u_t, built as x1, in float32 or wider whatever the inputs are.

        Raises:
            InputError: noise came; x0 or x1 is not built or shaped as points of the manifold, or is
                off it by more than 1e-4 where its values are at hand; or t has the wrong shape.
        """
        check_noise(self, noise)
        self.manifold.check("x0", x0)
        self.manifold.check("x1", x1)
        check_alike(x0, x1)
        direction = self.manifold.log(x0, x1)
        t = self._times(t, direction)
        kappa = self.kappa.alpha(t)
        rate = jnp.broadcast_to(self.kappa.d_alpha(t), kappa.shape).astype(kappa.dtype)

        def at(kappa):
            u = jax.tree.map(lambda leaf: expand(kappa, leaf) * leaf, direction)
            return self.manifold.exp(x0, u)

        return PathSample(*jax.jvp(at, (kappa,), (rate,)))

    def distance(self, predicted: Any, target: Any, x_t: Any, t: Any) -> Float[Array, " batch"]:
        """The squared length of the error in the metric at x_t, over the dimension (batch,)."""
        square, features = self.squared_error(predicted, target, x_t, t)
        return square / features

    def squared_error(self, predicted: Any, target: Any, x_t: Any, t: Any) -> SquaredError:
        """The squared length of the error in the metric at x_t, and the dimension."""
        check_returned("apply_fn", predicted, "x", target)
        error = jax.tree.map(lambda u, v: at_least_float32(u) - v, predicted, target)
        return self._summed(self.manifold.inner(x_t, error, error))

    def predicting(self, prediction: str) -> Path:
        """The path on which a network predicts the velocity, this one, or the end x1.

        Raises:
            InputError: it is to predict something else.
        """
        check_name("prediction on a manifold", prediction, ("velocity", "x1"))
        return self if prediction == "velocity" else Endpoint(self)

    def _summed(self, square: Float[Array, "batch ..."]) -> SquaredError:
        """Squared lengths, summed over the points of one example."""
        whole = square.reshape(len(square), -1)
        return SquaredError(jnp.sum(whole, axis=1), whole.shape[1] * self.manifold.dim)

    def _times(self, t: Any, x: Any) -> Array:
        leaf = jax.tree.leaves(x)[0]
        shape = jax.tree.leaves(self.manifold.shape, is_leaf=lambda one: isinstance(one, tuple))[0]
        return times_of(t, jax.ShapeDtypeStruct(leaf.shape[: leaf.ndim - len(shape)], leaf.dtype))


@dataclass(frozen=True)
class Endpoint:
    """A geodesic path on which the network predicts the data point x1 in place of the velocity.

    The distance is dist(x1', x1)^2 over the dimension, with x1' the point of the manifold nearest
    to what the network gives. `fmjax.as_velocity` turns such a network into a velocity. Source:
    Zaghen et al., arXiv:2502.12981 (RG-VFM).

    Args:
        path: the geodesic path.
    """

    path: GeodesicPath
    takes: ClassVar[str] = "x1"
    noise = NO_NOISE

    @property
    def manifold(self) -> Manifold:
        """The manifold of the path."""
        return self.path.manifold

    def sample(
        self,
        x0: Any,
        x1: Any,
        t: Float[Array, "batch ..."],
        noise: Mapping[str, Any] | None = None,
    ) -> PathSample:
        """The point at t, and x1; see `GeodesicPath.sample`."""
        x_t = self.path.sample(x0, x1, t, noise).x_t
        return PathSample(x_t, jax.tree.map(at_least_float32, x1))

    def distance(self, predicted: Any, target: Any, x_t: Any, t: Any) -> Float[Array, " batch"]:
        """The squared distance of x1' and x1, over the dimension (batch,)."""
        square, features = self.squared_error(predicted, target, x_t, t)
        return square / features

    def squared_error(self, predicted: Any, target: Any, x_t: Any, t: Any) -> SquaredError:
        """The squared distance of x1' and x1, and the dimension."""
        check_returned("apply_fn", predicted, "x", target)
        end = self.manifold.project(predicted)
        return self.path._summed(jnp.square(self.manifold.dist(end, target)))
