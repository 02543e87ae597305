"""The draw of a configuration, as `fmjax.training.fit` takes it."""

import dataclasses
from typing import Any

from jaxtyping import Int, PRNGKeyArray

from fmjax.conventions import Array
from fmjax.factory import Experiment
from fmjax.training.parallelism import Jit, Pmap


@dataclasses.dataclass(frozen=True, eq=False)
class RunDraw:
    """``draw(key, index, x1, labels, x0)``, for a batch that is whole or spread over devices.

    Attributes:
        experiment: whose draw it is.
        layout: how the batch is spread; None where it is whole.
    """

    experiment: Experiment
    layout: Jit | Pmap | None = None

    def on(self, layout: Jit | Pmap) -> "RunDraw":
        """The same for a layout: a coupling over the whole batch has to know the devices."""
        return dataclasses.replace(self, layout=layout)

    def __call__(
        self,
        key: PRNGKeyArray,
        index: Int[Array, " batch"],
        x1: Any,
        labels: Any = None,
        x0: Any = None,
    ) -> Any:
        """The arguments of the loss, as `fmjax.draws.Draw` gives them."""
        batch = {"index": index, "x1": x1, "labels": labels, "x0": x0}
        batch = {name: x for name, x in batch.items() if x is not None}
        return self.experiment.draw(key, batch, self.layout)
