"""Draws mutants of the code at random and counts those that the tests see.

A mutant is the code with one small change: another operator, number, comparison or condition, a
loop that does nothing, an exception that is not caught. The tests kill it if one of them fails, or
does not end within several times its usual time. Every mutant that survives either changes no
result, and the results say why, or shows that a test is missing.

cosmic-ray makes the changes and is no requirement of the project: `pip install cosmic-ray`.

    python -m benchmarks.mutants                # an hour or two on one core
    python -m benchmarks.mutants --again        # those that survived, once more, after new tests
    python -m benchmarks.mutants --module fmjax/paths --number 20 --out paths.json

A call goes on where an earlier one stopped, while seed, number, modules and code are the same.
"""

import argparse
import hashlib
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.mutants import forked_tests, modules, mutations
from benchmarks.mutants.mutations import Mutant
from benchmarks.mutants.record import Record

PASSED = (0, 5)  # pytest's exit codes: all passed; there were none
STAGES = 3


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--number", type=int, default=340, help="how many mutants are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--module", default="", help="how the path of the modules begins")
    parser.add_argument("--again", action="store_true", help="those that survived, once more")
    parser.add_argument(
        "--stages",
        type=int,
        default=STAGES,
        choices=range(1, STAGES + 1),
        help="1: the module's own quick tests; 2: its neighbours' too; 3: its slow ones too",
    )
    parser.add_argument("--out", type=Path, default=machine.RESULTS / "mutants.json")
    return parser.parse_args()


class Tests:
    """Runs tests on a copy of the repository."""

    def __init__(self, folder: Path):
        self.tree = forked_tests.copy(machine.ROOT, folder)
        self.log = folder / "log.txt"
        self._limits: dict[tuple[str, ...], float] = {}
        forked_tests.import_packages()

    def _limit(self, arguments: list[str]) -> float:
        """How long these tests may take: several times as long as without a change.

        Raises:
            SystemExit: the tests fail without a change.
        """
        if tuple(arguments) not in self._limits:
            began = time.monotonic()
            code = forked_tests.run(self.tree, arguments, self.log, limit=900.0)
            if code not in PASSED:
                sys.exit(f"{' '.join(arguments)} ends with {code}:\n{self.log.read_text()[-4000:]}")
            self._limits[tuple(arguments)] = 30.0 + 5.0 * (time.monotonic() - began)
        return self._limits[tuple(arguments)]

    def outcome(self, mutant: Mutant, arguments: list[str]) -> str:
        """What these tests say of a mutant: "killed", "timeout" or "survived"."""
        limit = self._limit(arguments)
        path = self.tree / mutant.module
        changed = mutations.mutated(path.read_text(), mutant.operator, mutant.occurrence)
        with forked_tests.written(path, changed):
            code = forked_tests.run(self.tree, arguments, self.log, limit)
        if code is None:
            return "timeout"
        return "survived" if code in PASSED else "killed"


def _checksum(names: list[str]) -> str:
    """Of the code of the modules: an outcome belongs to the code that it was found for."""
    texts = [(machine.ROOT / name).read_bytes() for name in names]
    return hashlib.sha256(b"".join(texts)).hexdigest()[:16]


def _run(drawn: list[Mutant], record: Record, stages: int, again: bool) -> None:
    """Tries the mutants stage by stage; a stage meets what those before it have not killed."""
    with tempfile.TemporaryDirectory(prefix="mutants.") as folder:
        tests = Tests(Path(folder))
        for stage in range(stages):
            for mutant in drawn:
                arguments = modules.stages(tests.tree, mutant.module)[stage]
                if not record.is_open(mutant, stage, again):
                    continue
                began = time.monotonic()
                outcome = tests.outcome(mutant, arguments) if arguments else "survived"
                record.add(mutant, outcome, stage)
                seconds = time.monotonic() - began
                print(
                    f"{stage + 1} {outcome:8} {seconds:4.0f} s  {record.line(mutant)}", flush=True
                )


def main() -> None:
    """Draws the mutants, runs the tests of each, and writes what was found."""
    args = _arguments()
    names = [name for name in modules.modules(machine.ROOT) if name.startswith(args.module)]
    every = [mutant for name in names for mutant in mutations.mutants(machine.ROOT, name)]
    number = min(args.number, len(every))
    about = {"seed": args.seed, "drawn": number, "of": len(every), "code": _checksum(names)}
    drawn = mutations.draw(machine.ROOT, every, number, args.seed)
    record = Record(args.out, about)
    _run(drawn, record, args.stages, args.again)
    print({name: sum(counts.values()) for name, counts in record.counts().items()})


if __name__ == "__main__":
    main()
