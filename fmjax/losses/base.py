"""What every loss function is, and how one says what it needs beside its five arguments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
from jaxtyping import Float, Int

from fmjax.array_checks import check_per_example, check_returned
from fmjax.checks import check_methods
from fmjax.conventions import Array, Labels, Params
from fmjax.errors import InputError
from fmjax.sources import Law

Loss = Float[Array, ""] | Float[Array, " batch"]
"""One number for the batch, or one for each example."""


class LossFn(Protocol):
    """``loss_fn(params, x0, x1, t, labels) -> scalar``: no key, no hidden state.

    The arguments after params are those that `fmjax.Draw` gives.

    Attributes:
        noise: the laws, by name, of the noise that it takes too; empty for most.
        uses_target: whether it takes a second set of parameters, the averaged ones.
        uses_step: whether it takes the number of the training step.
    """

    @property
    def noise(self) -> Mapping[str, Law]:
        """The laws of the noise by name."""

    @property
    def uses_target(self) -> bool:
        """Whether it takes ``target_params``."""

    @property
    def uses_step(self) -> bool:
        """Whether it takes ``step``."""

    def __call__(
        self,
        params: Params,
        x0: Any,
        x1: Any,
        t: Any,
        labels: Labels = None,
        *,
        noise: Mapping[str, Any] | None = None,
        target_params: Params = None,
        step: Int[Array, ""] | None = None,
    ) -> Loss:
        """The loss of a batch, or the losses of its examples (batch,)."""


@dataclass(frozen=True, eq=False)
class DeclaredLoss:
    """A loss that says what it needs, and has every call checked for it; see `declare`."""

    loss: Callable[..., Loss]
    noise: Mapping[str, Law] = field(default_factory=dict)
    uses_target: bool = False
    uses_step: bool = False

    def __call__(
        self,
        params: Params,
        x0: Any,
        x1: Any,
        t: Any,
        labels: Labels = None,
        *,
        noise: Mapping[str, Any] | None = None,
        target_params: Params = None,
        step: Int[Array, ""] | None = None,
    ) -> Loss:
        """The loss; see `LossFn`."""
        given = noise or {}
        extra: dict[str, Any] = {}
        if given.keys() != self.noise.keys():
            needed = ", ".join(self.noise) or "none"
            raise InputError(
                f"this loss takes the noise {needed}; got {', '.join(given) or 'none'}. Draw it by "
                "args = Draw(noise=loss_fn.noise)(...), and write "
                "loss_fn(params, *args, noise=args.noise)."
            )
        if self.noise:
            extra["noise"] = given
        if self.uses_target:
            if target_params is None:
                raise InputError(
                    "this loss compares with averaged parameters, and none came: write "
                    "target_params=ema_params; a training step that keeps an average gives them."
                )
            extra["target_params"] = jax.lax.stop_gradient(target_params)
        if self.uses_step:
            extra["step"] = step
        loss = self.loss(params, x0, x1, t, labels, **extra)
        if getattr(loss, "ndim", 0):
            check_per_example("the loss", loss, len(jax.tree.leaves(x1)[0]))
        else:
            number = jax.ShapeDtypeStruct((), "float32")
            check_returned("the loss", loss, "one number", number)
        return loss


def declare(
    loss: Callable[..., Loss],
    *,
    noise: Mapping[str, Law] | None = None,
    uses_target: bool = False,
    uses_step: bool = False,
) -> DeclaredLoss:
    """Says what a loss needs beside its five arguments.

    Args:
        loss: ``loss(params, x0, x1, t, labels)``, which also takes what is declared.
        noise: laws by name; the loss takes ``noise``, a dictionary of what was drawn. `fmjax.Draw`
            draws it, for each example by its place in the global batch.
        uses_target: whether it takes ``target_params``: the training step gives the averaged
            parameters, through which no gradient flows. A frozen network needs none of this: the
            loss closes over it.
        uses_step: whether it takes ``step``, int32 (), the number of the training step, for what
            changes during training; None, as the held-out loss has it, stands for the end.

    Returns:
        The loss, which raises InputError when it is called without what it needs, or gives neither
        one number nor one per example.

    Raises:
        InputError: the loss is no function.
    """
    check_methods("the loss", loss, such_as="lambda params, x0, x1, t, labels: ...")
    return DeclaredLoss(loss, dict(noise or {}), uses_target, uses_step)
