"""What every test stands on: strict jax, one CPU device, and two helpers.

- Rank promotion raises, and a warning that comes from fmjax itself is an error.
- One device and no compilation cache, so that every run is the first one; a caller who sets
  JAX_COMPILATION_CACHE_DIR keeps the programs there, and the next run takes half the time. No
  effort of LLVM's, which is most of a compilation. Tests of several devices start a process of
  their own with `run_python`.
- `JAX_PLATFORMS=cuda pytest` runs the suite on another backend; the default is the CPU.
"""

import collections
import contextlib
import dataclasses
import gc
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_LLVM = "--xla_backend_optimization_level"
# The older way to compile fused operations takes half the time; jaxlib 0.12 has it no more.
_FUSED = "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""
KEPT = os.environ.get("JAX_COMPILATION_CACHE_DIR")


def _xla_flags(devices: int = 1) -> str:
    """XLA_FLAGS as the caller set them, but for this number of host devices, and for LLVM's effort.

    Most of the time of these tests went into optimising programs that run for milliseconds.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    flags = re.sub(r"--xla_force_host_platform_device_count=\S*", "", flags)
    if _LLVM not in flags:
        flags += f" {_LLVM}=0 --xla_cpu_parallel_codegen_split_count=1 {_FUSED}"
    if devices > 1:
        flags += f" --xla_force_host_platform_device_count={devices}"
    return " ".join(flags.split())


# Read by jax when it is imported, or by XLA when it starts; inherited by every subprocess.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = _xla_flags()
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "true" if KEPT else "false"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ.pop("JAX_NUM_CPU_DEVICES", None)

import jax  # noqa: E402
import jax.monitoring  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

# The same once more, for the case that a pytest plugin has imported jax before this file.
jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_enable_compilation_cache", bool(KEPT))
jax.config.update("jax_compilation_cache_dir", KEPT)
jax.config.update("jax_num_cpu_devices", -1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Keeps the tests of a file on one worker: they share programs, which compile once there."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what else is for the night, and what else is slow.

    Of a test with ``day_cases(k)``, k cases in equal distances are for the day. Slow is what is for
    the night, as an -m of the command line names slow alone, and of a test with ``quick_cases(k)``
    what is for the day but for the first k.
    """
    tests: dict[str, list[pytest.Item]] = collections.defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    for cases in tests.values():
        night = [case for case in cases if case.get_closest_marker("nightly")]
        day = [case for case in cases if case not in night]
        if day and (few := day[0].get_closest_marker("day_cases")):
            kept = [day[k * len(day) // few.args[0]] for k in range(few.args[0])]
            left = [case for case in day if case not in kept]
            _mark(left, "nightly")
            day, night = [case for case in day if case in kept], night + left
        _mark(night, "slow")
        if day and (quick := day[0].get_closest_marker("quick_cases")):
            _mark(day[quick.args[0] :], "slow")


def _mark(cases: Iterable[pytest.Item], marker: str) -> None:
    for case in cases:
        case.add_marker(marker)


def nightly_but(cases: Iterable, *kept: object) -> list:
    """The cases of a parametrized test, all for the night but those that stand for the others."""
    cases, night = list(cases), pytest.mark.nightly
    assert all(case in cases for case in kept), kept
    return [case if case in kept else pytest.param(case, marks=night) for case in cases]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", r"error:::fmjax(\..*)?$")


def rounding(x: object, roundings: int = 100) -> float:
    """The absolute tolerance between two correct computations of `x` in float32.

    CPUs differ in vector width, in fused multiply-adds, in the order of a sum and in the last bits
    of exp and tanh. What that leaves is a number of roundings of the largest value: about a hundred
    after a small network or some steps of a solver, a few hundred after a transformer. Where the
    values are about 1, tests write 1e-5 for a hundred of them.
    """
    return roundings * float(np.finfo(np.float32).eps) * float(np.abs(np.asarray(x)).max())


@dataclasses.dataclass
class Compilations:
    """The names of the functions that the backend compiled, in order."""

    names: list[str] = dataclasses.field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.names)


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """What is left of a module's tests, compiled programs above all, is looked through no more."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def float16() -> None:
    """Skips a test where XLA cannot convert to float16: on an x86 CPU without F16C."""
    try:
        jax.jit(lambda x: x.astype(jnp.float16))(jnp.ones(3)).block_until_ready()
    except jax.errors.JaxRuntimeError as error:
        if "Failed to materialize symbols" not in str(error):
            raise
        pytest.skip("XLA cannot convert to float16 on this CPU: it misses the symbol __truncsfhf2")


@pytest.fixture
def count_compilations() -> Callable[[], contextlib.AbstractContextManager[Compilations]]:
    """A context manager that counts what XLA compiles inside it, under jit and pmap alike.

        with count_compilations() as compiled:
            step(state, batch)
        assert compiled.count == 0, compiled.names

    Operations outside jit (`jnp.ones`, indexing) compile small programs of their own: make the
    inputs before entering.
    """

    @contextlib.contextmanager
    def counting() -> Iterator[Compilations]:
        compiled = Compilations()

        def listen(event: str, duration: float, **kwargs: object) -> None:
            if "backend_compile" in event:
                compiled.names.append(str(kwargs.get("fun_name", event)))

        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            yield compiled
        finally:
            jax.monitoring.unregister_event_duration_listener(listen)

    return counting


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., str]:
    """Runs Python in a process of its own, with several CPU devices, and returns its stdout.

        out = run_python("import jax; print(jax.device_count())", devices=8)
        out = run_python(ROOT / "train.py", "--config=configs/digits.py", devices=2)

    A string is code (indentation common to all lines is removed), a `Path` is a script, and what
    follows are its arguments. `env` is added to the environment. A non-zero exit raises
    `AssertionError` with what the process wrote.
    """

    def run(
        code_or_script: str | Path,
        *arguments: str,
        devices: int = 8,
        env: dict[str, str] | None = None,
        timeout: float = 300.0,
        cwd: Path = ROOT,
    ) -> str:
        script = code_or_script
        if not isinstance(script, Path):
            script = tmp_path / "run_python_code.py"
            script.write_text(textwrap.dedent(str(code_or_script)))
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": _xla_flags(devices),
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        }
        done = subprocess.run(
            [sys.executable, str(script), *map(str, arguments)],
            env=environment | (env or {}),
            cwd=cwd,
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(
                f"{script.name} exited with {done.returncode}.\n"
                f"stdout:\n{done.stdout[-4000:]}\nstderr:\n{done.stderr[-8000:]}"
            )
        return done.stdout

    return run
