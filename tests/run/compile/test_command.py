"""``python -m fmjax compile``: a mistake gets one sentence, and a program is compiled by flags."""

from typing import NamedTuple

import pytest

from tests.run.compile.compiler import needs_compiler
from tests.run.conftest import small_flags

DIGITS = "--config=configs/digits.py"
SLICE = "--topology=v5e:2x2"
MISTAKES = [
    ([DIGITS], "say which TPU slice to compile for: --topology=v5e:4x4"),
    ([SLICE], "say what to compile: --config=digits"),
    ([DIGITS, "--topology=v5e"], "is written like v5e:4x4"),
    ([DIGITS, SLICE, "--steps=4"], "--steps is for --what=sample"),
    ([SLICE, "--workdir=x"], "--workdir is for --what=sample"),
    ([SLICE, "--what=sample"], "either --workdir=runs/NAME or --config=FILE"),
    ([SLICE, "--what=sample", "--workdir=nowhere"], "nowhere holds no run"),
    ([DIGITS, SLICE, "--batch_size=0"], "--batch_size must be a whole number of at least 1; got 0"),
]


class Answer(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


def answer(commands, *flags: str) -> Answer:
    command = commands.start("fmjax/__main__.py", "compile", *flags)
    return Answer(command.wait(), command.out, command.err)


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "sentence"), MISTAKES)
def test_a_mistake_gets_one_sentence(commands, flags, sentence):
    done = answer(commands, *flags)
    assert done.code == 2, done.err
    (line,) = done.err.strip().splitlines()
    assert line.startswith("fmjax compile: ")
    assert sentence in line


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "program", "examples"),
    [
        (["--batch_size=64"], "training step of mlp", 64),
        (["--what=sample", "--solver=euler", "--steps=3", "--batch_size=16"], "sampler of mlp", 16),
        (["--what=sample", "--solver=churn", "--steps=3"], "sampler of mlp", 256),
    ],
)
def test_a_program_is_compiled_as_the_flags_say(commands, flags, program, examples):
    done = answer(commands, *small_flags(), SLICE, *flags)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{program}: {examples} examples on 4 x TPU v5e (v5e:2x2)")
