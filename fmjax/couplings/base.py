"""What every coupling is: a function that re-pairs a batch."""

from collections.abc import Callable

from fmjax.conventions import Array, Labels

Coupling = Callable[[Array, Array, Array, Labels], tuple[Array, Array, Labels]]
"""``coupling(key, x0, x1, labels) -> (x0, x1, labels)``, each with its leading batch axis."""


def independent(
    key: Array, x0: Array, x1: Array, labels: Labels = None
) -> tuple[Array, Array, Labels]:
    """The product coupling q0(x0) q1(x1): every pair stays as it was drawn; the key is not used."""
    del key
    return x0, x1, labels
