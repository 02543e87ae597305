"""Runs tests on a copy of the repository, each run in a fork that has imported the heavy packages.

Importing them takes seconds, and most of these tests little more. The package fmjax is not imported
before the fork, and jax has started no backend, so that a fork runs the code that lies in the copy.
"""

import compileall
import contextlib
import gc
import importlib
import os
import py_compile
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = (
    *(
        "jax",
        "jax.numpy",
        "flax.linen",
        "flax.nnx",
        "optax",
        "diffrax",
        "hypothesis",
        "scipy.stats",
    ),
    *(
        "scipy.optimize",
        "sklearn.svm",
        "ott.solvers.linear.sinkhorn",
        "orbax.checkpoint",
        "PIL.Image",
    ),
    *("grain", "tensorflow_datasets", "absl.flags", "ml_collections", "safetensors.numpy", "ot"),
    *("matplotlib.pyplot", "tensorboardX", "array_record.python.array_record_module"),
)
MEMORY = 16 * 2**30  # bytes of addresses: a wrong size must not fill the machine


def copy(root: Path, folder: Path) -> Path:
    """Copies the repository, and compiles it.

    The compiled files are held to the text of the source, not to its time: a mutant is often as
    long as the original and written within the same second.
    """
    leave = shutil.ignore_patterns(".git", "__pycache__", "_build", ".*_cache")
    tree = Path(shutil.copytree(root, folder / "tree", ignore=leave))
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(tree / "fmjax", quiet=2, invalidation_mode=mode)
    return tree


def import_packages() -> None:
    """Imports what the tests import, but for the package under test."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUMPY_RANK_PROMOTION": "raise"}
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1"}
    for name in PACKAGES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    assert not any(name.partition(".")[0] == "fmjax" for name in sys.modules)
    gc.freeze()  # else every fork ends with a look through all the modules


@contextlib.contextmanager
def written(path: Path, text: str) -> Iterator[None]:
    """The file with another text, for a while."""
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


def _child(tree: Path, arguments: list[str], log: Path) -> None:
    """Runs pytest and ends the process with its exit code."""
    code = pytest.ExitCode.INTERNAL_ERROR
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.chdir(tree)
        output = os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(tree)))]
        for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
            del sys.modules[name]
        sys.dont_write_bytecode = True
        folder = f"--basetemp={log.with_suffix('.tmp')}"
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", folder, *arguments])
    except BaseException:  # the fork must never go on with what its parent does
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code))


def _wait(child: int, limit: float) -> int | None:
    """The exit code of a child, negative for a signal; None if its time was over."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def run(tree: Path, arguments: list[str], log: Path, limit: float) -> int | None:
    """Runs tests in a fork.

    Args:
        tree: the copy of the repository.
        arguments: of pytest.
        log: file that gets what the tests write.
        limit: seconds.

    Returns:
        pytest's exit code, negative for the signal that ended it, None if the time was over.
    """
    child = os.fork()
    if child == 0:
        _child(tree, arguments, log)
    code = _wait(child, limit)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # with whatever the tests have started
    if code is None:
        os.waitpid(child, 0)
    return code
