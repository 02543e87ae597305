"""What a sample run says of itself."""

import types

import pytest

from fmjax.factory import Guidance, Recipe
from fmjax.run.sample.to_disk import SampleResult, _calls, describe_result
from fmjax.samplers import solver_spec

RESULT = SampleResult("out", 7, 100, 40, 1.5, 8.0, nfe=12.0, calls=24.0)


def test_a_sentence_says_what_was_drawn_now():
    assert describe_result(RESULT) == (
        "100 samples of step 7 in out: 40 of them now, 8.0 s, after 1.5 s of compilation; 5.0 "
        "samples per second; 12 velocity evaluations per sample (24 of the network)"
    )
    assert ": 8.0 s, after" in describe_result(RESULT._replace(drawn=100))
    assert describe_result(RESULT._replace(drawn=0)).endswith("in out: all there already")


@pytest.mark.parametrize(
    ("solver", "guidance", "nfe", "calls"),
    [
        (solver_spec("euler", 4), None, 4, 4),
        (solver_spec("euler", 4), Guidance(), 4, 8),
        (solver_spec("euler", 4), Guidance(interval=(0.2, 0.6)), 4, 6),  # at 1/4 and 1/2
        (solver_spec("heun", rtol=1e-3), Guidance(), 17.5, 35),  # at times not known before
    ],
)
def test_the_evaluations_of_the_network_are_counted(solver, guidance, nfe, calls):
    ordinary, scaled = (types.SimpleNamespace(scaled_fn=f) for f in (None, len))
    assert _calls(ordinary, Recipe(solver, guidance), nfe) == calls
    assert _calls(scaled, Recipe(solver, guidance), nfe) == nfe
