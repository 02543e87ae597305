"""`import fmjax` works, and takes under a second beyond jax itself.

Only the standard library here: this file is also a script, which continuous integration runs in
an environment that holds an installed fmjax and its core dependencies, and no pytest.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 1.0
TRIES = 5  # the best of so many: another process may be busy
TIMED_IMPORT = """
import jax, time
start = time.perf_counter()
import fmjax
print(time.perf_counter() - start)
"""


def _python(code: str, **environment: str) -> str:
    """Runs code in a fresh interpreter, outside the checkout."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _import_seconds(**environment: str) -> float:
    best = float("inf")
    for _ in range(TRIES):
        best = min(best, float(_python(TIMED_IMPORT, **environment)))
        if best < SECONDS:
            break
    return best


def test_import_is_quick():
    seconds = _import_seconds(PYTHONPATH=str(ROOT))
    assert seconds < SECONDS, f"import fmjax takes {seconds:.2f} s beyond jax"


EVERY_MODULE = """
from jax._src import xla_bridge
from tests.golden.make_signatures import modules
assert len(list(modules())) > 100
print(list(xla_bridge._backends))
"""


def test_no_device_is_looked_for_by_an_import():
    # A process that has threads of XLA cannot be forked, nor choose its devices any more.
    assert _python(EVERY_MODULE, PYTHONPATH=str(ROOT)) == "[]"


def main() -> None:
    """The same for an installed fmjax with nothing but its core dependencies."""
    for optional in ("grain", "sklearn", "tensorflow_datasets", "tqdm"):
        assert importlib.util.find_spec(optional) is None, f"{optional} is installed here"
    where = Path(_python("import fmjax; print(fmjax.__file__)"))
    assert not where.is_relative_to(ROOT), f"fmjax comes from the checkout, {where}"
    assert (where.parent / "py.typed").exists(), "py.typed is not in the package"
    missing = _missing_modules(where.parent)
    assert not missing, f"not in the package: {', '.join(missing)}"
    _check_command(where.parent)
    seconds = _import_seconds()
    assert seconds < SECONDS, f"import fmjax takes {seconds:.2f} s beyond jax"
    print(f"import fmjax: {seconds:.2f} s beyond jax, on {sys.version.split()[0]}")


def _check_command(installed: Path) -> None:
    """The command is there, says what it lacks, and has the configurations beside it."""
    program = Path(sys.executable).with_name("fmjax")
    run = {"capture_output": True, "text": True, "check": False, "cwd": tempfile.gettempdir()}
    listed = subprocess.run([program, "--help"], **run)
    assert listed.returncode == 0, listed.stderr
    commands = [line.split()[0] for line in listed.stdout.splitlines() if line.startswith("  ")]
    assert set(commands) >= {"prepare", "train", "sample", "reflow", "likelihood", "weights"}
    for name in set(commands):
        lacking = subprocess.run([program, name, "--help"], **run)
        assert lacking.returncode == 2, name
        assert 'pip install "fmjax[train]"' in lacking.stderr, lacking.stderr
    configs = {path.name for path in (ROOT / "configs").glob("*.py")}
    assert {path.name for path in (installed / "configs").glob("*.py")} == configs


def _missing_modules(installed: Path) -> list[str]:
    """Modules of the checkout that the installed package lacks."""
    source = ROOT / "fmjax"
    names = (path.relative_to(source) for path in source.glob("**/*.py"))
    return sorted(str(name) for name in names if not (installed / name).exists())


if __name__ == "__main__":
    main()
