"""What loading gives: a network with the meaning of its output, or an autoencoder."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jaxtyping import Float

from fmjax.conventions import ApplyFn, Array, Prediction
from fmjax.models.autoencoders import Latent
from fmjax.models.pretrained.report import Report
from fmjax.paths import AffinePath


class Network(NamedTuple):
    """A published network, in the convention of fmjax: t = 1 is the data, channels are last.

    Attributes:
        model: the Linen module.
        params: its parameters.
        apply_fn: ``apply_fn(params, x, t, labels)``, t (batch,) in [0, 1].
        prediction: what it gives, a name of `fmjax.predictions.PREDICTIONS`.
        path: the path it was trained on; ``path.schedule`` is what `as_velocity` takes.
        family: the name of its layout.
        report: what was read of the file, and what was not.
        shape: of the examples it was trained on, (height, width, channels), with None for a length
            that the file does not say.
        at_steps: whether `apply_fn` asks the model at the step of a diffusion that t lies at, and
            not at t; see `fmjax.schedules.at_steps`.
    """

    model: nn.Module
    params: Any
    apply_fn: ApplyFn
    prediction: Prediction
    path: AffinePath
    family: str
    report: Report
    shape: tuple[int | None, ...]
    at_steps: bool = False


class Autoencoder(NamedTuple):
    """A published autoencoder. Images are (batch, height, width, channels) in [-1, 1].

    Attributes:
        model: the Linen module.
        params: its parameters.
        encode: ``encode(x)``, a `fmjax.models.autoencoders.Latent` of mean and logvar, unscaled.
        decode: ``decode(z)``, images, of unscaled latents.
        scale: a flow in the latent space works on ``(z - shift) * scale``.
        shift: see `scale`.
        family: the name of its layout.
        report: what was read of the file, and what was not.
    """

    model: nn.Module
    params: Any
    encode: Callable[[Float[Array, "B H W C"]], Latent]
    decode: Callable[[Float[Array, "B h w c"]], Float[Array, "B H W C"]]
    scale: float
    shift: float
    family: str
    report: Report


def autoencoder(
    family: str, model: nn.Module, params: Any, report: Report, scale: float, shift: float
) -> Autoencoder:
    """An autoencoder with its parameters bound.

    Args:
        family: the name of its layout.
        model: a module with the methods ``encode`` and ``decode``.
        params: its parameters.
        report: of the file.
        scale: of the latents.
        shift: of the latents.
    """

    # The parameters stay an argument of the compiled programs, which would else hold a copy each.
    def bound(method: str) -> Callable:
        return partial(jax.jit(partial(model.apply, method=method)), {"params": params})

    return Autoencoder(
        model, params, bound("encode"), bound("decode"), scale, shift, family, report
    )
