"""A process that holds variants of a program ready and times the one it is asked for.

Each library has one process, so that neither has the memory, the threads or the clock to itself
while the other is measured, and the interpreters may differ. Requests and answers are lines of
JSON. The standard library alone: both interpreters import this file.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import traceback

from benchmarks.machine import ROOT
from benchmarks.timing import interleave

THREADS = "BENCHMARK_THREADS"
"""The environment variable that tells a worker how many threads its library may use."""


class Worker:
    """A process that serves variants: ``python -m module`` by an interpreter."""

    def __init__(self, python: str, module: str, threads: int | None = None):
        # Half of a GPU's memory for each library, as both hold their variants ready.
        environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45"} | os.environ
        if threads:
            environment |= {"OMP_NUM_THREADS": str(threads), THREADS: str(threads)}
        self._process = subprocess.Popen(
            [python, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
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
        except Exception as error:  # out of memory, say: the other variants go on
            traceback.print_exc()
            first = (str(error).splitlines() or [""])[0]
            answer = {"error": f"{type(error).__name__}: {first}"}
        print(json.dumps(answer), file=answers, flush=True)


class Variants:
    """What a process serves: variants by name, each ``run(n)``, synchronous."""

    def __init__(self):
        self.ready = {}

    def time(self, name: str, n: int) -> dict:
        """Seconds of one of n repetitions of the work: of the clock, and of all processors."""
        began, worked = time.perf_counter(), time.process_time()
        self.ready[name](n)
        worked, seconds = time.process_time() - worked, time.perf_counter() - began
        return {"seconds": seconds / n, "cpu": worked / n}

    def multiply(self, size: int, product) -> dict:
        """Operations per second of ``product(n)``: n matrix products of this size, float32."""
        self.ready["matmul"] = product
        best = min(self.time("matmul", 4)["seconds"] for _ in range(5))
        return {"per second": 2 * size**3 / best}


def time_interleaved(
    variants: dict[str, tuple[Worker, str]], rounds: int, n: int
) -> dict[str, dict[str, float]]:
    """Seconds of each variant: least, median, least of the CPU."""
    runs = {
        label: lambda worker=worker, name=name: worker.must("time", name=name, n=n)
        for label, (worker, name) in variants.items()
    }
    return {
        label: {
            "least": min(answer["seconds"] for answer in found),
            "median": statistics.median(answer["seconds"] for answer in found),
            "cpu": min(answer["cpu"] for answer in found),
        }
        for label, found in interleave(runs, range(rounds)).items()
    }
