"""Features of examples, as an argument of every metric: what they are called, and a function.

Any function from examples to rows of numbers will do. What two sets are compared in decides what a
distance between them means, so a name and a digest go with it into every report and every file.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float64, Real, Shaped
from numpy.typing import ArrayLike

from fmjax.checks import check_at_least
from fmjax.conventions import Array
from fmjax.errors import InputError
from fmjax.metrics.frechet import fit_pca
from fmjax.metrics.rows import as_rows
from fmjax.names import named_leaves


@dataclasses.dataclass(frozen=True)
class Features:
    """Features with a name.

    Attributes:
        name: in reports and in files of reference statistics.
        function: takes examples ``(n, ...)`` to ``(n, d)``, each by itself.
        digest: tells them from other features of that name, e.g. a hash of the weights; "" where
            the name says all.
        distance: what the Fréchet distance in them is called.
    """

    name: str
    function: Callable[[Any], Real[np.ndarray, "n features"] | ArrayLike]
    digest: str = ""
    distance: str = "Fréchet distance"

    def __call__(
        self, examples: Real[np.ndarray, "n ..."] | ArrayLike
    ) -> Real[np.ndarray, "n features"]:
        """The features of examples ``(n, ...)``, ``(n, d)``.

        Raises:
            InputError: the function gives something else, or values that are not finite.
        """
        found, count = np.asarray(self.function(examples)), np.shape(examples)[0]
        if found.ndim != 2 or len(found) != count:
            raise InputError(
                f"the features {self.name} must give one row per example, ({count}, d); "
                f"got shape {found.shape}."
            )
        return as_rows(found, f"the features {self.name}")


def pixel_features() -> Features:
    """The numbers of the examples themselves; pixels from 0 to 255 become -1 to 1."""
    return Features("pixels", lambda examples: _in_unit(as_rows(examples, "examples")))


def _in_unit(rows: Real[np.ndarray, "n features"]) -> Real[np.ndarray, "n features"]:
    """Pixels from 0 to 255 as -1 to 1; floats as they are."""
    return rows.astype(np.float32) / np.float32(127.5) - 1 if rows.dtype == np.uint8 else rows


def pca_features(reference: Real[np.ndarray, "n ..."] | ArrayLike, dims: int = 32) -> Features:
    """Coordinates along the principal components of a reference (`fmjax.metrics.fit_pca`).

    Pixels from 0 to 255 are taken as -1 to 1 first.

    Args:
        reference: real examples ``(n, ...)``; some thousand are enough.
        dims: the number of components, or fewer where the reference does not have so many.

    Raises:
        InputError: there are fewer than two examples, or dims is below 1.
    """
    check_at_least("dims", dims)
    rows = _in_unit(as_rows(reference, "the reference", at_least=2))
    dims = min(dims, len(rows) - 1, rows.shape[1])
    project = fit_pca(rows, dims)

    def features(examples: Real[np.ndarray, "m ..."] | ArrayLike) -> Float64[np.ndarray, "m dims"]:
        return project(_in_unit(as_rows(examples, "examples")))

    # The components follow from the reference, so its hash tells them apart.
    return Features(f"pca of {dims} dimensions", features, digest_of([rows]))


def network_features(
    name: str,
    apply: Callable[[Any, Shaped[Array, "batch ..."]], Float[Array, "batch features"]],
    variables: Any,
    *,
    batch: int = 64,
    distance: str = "Fréchet distance",
) -> Features:
    """The features that a network with weights gives, compiled once for one size of batch.

    Args:
        name: of the features.
        apply: ``apply(variables, examples) -> (n, d)``, e.g. the ``apply`` of a Flax module.
        variables: of the network; their hash becomes the digest.
        batch: examples that are computed at a time.
        distance: what the Fréchet distance in them is called.

    Raises:
        InputError: batch is below 1.
    """
    check_at_least("batch", batch)
    compiled = jax.jit(apply)

    def function(
        examples: Real[np.ndarray, "n ..."] | ArrayLike,
    ) -> Float[np.ndarray, "n features"]:
        examples = np.asarray(examples)
        parts = [examples[i : i + batch] for i in range(0, len(examples), batch)]
        # The last part is filled up, so that it has the program of the others.
        short = [(0, batch - len(parts[-1]))] + [(0, 0)] * (examples.ndim - 1)
        parts[-1] = np.pad(parts[-1], short)
        found = [np.asarray(compiled(variables, part)) for part in parts]
        return np.concatenate(found)[: len(examples)]

    return Features(name, function, digest_of(variables), distance)


def digest_of(arrays: Any) -> str:
    """A sha256 of the names, shapes, types and numbers of a pytree of arrays, in hexadecimal."""
    total = hashlib.sha256()
    for name, leaf in sorted(named_leaves(arrays).items()):
        leaf = np.ascontiguousarray(leaf)
        total.update(f"{name} {leaf.dtype.str} {leaf.shape}\n".encode())
        total.update(leaf.data)
    return total.hexdigest()
