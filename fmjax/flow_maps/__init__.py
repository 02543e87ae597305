"""Flow maps: networks that jump from one time to another in one evaluation.

`Jumps`: the solver that chains jumps.
"""

from fmjax.flow_maps.jumps import Jumps

__all__ = ["Jumps"]
