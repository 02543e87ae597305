"""What the flags ask for, and where they say nothing."""

import json

import pytest

from fmjax.factory import Guidance, Recipe
from fmjax.run.restore import Weights
from fmjax.run.sample.request import Request
from fmjax.samplers import sde_spec, solver_spec

CODE = """
    import json, sys
    from absl import flags
    from fmjax.config import default_config
    from fmjax.errors import InputError
    from fmjax.run.sample.flags import recipe, request, weights

    configured = default_config()
    configured.sample.update({"solver": "midpoint", "steps": 12, "shift": 3.0})

    def asked(given):
        flags.FLAGS.unparse_flags()
        for name in flags.FLAGS:
            flags.FLAGS[name].unparse()
        try:
            own = given and given[0] == "--config=own"
            flags.FLAGS(["sample", *given[bool(own) :]])
            how = recipe(None, configured if own else None)
            return repr((request(), how, weights()))
        except InputError as error:
            return str(error)

    print(json.dumps([asked(given) for given in json.loads(sys.argv[1])]))
"""
HEUN = solver_spec("heun", None)
ASKED = {
    "": (Request(None), Recipe(HEUN, Guidance()), Weights()),
    "--num=5 --labels=0,1 --guidance=1,2 --seed=3": (
        Request(5, (0, 1), (1.0, 2.0), 3),
        Recipe(HEUN, Guidance()),
        Weights(),
    ),
    "--labels=none --noema --checkpoint=best --weak=4": (
        Request(None, None),
        Recipe(HEUN, Guidance()),
        Weights("best", ema=False, weak="4"),
    ),
    "--solver=euler --steps=4 --grid=0,0.1,0.5,0.9,1": (
        Request(None),
        Recipe(solver_spec("euler", 4, grid=(0.0, 0.1, 0.5, 0.9, 1.0)), Guidance()),
        Weights(),
    ),
    "--solver=churn --steps=4 --noise=2 --diffusion=constant": (
        Request(None),
        Recipe(sde_spec("churn", 4, diffusion="constant", scale=2.0), Guidance()),
        Weights(),
    ),
    "--interval=0.2,0.8 --zero_until=0.1 --negative=1 --rule=rescale": (
        Request(None),
        Recipe(HEUN, Guidance("rescale", interval=(0.2, 0.8), zero_until=0.1, negative=1)),
        Weights(),
    ),
    "--scales=image=1.5,text=7.5 --in_turn": (
        Request(None),
        Recipe(HEUN, Guidance(scales=(("image", 1.5), ("text", 7.5)), in_turn=True)),
        Weights(),
    ),
}
# By a configuration whose sample.* keys are midpoint, 12 steps and a shift of 3.
ASKED |= {
    f"--config=own {line}": (Request(None), Recipe(solver, Guidance()), Weights())
    for line, solver in {
        "": solver_spec("midpoint", 12, shift=3.0),
        "--steps=5": solver_spec("midpoint", 5, shift=3.0),
        "--shift=1": solver_spec("midpoint", 12),
        "--grid=karras": solver_spec("midpoint", 12, grid="karras"),
        "--grid=0,0.2,1": solver_spec("midpoint", None, grid=(0.0, 0.2, 1.0)),
        "--rtol=1e-2 --atol=1e-2": solver_spec("midpoint", rtol=1e-2, atol=1e-2),
        "--solver=heun": HEUN,
    }.items()
}
REFUSED = {
    "--renoise=0.5": "--renoise is for jumps",
    "--diffusion=constant": "--diffusion is for sampling with noise",
    "--noise=2 --solver=heun": "--noise is for sampling with noise",
}


@pytest.fixture(scope="module")
def answers(commands):
    """What is made of every line of flags, by one process."""
    lines = [line.split() for line in (*ASKED, *REFUSED)]
    child = commands.start_code(CODE, json.dumps(lines))
    assert child.wait(120) == 0, child.output
    return dict(zip((*ASKED, *REFUSED), json.loads(child.out.splitlines()[-1]), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("line", ASKED)
def test_flags_ask_for_what_they_say(answers, line):
    assert answers[line] == repr(ASKED[line])


@pytest.mark.parametrize("line", REFUSED)
def test_flags_that_do_not_fit_together_are_refused(answers, line):
    assert REFUSED[line] in answers[line]
