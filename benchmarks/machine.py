"""What every benchmark says of itself: command, date, machine, versions; and where results lie.

The standard library alone: interpreters without jax import this file too.
"""

import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "diffrax", "orbax-checkpoint", "grain")


def command(flags: bool = True) -> str:
    """The command of this process, e.g. ``python -m benchmarks.pod --toy``.

    Args:
        flags: False for a benchmark whose results several calls fill part by part.
    """
    module = sys.modules["__main__"].__spec__.name.removesuffix(".__main__")
    # Where an interpreter lies says nothing to a reader.
    given = ["--torch=PYTHON" if flag.startswith("--torch=") else flag for flag in sys.argv[1:]]
    return shlex.join(["python", "-m", module, *(given if flags else ())])


def cpu_name() -> str:
    """The processor's name where Linux gives one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def hardware(cores: int | None = None, device: str | None = None) -> str:
    """For example ``"1 of 2 cores, AMD EPYC, cpu"``: cores used of all, processor, jax's device."""
    used = f"{cores} of " if cores else ""
    parts = [f"{used}{os.cpu_count()} cores", cpu_name(), *([device] if device else [])]
    return ", ".join(parts)


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """The versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def about(
    packages: tuple[str, ...] = PACKAGES,
    *,
    flags: bool = True,
    cores: int | None = None,
    device: str | None = None,
) -> dict:
    """What a reader needs to make the figures again: command, date, machine, versions."""
    return {
        "command": command(flags),
        "date": time.strftime("%Y-%m-%d"),
        "machine": hardware(cores, device),
        "versions": versions(packages),
    }


def write_json(path: Path, content: dict) -> None:
    """Writes results; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
