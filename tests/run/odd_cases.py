"""Odd command lines and damaged records, tried on one command in one process.

    python tests/run/odd_cases.py COMMAND RUN FOLDER EXAMPLES

Hypothesis draws the cases, always the same ones. Each must end within ten seconds with a documented
exit code, with one sentence where that is not 0, and leave everything but its own folder as it is.
"""

import contextlib
import importlib
import io
import json
import os
import shutil
import sys
import time
from pathlib import Path

from absl import flags
from absl.testing import flagsaver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmjax.run import cli

COMMAND, RUN, FOLDER, EXAMPLES = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
CODES = (0, 2, 3, 4)
OWN = FOLDER / "own"
# Those that start something else than the command: other processes, a compiler for TPUs, a trace.
LEFT_OUT = ("distributed", "coordinator", "compile_only", "config", "profile", "trajectory")
BASE = {
    "sample": ["--num=2", "--steps=1", "--solver=euler", f"--out={OWN / 'out'}"],
    "weights": [f"--out={OWN / 'out'}"],
    "evaluate": ["--num=0"],
    "likelihood": ["--num=2", "--steps=1", "--probes=1"],
    "reflow": ["--num=2"],
    "train": ["--config=toy2d", "--config.train.steps=0"],
}
TEXTS = ("", "0", "-1", "1", "nan", "inf", "1e400", "9" * 31, "a,b", "1,2", "None", "x" * 300, "é")
TEXTS += ("..", "/dev/null/x", "os:abort", "no.such:thing", "\udcff", "\n", "%s{}", "--", "True")
VALUES = st.one_of(
    st.sampled_from([None, True, -1, 0, 1.5, 1e308, 10**30, "", "x", "os:abort", [], {}, [[]]]),
    st.sampled_from([[80000, 80000, 1], [-2], ["2"], {"type": "os:system"}, {"type": None}]),
    st.integers(),
    st.text(max_size=5),
)


def places(tree, path=()):
    """The paths of all values in a JSON object."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield (*path, key)
            yield from places(value, (*path, key))


def changed(record, path, value, kept):
    """A record with one value changed, and its checksum kept or not."""
    record = json.loads(json.dumps(record))
    here = record
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    if not kept:
        record.pop("checksum", None)
    return json.dumps(record)


def stamps():
    """Everything that is watched, with the time of its last change."""
    watched = [*RUN.rglob("*"), *FOLDER.iterdir()]
    return {path: path.lstat().st_mtime_ns for path in watched if path != OWN}


def answer(module, arguments):
    """The exit code and the standard error of a command."""
    sys.argv, said = [COMMAND, *arguments], io.StringIO()
    quiet = contextlib.redirect_stdout(io.StringIO())
    with flagsaver.flagsaver(), contextlib.redirect_stderr(said), quiet:
        flags.FLAGS.unparse_flags()
        try:
            cli.run(module)
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return code, said.getvalue()


def main():
    module = importlib.import_module(f"fmjax.run.{COMMAND}.command")
    names = sorted(
        flag.name
        for where, defined in flags.FLAGS.flags_by_module_dict().items()
        if where.startswith("fmjax.")
        for flag in defined
        if not flag.name.startswith(LEFT_OUT)
    )
    record = json.loads((RUN / "run.json").read_text())
    pairs = st.tuples(st.sampled_from(names), st.sampled_from(TEXTS))
    damage = st.builds(
        lambda path, value, kept: changed(record, path, value, kept),
        st.sampled_from(list(places(record))),
        VALUES,
        st.booleans(),
    )
    cut = st.integers(0, 400).map(lambda n: json.dumps(record)[:n])

    @settings(
        max_examples=int(EXAMPLES),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(odd=st.lists(pairs, min_size=1, max_size=2), text=st.one_of(st.none(), damage, cut))
    def holds(odd, text):
        shutil.rmtree(OWN, ignore_errors=True)
        shutil.copytree(RUN, OWN / "run")
        (OWN / "here" / "below").mkdir(parents=True)
        os.chdir(OWN / "here" / "below")  # names of folders that are drawn are below OWN
        if text is not None:
            (OWN / "run" / "run.json").write_text(text)
            odd = []
        given = [f"--{name}={value}" for name, value in odd]
        before, began = stamps(), time.perf_counter()
        code, said = answer(module, [f"--workdir={OWN / 'run'}", *BASE[COMMAND], *given])
        seconds = time.perf_counter() - began
        assert code in CODES, (given, text, code, said)
        assert "Traceback" not in said, (given, text, said)
        if code != 0:
            *_, last = said.replace("\r", "\n").strip().splitlines()
            assert last.startswith(f"{COMMAND}: "), (given, text, said)
        assert seconds < 10, (given, text, seconds)
        assert stamps() == before, (given, text)

    holds()
    print("all held")


if __name__ == "__main__":
    main()
