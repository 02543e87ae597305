"""Runs small enough to train in a test: an MLP on two moons."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from flax.traverse_util import flatten_dict
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from fmjax.config import ConfigDict, default_config
from fmjax.run.train import report
from fmjax.run.train.training import train
from tests.run.forked import Commands

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
    values = flatten_dict(small_config(**changes).to_dict(), sep=".")
    base = ["--config=configs/toy2d.py"]
    return base + [f"--config.{k}={v}" for k, v in values.items() if v is not None]


def write_record(workdir: Path, record: dict) -> None:
    """Writes a changed record of a run, without the checksum that says that it was changed."""
    content = {key: value for key, value in record.items() if key != "checksum"}
    (workdir / "run.json").write_text(json.dumps(content))


@contextlib.contextmanager
def _keeping_programs(folder: Path) -> Iterator[None]:
    options = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    environment = {name: os.environ.get(name.upper()) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    reset_cache()  # else jax goes on as it decided at its first compilation
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    for name, value in environment.items():
        os.environ.pop(name.upper(), None)
        if value is not None:
            os.environ[name.upper()] = value
    reset_cache()


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    # Under pytest-xdist each worker has a folder of its own below that of the run.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return shared / "compiled"


@pytest.fixture(scope="module", autouse=True)
def compilation_cache(cache_folder: Path) -> Iterator[None]:
    """The same few programs are compiled once for all tests of this folder, processes included."""
    with _keeping_programs(cache_folder):
        yield


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """Starts commands quickly, and ends what is left of them."""
    commands = Commands()
    yield commands
    commands.close()


@pytest.fixture
def train_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Trains the small run in a folder and returns the folder; no picture is drawn at the end."""
    monkeypatch.setattr(report, "save_overview", lambda *arguments: None)

    def run(workdir: Path | None = None, parallel: str = "jit", **changes: object) -> Path:
        workdir = tmp_path / "run" if workdir is None else workdir
        overwrite = bool(changes.pop("overwrite", False))
        assert train(small_config(**changes), workdir, parallel, overwrite) == 0
        return workdir

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """A finished small run, to be read only."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    with _keeping_programs(cache_folder):  # set up before any fixture of a module
        assert train(small_config(), workdir) == 0
    return workdir
