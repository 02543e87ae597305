"""Public sets of tensorflow_datasets: which there are, and the one download of each."""

import importlib.util
import os
from pathlib import Path

import tensorflow_datasets as tfds

from fmjax.data.tfds import directory
from fmjax.errors import InputError, unknown_name


def public_names() -> list[str]:
    """The sets that TFDS knows how to download."""
    return tfds.list_builders(with_community_datasets=False)


def prepare_public(
    name: str, data_dir: str | os.PathLike | None = None, *, overwrite: bool = False
) -> Path:
    """Downloads a public TFDS set and stores it as ArrayRecord; this one step needs TensorFlow.

    Args:
        name: ``"mnist"``, ``"cifar10"``, ... or ``"name/config"``.
        data_dir: as in `load`.
        overwrite: replaces the version that is there.

    Returns:
        The folder of the set.

    Raises:
        InputError: for an unknown name, a set that exists, TensorFlow missing, or a download or
            preparation that fails.
    """
    root = directory.data_root(data_dir)
    if name == "digits":
        raise InputError("the set 'digits' prepares itself when it is first used.")
    if name.split("/")[0] not in public_names():
        raise unknown_name("public data set", name, public_names())
    folder = directory.prepared(root).get(name)
    if folder and not overwrite:
        raise InputError(f"data set {name!r} exists in {folder}; add --overwrite to replace it.")
    _check_tensorflow(name)
    return directory.publish(
        lambda scratch: tfds.builder(name, data_dir=scratch),
        root,
        replaces=folder,
        download_dir=root / "downloads",
    )


def _check_tensorflow(name: str) -> None:
    # TFDS itself needs importlib_resources for its public sets, but does not declare it.
    needed = {"tensorflow": "tensorflow-cpu", "importlib_resources": "importlib_resources"}
    missing = [package for module, package in needed.items() if not _installed(module)]
    if missing:
        raise InputError(
            f"preparing the public set {name!r} needs TensorFlow this once (training does not): "
            f"run `pip install {' '.join(missing)}` and try again."
        )


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
