"""Contenders in processes of their own that take turns on one device.

Each library has one process, which holds its contenders ready and runs the one it is asked for; so
neither has the memory, the threads or the clock to itself while the other is measured, and the
interpreters may differ. Requests and answers are lines of JSON. The standard library alone: both
interpreters import this file.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from pathlib import Path

_HERE = Path(__file__).resolve().parent


class Worker:
    """A process that serves contenders."""

    def __init__(self, python: str, script: str, threads: int | None = None):
        environment = dict(os.environ)
        if threads:
            environment |= {"OMP_NUM_THREADS": str(threads), "FMJAX_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [python, str(_HERE / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, method: str, **arguments) -> dict:
        """Calls a method of the served object; {"error": ...} where that raised."""
        print(json.dumps([method, arguments]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with {self._process.wait()}.")
        return json.loads(line)

    def must(self, method: str, **arguments) -> dict:
        """`ask`, but what raised there raises here.

        Raises:
            RuntimeError: the method raised.
        """
        answer = self.ask(method, **arguments)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def serve(served: object) -> None:
    """Answers requests from stdin until it closes; what else is printed goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            answer = getattr(served, method)(**arguments)
        except Exception as error:  # out of memory, say: the other contenders go on
            traceback.print_exc()
            first = (str(error).splitlines() or [""])[0]
            answer = {"error": f"{type(error).__name__}: {first}"}
        print(json.dumps(answer), file=answers, flush=True)


class Contenders:
    """What a process serves: contenders by name, each ``run(n)``, synchronous."""

    def __init__(self):
        self.ready = {}

    def time(self, name: str, n: int) -> dict:
        """Seconds that one of n turns of the work takes: of the clock, and of all processors."""
        began, worked = time.perf_counter(), time.process_time()
        self.ready[name](n)
        worked, seconds = time.process_time() - worked, time.perf_counter() - began
        return {"seconds": seconds / n, "cpu": worked / n}


def take_turns(
    runners: dict[str, tuple[Worker, str]], rounds: int, n: int
) -> dict[str, dict[str, float]]:
    """Seconds of each runner, one after the other in every round: least, median, least of the CPU.

    Every second round goes backwards, so that none is always the one after the same neighbour.
    """
    answers = {label: [] for label in runners}
    for k in range(rounds):
        for label in list(runners)[:: -1 if k % 2 else 1]:
            worker, name = runners[label]
            answers[label].append(worker.must("time", name=name, n=n))
    return {
        label: {
            "least": min(answer["seconds"] for answer in found),
            "median": statistics.median(answer["seconds"] for answer in found),
            "cpu": min(answer["cpu"] for answer in found),
        }
        for label, found in answers.items()
    }
