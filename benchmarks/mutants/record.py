"""The results of `benchmarks.mutants`: the outcome of each mutant, and why those that live do."""

import collections
import json
from pathlib import Path

from benchmarks import machine
from benchmarks.mutants.mutations import Mutant, mutated

SURVIVED = "survived"


def _name(mutant: Mutant) -> str:
    return f"{mutant.module}:{mutant.line} {mutant.operator} {mutant.occurrence}"


def described(mutant: Mutant) -> dict[str, str]:
    """Where a mutant is, and the line before and after."""
    source = (machine.ROOT / mutant.module).read_text()
    after = mutated(source, mutant.operator, mutant.occurrence)
    row = mutant.line - 1
    before, after = (text.split("\n")[row].strip() for text in (source, after))
    return {"module": mutant.module, "before": before, "after": after}


def _key(row: dict[str, str]) -> tuple[str, str, str]:
    return row["module"], row["before"], row["after"]


class Record:
    """A results file, written anew after every outcome.

    Args:
        out: the file. Its outcomes are kept if they are of the same draw, and what was written
            under ``why`` of a survivor in any case.
        about: seed, number and code of the draw.
    """

    def __init__(self, out: Path, about: dict):
        stored = json.loads(out.read_text()) if out.exists() else {}
        is_same = all(stored.get(key) == value for key, value in about.items())
        self._out, self._about = out, about
        self._outcomes: dict[str, str] = stored["outcomes"] if is_same else {}
        self._rows = {_key(row): row for row in stored.get("survivors", ())}
        self._mutants: dict[str, Mutant] = {}
        self._tried: set[tuple[str, int]] = set()

    def is_open(self, mutant: Mutant, stage: int, again: bool) -> bool:
        """Whether a stage of tests is still to be run on a mutant.

        Args:
            mutant: the mutant.
            stage: number of the stage, from 0.
            again: whether stages that it has survived in an earlier call are run once more.
        """
        name = _name(mutant)
        self._mutants[name] = mutant
        outcome = self._outcomes.get(name, f"{SURVIVED} 0")
        if not outcome.startswith(SURVIVED):
            return False
        return int(outcome.split()[1]) <= stage or (again and (name, stage) not in self._tried)

    def add(self, mutant: Mutant, outcome: str, stage: int) -> None:
        """Notes an outcome, of survivors with the number of stages, and writes the file."""
        name = _name(mutant)
        self._tried.add((name, stage))
        self._outcomes[name] = f"{SURVIVED} {stage + 1}" if outcome == SURVIVED else outcome
        self._write()

    def line(self, mutant: Mutant) -> str:
        """A mutant in one line."""
        row = described(mutant)
        return f"{row['module']}:{mutant.line}  {row['before']}  ->  {row['after']}"

    def counts(self) -> dict[str, dict[str, int]]:
        """The outcomes of each package, or module of the first floor."""
        counts = collections.defaultdict(collections.Counter)
        for name, outcome in self._outcomes.items():
            counts[Path(name.partition(":")[0]).parts[1]][outcome.split()[0]] += 1
        return {name: dict(count) for name, count in counts.items()}

    def _survivors(self) -> list[dict[str, str]]:
        names = [name for name, outcome in self._outcomes.items() if outcome.startswith(SURVIVED)]
        rows = [described(self._mutants[name]) for name in names if name in self._mutants]
        return [{"why": ""} | self._rows.get(_key(row), row) for row in rows]

    def _write(self) -> None:
        counts = self.counts()
        total = sum(map(collections.Counter, counts.values()), collections.Counter())
        found = self._about | {
            "outcome": {what: total[what] for what in ("killed", "timeout", SURVIVED)},
            "by module": counts,
            "survivors": self._survivors(),
            "outcomes": self._outcomes,
        }
        machine.write_json(self._out, machine.about(flags=False) | found)
