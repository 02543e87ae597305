"""Runs of train.py in forked processes: started, watched and killed.

A run is a process of its own, forked from this one after the packages are imported and before jax
looks for devices: what importing costs is paid once, and a kill -9 is a real one.
"""

import atexit
import os
import resource
import runpy
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT

CACHE = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
EVERY = 20  # steps between two checkpoints
FLAGS = {
    "data.name": "toy/moons",
    "model.name": "mlp",
    "model.width": 128,  # just wide enough for its matrices to be split over fsdp
    "model.depth": 2,
    "optimizer.warmup_steps": 2,
    "train.steps": 600,
    "train.batch_size": 32,
    "train.log_every": 5,
    "train.checkpoint_every": EVERY,
    "train.sample_every": 0,
    "sample.steps": 2,
    "eval.num": 0,
}
SLOW = 600.0  # seconds after which a run counts as hanging


def import_packages(cache: Path) -> None:
    """Imports what a run needs, so that it starts at once; compiled programs are kept in a folder.

    No device is touched: a process that has threads of XLA cannot be forked.
    """
    os.environ.update(CACHE | {"JAX_COMPILATION_CACHE_DIR": str(cache)})
    import benchmarks.faults.fmjax_internals  # noqa: F401


class Child:
    """A forked process; its output goes to a file."""

    def __init__(self, work: Callable[[], Any], log: Path, devices: int = 1):
        log.write_bytes(b"")
        self.log, self.began, self.code = log, time.monotonic(), None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(work, log, devices)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float = SLOW) -> int | None:
        """The exit code, or None when it hangs; it is killed then."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.code is None:
            self.send(signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.code = -signal.SIGKILL
            return None
        return self.code

    def send(self, number: int) -> None:
        """Sends a signal."""
        os.kill(self.pid, number)

    def until(self, seen: Callable[[], bool], seconds: float = SLOW) -> bool:
        """Waits for something to be seen; False where the process ended before."""
        deadline = time.monotonic() + seconds
        while not seen():
            if self.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def limit_files(self, size: int) -> None:
        """Lets no file of the process grow past this many bytes, as if the disk were full."""
        hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, hard))

    @property
    def output(self) -> str:
        """What it has written, both streams."""
        return self.log.read_text(errors="replace")


def _become(work: Callable[[], Any], log: Path, devices: int) -> None:
    """What a fresh interpreter would be and do, its end included; never returns."""
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a full disk is an error, not a signal
        work()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start(
    workdir: Path,
    *flags: str,
    devices: int = 1,
    patch: Callable[[], None] | None = None,
    name: str = "log",
    **changes: object,
) -> Child:
    """Starts train.py; the changes are of configuration keys, ``__`` for the dot."""
    values = FLAGS | {key.replace("__", "."): value for key, value in changes.items()}
    config = [f"--config.{key}={value}" for key, value in values.items()]

    def work() -> None:
        os.chdir(ROOT)
        if patch is not None:
            patch()
        script = str(ROOT / "train.py")
        sys.argv = [script, f"--workdir={workdir}", "--config=configs/toy2d.py", *config, *flags]
        runpy.run_path(script, run_name="__main__")

    return Child(work, workdir.with_name(f"{workdir.name}.{name}"), devices)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_two(workdir: Path, *flags: str, patches: tuple = (None, None), **changes) -> list[Child]:
    """Starts the two processes of one run."""
    address = f"--coordinator=127.0.0.1:{free_port()}"
    several = ("--distributed=explicit", address, "--num_processes=2")
    return [
        start(
            workdir,
            *several,
            f"--process_id={i}",
            *flags,
            patch=patches[i],
            name=f"log{i}",
            **changes,
        )
        for i in range(2)
    ]


def finish(*children: Child, code: int = 0) -> None:
    """Waits for processes that are to end well.

    Raises:
        RuntimeError: one does not.
    """
    for child in children:
        got = child.wait()
        if got != code:
            raise RuntimeError(f"{child.log} ended with {got}, not {code}:\n{child.output[-3000:]}")
