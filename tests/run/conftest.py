"""Runs small enough to train in a test: an MLP on two moons."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fmjax.config import ConfigDict, default_config, flatten
from fmjax.run.train import train

SMALL = {
    "data.name": "toy/moons",
    "model.name": "mlp",
    "model.width": 16,
    "model.depth": 1,
    "optimizer.warmup_steps": 2,
    "train.steps": 12,
    "train.batch_size": 32,
    "train.log_every": 4,
    "train.checkpoint_every": 4,
    "train.sample_every": 0,
    "sample.steps": 2,
    "eval.num": 0,
}


def small_config(**changes: object) -> ConfigDict:
    """The small run's configuration; changes by dotted key, ``__`` for the dot."""
    config = default_config()
    config.update_from_flattened_dict(
        SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    )
    return config


def small_flags(**changes: object) -> list[str]:
    """The same as command-line flags over configs/toy2d.py."""
    values = flatten(small_config(**changes))
    base = ["--config=configs/toy2d.py"]
    return base + [f"--config.{k}={v}" for k, v in values.items() if v is not None]


@pytest.fixture
def train_small(tmp_path: Path) -> Callable[..., Path]:
    """Trains the small run in a folder and returns the folder."""

    def run(workdir: Path | None = None, parallel: str = "jit", **changes: object) -> Path:
        workdir = tmp_path / "run" if workdir is None else workdir
        overwrite = bool(changes.pop("overwrite", False))
        assert train(small_config(**changes), workdir, parallel, overwrite) == 0
        return workdir

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small run, to be read only."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    assert train(small_config(), workdir) == 0
    return workdir
