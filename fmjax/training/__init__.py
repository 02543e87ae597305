"""Training: `fit`, and what it is made of: state, optimiser, step, mesh, and two ways to compile.

`fmjax.training.fit` needs more packages than the rest of this one (grain, orbax, tqdm), which are
imported when it is first asked for.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what `__getattr__` gives, with its types
    from fmjax.training.fitting import fit

__all__ = ["fit"]


def __getattr__(name: str) -> Callable:
    """Imports `fit` when it is first used."""
    if name == "fit":
        from fmjax.training.fitting import fit

        return fit
    raise AttributeError(f"module 'fmjax.training' has no attribute {name!r}")
