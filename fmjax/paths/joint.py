"""The joint path: a path for each part of a pytree, at one time or at times of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Float, Int, PRNGKeyArray

from fmjax.array_checks import check_prefix
from fmjax.checks import check_positive
from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.manifolds import Product
from fmjax.names import named_leaves
from fmjax.paths.base import PathSample, check_is_path, check_noise, manifold_of
from fmjax.sources import Law, Shape


@dataclass(frozen=True)
class PartLaw:
    """The law of one part of a joint path: it looks at the shape of that part alone."""

    law: Law
    part: int
    tree: Any

    def sample(self, key: PRNGKeyArray, index: Int[Array, " batch"], shape: Shape) -> Any:
        """As `Law.sample`, of the part's shape."""
        return self.law.sample(key, index, self.tree.flatten_up_to(shape)[self.part])


@dataclass(frozen=True, eq=False)
class Joint:
    """Paths side by side, each of one part of x0 and x1; the distance is the sum of theirs.

    Args:
        paths: a dictionary, or another pytree, of paths, built as x0 and x1.
        weights: what each distance is multiplied by, positive numbers built as the paths; all 1 if
            None.

    Raises:
        InputError: there is no path, or something that is none; or the weights are not built as the
            paths are, or one is not positive.

    Example:
        >>> path = Joint({"place": AffinePath(), "colour": AffinePath(schedules.Cosine())})
        >>> x0 = {"place": jnp.zeros((4, 2)), "colour": jnp.zeros((4, 3))}
        >>> x1 = {"place": jnp.ones((4, 2)), "colour": jnp.ones((4, 3))}
        >>> path.sample(x0, x1, jnp.full(4, 0.5)).x_t["place"].shape
        (4, 2)
    """

    paths: Any
    weights: Any = None

    def __post_init__(self):
        if not jax.tree.leaves(self.paths):
            raise InputError(
                f"the paths of a joint path must have at least one; got {self.paths!r}."
            )
        for part, path in named_leaves(self.paths, "one").items():
            check_is_path(f"{part} of the paths", path)
        if self.weights is None:
            return
        if jax.tree.structure(self.weights) != jax.tree.structure(self.paths):
            raise InputError(
                f"weights must be built as the paths are, {jax.tree.structure(self.paths)}; got "
                f"{jax.tree.structure(self.weights)}."
            )
        for weight in jax.tree.leaves(self.weights):
            check_positive("a weight of a joint path", weight)

    @property
    def noise(self) -> Mapping[str, Law]:
        """The noise of every part, named after it: ``"position/z"``."""
        tree = jax.tree.structure(self.paths)
        return {
            f"{part}/{name}": PartLaw(law, i, tree)
            for i, (part, path) in enumerate(named_leaves(self.paths).items())
            for name, law in path.noise.items()
        }

    @property
    def manifold(self) -> Product | None:
        """The product of the manifolds of the parts; None if no part has one.

        Raises:
            InputError: some parts have a manifold and some have none.
        """
        parts = named_leaves(self.paths)
        found = {part: manifold_of(path) for part, path in parts.items()}
        flat = [part for part, manifold in found.items() if manifold is None]
        if len(flat) == len(found):
            return None
        if flat:
            raise InputError(
                f"the part {flat[0]} of this joint path has no manifold, and others have one; "
                f"write GeodesicPath(Euclidean(size)) for it, which is the straight path."
            )
        return Product(jax.tree.structure(self.paths).unflatten(found.values()))

    def sample(
        self, x0: Any, x1: Any, t: Any, noise: Mapping[str, Any] | None = None
    ) -> PathSample:
        """The point and the target of every part.

        Args:
            x0: source points, a pytree built as the paths.
            x1: data points, built as x0.
            t: times (batch,) for all parts, or a pytree of times that is a prefix of the paths.
            noise: an array for each name of `noise`.

        Returns:
            x_t and the target, built as x1.

        Raises:
            InputError: x0, x1 or t is built otherwise, or the noise is not what the parts take.
        """
        noise = check_noise(self, noise)
        parts = zip(
            named_leaves(self.paths).items(),
            self._split("x0", x0),
            self._split("x1", x1),
            self._times(t),
            strict=True,
        )
        samples = [
            path.sample(a, b, at, {key: noise[f"{part}/{key}"] for key in path.noise})
            for (part, path), a, b, at in parts
        ]
        tree = jax.tree.structure(self.paths)
        return PathSample(*(tree.unflatten(column) for column in zip(*samples, strict=True)))

    def distance(self, predicted: Any, target: Any, x_t: Any, t: Any) -> Float[Array, " batch"]:
        """The sum of the distances of the parts, each times its weight, (batch,).

        Raises:
            InputError: what the network gave is not built as the paths are.
        """
        paths = jax.tree.leaves(self.paths)
        weights = [1.0] * len(paths) if self.weights is None else jax.tree.leaves(self.weights)
        parts = zip(
            weights,
            paths,
            self._split("what apply_fn returns", predicted),
            self._split("the target", target),
            self._split("x_t", x_t),
            self._times(t),
            strict=True,
        )
        return sum(w * path.distance(p, goal, x, at) for w, path, p, goal, x, at in parts)

    def _split(self, what: str, tree: Any) -> list:
        paths = jax.tree.structure(self.paths)
        try:
            return paths.flatten_up_to(tree)
        except ValueError as error:
            raise InputError(
                f"{what} must be built as the paths are, {paths}; got {jax.tree.structure(tree)}."
            ) from error

    def _times(self, t: Any) -> list:
        check_prefix(t, self.paths)
        return jax.tree.leaves(jax.tree.broadcast(t, self.paths))
