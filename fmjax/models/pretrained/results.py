"""What loading gives: a network with the meaning of its output."""

from typing import Any, NamedTuple

from flax import linen as nn

from fmjax.conventions import ApplyFn
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
    """

    model: nn.Module
    params: Any
    apply_fn: ApplyFn
    prediction: str
    path: AffinePath
    family: str
    report: Report
    shape: tuple[int | None, ...]
