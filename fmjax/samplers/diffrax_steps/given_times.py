"""Steps to given times, as a diffrax controller. It imports diffrax, so it is imported late."""

from typing import Any

import diffrax
from jaxtyping import Float

from fmjax.conventions import Array


class OnNodes(diffrax.AbstractStepSizeController):
    """Steps from node to node, each of them accepted.

    `diffrax.StepTo` also checks the nodes inside of the program, by a host callback, which cannot
    be exported for several platforms; ours are checked before there is a program.
    """

    times: Float[Array, " nodes"]

    def wrap(self, direction: Any) -> "OnNodes":
        """The controller in diffrax's own time, which always increases."""
        return OnNodes(self.times * direction)

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order) -> tuple[Float[Array, ""], int]:
        """The end of the first step, and the number of the node after it."""
        return self.times[1], 2

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, following):
        """Goes on to the following node, whatever the error."""
        successful = diffrax.RESULTS.successful
        return True, t1, self.times[following], False, following + 1, successful
