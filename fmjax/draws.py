"""Draws: all the randomness of one training step, from a key to the arguments of the loss.

Everything random about an example is keyed by its position in the global batch. A step therefore
gives the same numbers on one device or on many, on one host or on several, by jit or by pmap.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax

from fmjax.checks import check_at_least, check_between
from fmjax.conventions import Array, Labels
from fmjax.couplings import Coupling, independent
from fmjax.guidance import drop_labels
from fmjax.paths import Noisy
from fmjax.times import TimeDistribution, Uniform, stratified


class LossArgs(NamedTuple):
    """What ``loss_fn(params, *args)`` takes: x0, x1 (batch, ...), t (batch,), labels."""

    x0: Array | Noisy
    x1: Array
    t: Array
    labels: Labels


def example_keys(key: Array, index: Array) -> Array:
    """One key per example: ``fold_in(key, index)`` for each index (batch,)."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def normal(key: Array, index: Array, shape: tuple[int, ...]) -> Array:
    """Standard normal source points x0 (batch, *shape), float32, one key per example."""
    return jax.vmap(lambda k: jax.random.normal(k, shape))(example_keys(key, index))


@dataclass(frozen=True)
class Draw:
    """Draws x0, t, the coupling and the label drop for one batch of data.

    Args:
        coupling: how source and data points are paired.
        time_distribution: the distribution of t.
        null_labels: the null condition, without a batch axis; unused when the rate is 0.
        drop_rate: probability that an example's label is replaced by the null condition.
        stratify: the size of the global batch, to draw one t from each of as many equally likely
            intervals of the distribution, whatever the number of devices; None draws them
            independently.
        noisy: draws the noise z of a stochastic path too; x0 is then ``Noisy(x0, z)``.

    Raises:
        InputError: the drop rate lies outside [0, 1], or stratify is below 1.
    """

    coupling: Coupling = independent
    time_distribution: TimeDistribution = field(default_factory=Uniform)
    null_labels: Labels = None
    drop_rate: float = 0.0
    stratify: int | None = None
    noisy: bool = False

    def __post_init__(self):
        check_between("the drop rate", self.drop_rate, 0, 1)
        if self.stratify is not None:
            check_at_least("stratify, the size of the global batch,", self.stratify)

    def __call__(
        self, key: Array, index: Array, x1: Array, labels: Labels = None, x0: Array | None = None
    ) -> LossArgs:
        """The arguments of the loss for one step.

        Args:
            key: the key of this step.
            index: position of each example in the global batch, int (batch,).
            x1: data (batch, ...).
            labels: conditions with a leading batch axis, or None.
            x0: source points that are paired with x1 already (batch, ...), as stored pairs are;
                standard normal ones are drawn if None. The coupling is applied in both cases.

        Returns:
            x0, x1, t and labels.
        """
        x0_key, t_key, drop_key, pair_key, z_key = jax.random.split(key, 5)
        if x0 is None:
            x0 = normal(x0_key, index, x1.shape[1:])
        u = jax.vmap(jax.random.uniform)(example_keys(t_key, index))
        if self.stratify is not None:
            # Rotate the strata by one random offset a step: no batch position keeps one stratum.
            offset = jax.random.randint(jax.random.fold_in(t_key, 2**31), (), 0, self.stratify)
            u = stratified(u, (index + offset) % self.stratify, self.stratify)
        t = self.time_distribution.quantile(u)
        # Pair before dropping, so that a condition-aware coupling sees the true conditions.
        x0, x1, labels = self.coupling(pair_key, x0, x1, labels)
        if self.noisy:
            x0 = Noisy(x0, normal(z_key, index, x1.shape[1:]))
        if labels is not None and self.drop_rate > 0:
            keys = example_keys(drop_key, index)
            labels = drop_labels(keys, labels, self.null_labels, self.drop_rate)
        return LossArgs(x0, x1, t, labels)
