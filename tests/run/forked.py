"""Commands run in forks of one process that has imported all that they import.

Importing takes seconds, and the commands of these tests little more. A fork is made before jax has
started a backend, so the flags of XLA and the number of devices may differ from one to the next.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from tests.conftest import ROOT, _xla_flags

# One line of JSON a request: a command to start, answered with its process, or the number of a
# process, answered with its exit code, null while it runs.
SERVER = """
import gc, json, os, runpy, sys
import tensorboardX
import fmjax.run.compile.programs, fmjax.run.likelihood.measure, fmjax.run.reflow.rounds
import fmjax.run.sample.export, fmjax.run.sample.to_disk, fmjax.run.train.training

gc.freeze()  # else every fork ends with half a second of looking through all the modules
for line in sys.stdin:
    request = json.loads(line)
    if isinstance(request, int):
        done, status = os.waitpid(request, os.WNOHANG)
        print(os.waitstatus_to_exitcode(status) if done else "null", flush=True)
        continue
    argv, env, cwd, files = request
    child = os.fork()
    if child == 0:
        os.environ.update(env)
        os.chdir(cwd)
        for stream, name in enumerate([os.devnull, *files]):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND), stream)
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")
        sys.exit()
    print(child, flush=True)
"""


class Command:
    """A command that was started: what its caller needs of `subprocess.Popen`."""

    def __init__(self, ask, pid: int, files: list[Path]):
        self._ask, self._files = ask, files
        self.pid, self.returncode = pid, None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._ask(self.pid)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 300.0) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"not done after {timeout} s:\n{self.output}")
            time.sleep(0.01)
        return self.returncode

    @property
    def out(self) -> str:
        return self._files[0].read_text()

    @property
    def err(self) -> str:
        return self._files[1].read_text()

    @property
    def output(self) -> str:
        return self.out + self.err


class Commands:
    """Starts commands; one process for all of them, which the first one starts."""

    def __init__(self):
        self._server = None
        self._started: list[Command] = []
        self._folder = tempfile.TemporaryDirectory()

    def _ask(self, request):
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-c", SERVER],
                cwd=ROOT,
                env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(self, script, *arguments, devices=1, env=None, cwd=ROOT) -> Command:
        """Starts a script, a path from the root of the project or an absolute one."""
        number = len(self._started)
        files = [Path(self._folder.name) / f"{number}.{name}" for name in ("out", "err")]
        for file in files:
            file.touch()
        argv = [str(ROOT / script), *map(str, arguments)]
        env = {"XLA_FLAGS": _xla_flags(devices)} | (env or {})
        pid = self._ask([argv, env, str(cwd), list(map(str, files))])
        self._started.append(Command(self._ask, pid, files))
        return self._started[-1]

    def start_code(self, code: str, *arguments, **how) -> Command:
        """Starts Python code; the indentation common to all lines is removed."""
        script = Path(self._folder.name) / f"{len(self._started)}.py"
        script.write_text(textwrap.dedent(code))
        return self.start(script, *arguments, **how)

    def close(self) -> None:
        for command in self._started:
            command.kill()
        if self._server is not None:
            self._server.communicate()
        self._folder.cleanup()


def finish(*commands: Command, code: int = 0) -> list[str]:
    """Waits for commands and checks their exit code; gives what they wrote."""
    for command in commands:
        command.wait()
    outputs = [command.output for command in commands]
    assert [c.returncode for c in commands] == [code] * len(commands), "\n".join(outputs)
    return outputs


def free_port() -> int:
    """A port that nothing listens on, for the coordinator of several processes."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
