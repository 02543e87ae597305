"""Conditions in the cost, so that optimal transport does not hurt conditional generation.

Plain minibatch transport sends each class its own part of the source, so that q(x0 | label) in
training is not the q(x0) from which one samples. The cure of Cheng and Schwing ("The Curse of
Conditions", C2OT, arXiv:2503.10636): before pairing, the source point x0_i takes the condition c_i
of the place at which it was drawn, independently of it; the cost of giving it to x1_j is

    |x0_i - x1_j|^2 + w d(c_i, c_j),

so that points move among like conditions only, and each keeps the whole source.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from fmjax.array_checks import check_leading_size
from fmjax.checks import check_between, check_name
from fmjax.conventions import Array, Labels, at_least_float32
from fmjax.couplings.cost import squared_cost
from fmjax.errors import InputError

CONDITION_DISTANCES = ("cosine", "squared")
SAME = 1e-6  # cosine distances below this are rounding


class Conditions(Protocol):
    """``conditions(cost, labels) -> cost``, both (n, n); rows are source points."""

    def __call__(self, cost: Float[Array, "n n"], labels: Labels) -> Float[Array, "n n"]:
        """The cost with the conditions in it."""


@dataclass(frozen=True)
class SameClass:
    """Pairs within one class only: w = infinity, d = 0 for equal labels and 1 otherwise.

    Args:
        of: picks the array that must agree, (batch,) or (batch, ...), from the labels; the labels
            themselves if None.
    """

    of: Callable[[Labels], Shaped[Array, "batch ..."]] | None = None

    def __call__(self, cost: Float[Array, "n n"], labels: Labels) -> Float[Array, "n n"]:
        """The cost, infinite between unlike labels; every row keeps at least its own place.

        Raises:
            InputError: the labels are None, or a pytree without `of`.
        """
        condition = jnp.reshape(pick(labels, self.of), (len(cost), -1))
        same = jnp.ones(cost.shape, bool)
        for k in range(condition.shape[1]):
            same &= condition[:, None, k] == condition[None, :, k]
        return jnp.where(same, cost, jnp.inf)


@dataclass(frozen=True)
class NearConditions:
    """Pairs among near conditions, the weight w found anew for every batch.

    Call (i, j) a candidate if x0_i would come cheaper to x1_j, its condition counted, than the x0_j
    drawn there: |x0_i - x1_j|^2 + w d(c_i, c_j) <= |x0_j - x1_j|^2. The share of candidates among
    the n^2 pairs falls as w grows; w is the weight, found by bisection, past which the share is at
    most the target ratio (r_tar in the paper), and 0 if it is so without.

    Args:
        ratio: the target ratio, in (0, 1]. The n places themselves always count, so a ratio below
            1 / n asks for the largest weight.
        distance: ``"cosine"``, 1 - cos(c_i, c_j), as in the paper, for embeddings; or
            ``"squared"``, |c_i - c_j|^2, for coordinates.
        of: picks the array of conditions (batch, ...) from the labels; the labels if None.

    Raises:
        InputError: the ratio is outside (0, 1] or the distance is unknown.
    """

    ratio: float = 0.01
    distance: str = "cosine"
    of: Callable[[Labels], Shaped[Array, "batch ..."]] | None = None

    def __post_init__(self):
        check_between("ratio, a share of pairs,", self.ratio, 0, 1, "(]")
        check_name("distance", self.distance, CONDITION_DISTANCES)

    def __call__(self, cost: Float[Array, "n n"], labels: Labels) -> Float[Array, "n n"]:
        """The cost with w d(c_i, c_j) added.

        Raises:
            InputError: the labels are None, or a pytree without `of`.
        """
        distance = self.distances(labels).astype(cost.dtype)
        return cost + find_weight(cost, distance, self.ratio) * distance

    def distances(self, labels: Labels) -> Float[Array, "n n"]:
        """The distances d(c_i, c_j) (n, n)."""
        c = at_least_float32(pick(labels, self.of))
        c = c.reshape(len(c), -1)
        if self.distance == "squared":
            return squared_cost(c, c)
        # 1 - cos = |a - b|^2 / 2 for unit vectors; two zero vectors are alike.
        norm = jnp.linalg.norm(c, axis=1, keepdims=True)
        unit = c / jnp.where(norm > 0, norm, 1)
        distance = squared_cost(unit, unit) / 2
        return jnp.where(distance < SAME, 0, distance)


def find_weight(
    cost: Float[Array, "n n"], distance: Float[Array, "n n"], ratio: float
) -> Float[Array, ""]:
    """The least w >= 0 past which mean(C_ij + w d_ij <= C_jj) is at most the ratio, a scalar.

    A pair stops being a candidate at w_ij = (C_jj - C_ij) / d_ij, so the search ends at the
    largest of these, where no pair is left that a weight could still exclude.
    """
    gain = jnp.diagonal(cost)[None, :] - cost
    last = gain / jnp.where(distance > 0, distance, 1)
    last = jnp.where((distance > 0) | (gain < 0), last, jnp.inf)

    def too_many(w):
        return jnp.mean(last > w, dtype=cost.dtype) > ratio

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        above = too_many(middle)
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    top = jnp.max(last, where=jnp.isfinite(last), initial=0)
    steps = 2 * jnp.finfo(cost.dtype).nmant
    high = jax.lax.fori_loop(0, steps, halve, (jnp.zeros_like(top), top))[1]
    return jnp.where(too_many(0), high, 0)


def pick(
    labels: Labels, of: Callable[[Labels], Shaped[Array, "batch ..."]] | None
) -> Shaped[Array, "batch ..."]:
    """The array of conditions in the labels, as it is there.

    Raises:
        InputError: there are no labels, or several arrays and nothing that picks one.
    """
    if labels is None:
        raise InputError(
            "a condition-aware coupling needs the labels of the batch; got None. "
            "Give labels, or leave conditions out."
        )
    if of is not None:
        picked = of(labels)
        check_leading_size(picked, len(jax.tree.leaves(labels)[0]), "what of picks")
        if not hasattr(picked, "shape"):
            raise InputError(f"of must pick one array of the labels; got {picked!r:.60}.")
        return picked
    leaves = jax.tree.leaves(labels)
    if len(leaves) != 1:
        raise InputError(
            f"labels hold {len(leaves)} arrays, and one must be picked: "
            "write of=lambda labels: labels['text'], say."
        )
    return leaves[0]
