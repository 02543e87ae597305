"""Draws: all the randomness of one training step, from a key to the arguments of the loss.

Everything random about an example is keyed by its position in the global batch. A step therefore
gives the same numbers on one device or on many, on one host or on several, by jit or by pmap.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
from jaxtyping import Float, Int, PRNGKeyArray, Shaped

from fmjax.array_checks import check_alike, check_leading_size, check_returned
from fmjax.checks import check_at_least, check_between, check_methods
from fmjax.conditions import check_conditions
from fmjax.conventions import Array, Labels, Span, check_key, check_places, example_keys
from fmjax.couplings import Coupling, independent
from fmjax.couplings.base import paired
from fmjax.errors import InputError
from fmjax.guidance import drop_labels
from fmjax.sources import STANDARD_NORMAL, Law, Source, draw_source, example_shape
from fmjax.times import PerElement, TimeDistribution, Uniform, stratified


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossArgs:
    """What a loss takes after params: ``loss_fn(params, *args)``, which is x0, x1, t and labels.

    A loss that declares noise takes it by its name: ``loss_fn(params, *args, noise=args.noise)``.

    Attributes:
        x0: source points (batch, ...).
        x1: data (batch, ...).
        t: times (batch,), or a pytree of times; spans of two, where these are drawn.
        labels: conditions with a leading batch axis, or None.
        noise: what was drawn from each law of `Draw.noise`, by name.

    Example:
        >>> args = Draw()(jax.random.key(0), jnp.arange(4), jnp.ones((4, 2)))
        >>> x0, x1, t, labels = args  # without the noise, which a loss takes by name
        >>> x0.shape, args.noise
        ((4, 2), {})
    """

    x0: Any
    x1: Any
    t: Any
    labels: Labels
    noise: dict[str, Any]

    def __iter__(self) -> Iterator[Any]:
        yield from (self.x0, self.x1, self.t, self.labels)


@dataclass(frozen=True, eq=False)
class Draw:
    """Draws x0, t, the coupling, the label drop and noise for one batch of data.

    Args:
        coupling: how source and data points are paired.
        time_distribution: the distribution of t, or of two times (`fmjax.times.spans`); or a pytree
            of distributions, a prefix of x1, for times of their own, independent of each other.
        conditions: what the labels are, with their nulls and drop rates (`fmjax.conditions`), built
            as the labels; None drops nothing.
        drop_all: probability that all conditions of an example are dropped together.
        stratify: the size of the global batch, to draw one t from each of as many equally likely
            intervals of the distribution, whatever the number of devices; None draws them
            independently.
        source: the distribution of x0.
        noise: laws by name, of what the loss takes beside the pair: ``loss_fn.noise``.

    Raises:
        InputError: a rate lies outside [0, 1], stratify is below 1, or an object is not what it is
            to be.

    Example:
        >>> draw = Draw(conditions=ClassIds(10, drop_rate=0.1))
        >>> args = draw(jax.random.key(0), jnp.arange(4), jnp.ones((4, 2)), jnp.array([0, 1, 2, 3]))
        >>> args.x0.shape, args.t.shape
        ((4, 2), (4,))
    """

    coupling: Coupling = independent
    time_distribution: TimeDistribution | Any = field(default_factory=Uniform)
    conditions: Any = None
    drop_all: float = 0.0
    stratify: int | None = None
    source: Source = STANDARD_NORMAL
    noise: Mapping[str, Law] = field(default_factory=dict)

    def __post_init__(self):
        check_methods("the coupling", self.coupling, such_as="couplings.exact()")
        check_methods("the source", self.source, "sample", such_as="StandardNormal()")
        for law in jax.tree.leaves(self.time_distribution) or [self.time_distribution]:
            method = "spans" if hasattr(law, "spans") else "quantile"
            check_methods("the time distribution", law, method, such_as="times.Uniform()")
        if not isinstance(self.noise, Mapping) or not all(isinstance(k, str) for k in self.noise):
            raise InputError(
                f"the noise must be a dictionary of laws by name; got {self.noise!r:.60}."
            )
        for name, law in self.noise.items():
            check_methods(f"the law of {name}", law, "sample", such_as="StandardNormal()")
        check_conditions(self.conditions)
        check_between("drop_all", self.drop_all, 0, 1)
        if self.stratify is not None:
            check_at_least("stratify, the size of the global batch,", self.stratify)

    def __call__(
        self,
        key: PRNGKeyArray,
        index: Int[Array, " batch"],
        x1: Any,
        labels: Labels = None,
        x0: Any = None,
    ) -> LossArgs:
        """The arguments of the loss for one step.

        Args:
            key: the key of this step.
            index: position of each example in the global batch, int (batch,).
            x1: data (batch, ...), or a pytree of such arrays.
            labels: conditions with a leading batch axis, or None.
            x0: source points that are paired with x1 already, built as x1, as stored pairs are;
                the source is asked if None. The coupling is applied in both cases.

        Returns:
            x0, x1, t, labels and the noise.

        Raises:
            InputError: the source or the labels do not fit, or as the coupling says.
        """
        check_key(key)
        check_places(index)
        check_leading_size(x1, len(index), "x1")
        check_leading_size(labels, len(index))
        check_alike(x1 if x0 is None else x0, x1)
        x0_key, t_key, drop_key, pair_key, noise_key = jax.random.split(key, 5)
        shape = example_shape(x1)
        if x0 is None:
            x0 = draw_source(self.source, x0_key, index, shape)
        t = self._times(t_key, index, x1)
        # Pair before dropping, so that a condition-aware coupling sees the true conditions.
        x0, x1, labels = paired(self.coupling, pair_key, x0, x1, labels)
        noise = {
            name: law.sample(jax.random.fold_in(noise_key, _number(name)), index, shape)
            for name, law in self.noise.items()
        }
        check_leading_size(noise, len(index), "the noise of a loss")
        if labels is not None and self.conditions is not None:
            keys = example_keys(drop_key, index)
            labels = drop_labels(keys, labels, self.conditions, drop_all=self.drop_all)
        return LossArgs(x0, x1, t, labels, noise)

    def _times(self, key: PRNGKeyArray, index: Int[Array, " batch"], x1: Any) -> Any:
        """One time for all of x1, or one for each part that has a distribution of its own."""
        distributions, tree = jax.tree.flatten(self.time_distribution)
        if tree == jax.tree.structure(0):
            return self._time(key, index, self.time_distribution, x1)
        try:
            parts = tree.flatten_up_to(x1)
        except ValueError as error:
            raise InputError(
                f"the time distributions must be a prefix of x1, {jax.tree.structure(x1)}; got "
                f"{tree}."
            ) from error
        each = enumerate(zip(distributions, parts, strict=True))
        return tree.unflatten(
            [
                self._time(jax.random.fold_in(key, i), index, distribution, part)
                for i, (distribution, part) in each
            ]
        )

    def _time(
        self, key: PRNGKeyArray, index: Int[Array, " batch"], distribution: Any, x1: Any
    ) -> Float[Array, "batch ..."] | Span:
        keys = example_keys(key, index)
        if hasattr(distribution, "spans"):
            if self.stratify is not None:
                raise InputError("spans of two times cannot be stratified; leave stratify out.")
            return _span(distribution, keys)
        if isinstance(distribution, PerElement):
            if self.stratify is not None:
                raise InputError("times of each element cannot be stratified; leave stratify out.")
            shape = distribution.elements(x1)
            return _quantile(distribution, jax.vmap(lambda k: jax.random.uniform(k, shape))(keys))
        u = jax.vmap(jax.random.uniform)(keys)
        if self.stratify is not None:
            # Rotate the strata by one random offset a step: no batch position keeps one stratum.
            offset = jax.random.randint(jax.random.fold_in(key, 2**31), (), 0, self.stratify)
            u = stratified(u, (index + offset) % self.stratify, self.stratify)
        return _quantile(distribution, u)


def _span(distribution: Any, keys: Shaped[Array, "batch ..."]) -> Span:
    span = distribution.spans(keys)
    one: Any = jax.ShapeDtypeStruct(keys.shape, "float32")
    check_returned(f"spans of {type(distribution).__name__}", span, "its keys", Span(one, one))
    return span


def _quantile(distribution: Any, u: Float[Array, "*u"]) -> Float[Array, "*u"]:
    t = distribution.quantile(u)
    check_returned(f"quantile of {type(distribution).__name__}", t, "u", u)
    return t


def _number(name: str) -> int:
    """A number for a name, so that what one law draws does not depend on which others there are."""
    return zlib.crc32(name.encode())
