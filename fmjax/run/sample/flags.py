"""The flags that say what to sample, how to solve, how to guide, and with which parameters."""

from pathlib import Path
from typing import Any

from absl import flags

from fmjax.config import ConfigDict
from fmjax.errors import InputError
from fmjax.factory import Guidance, Recipe, Solver
from fmjax.factory.generation import check_choice
from fmjax.factory.registry import GUIDANCE_RULES, TOKEN_SOLVERS, make_solver, usual_solver
from fmjax.guidance import SCALE_SCHEDULES
from fmjax.run.restore import Weights, check_weights
from fmjax.run.sample.request import Request, check_request
from fmjax.run.workdir import RECORD, load_record
from fmjax.samplers import METHODS, SOLVERS
from fmjax.samplers.diffusion_coefficients import DIFFUSIONS
from fmjax.samplers.time_grids import GRIDS


def _one_of(names) -> str:
    return f"one of {', '.join(sorted(names))}"


# What to sample.
NUM = flags.DEFINE_integer(
    "num", None, "Number of samples; default: 100, or one for each row of --condition or --x0."
)
LABELS = flags.DEFINE_string(
    "labels",
    "all",
    "Class of each sample: a list such as 0,1,2, which is repeated; all; or none, for samples "
    "without a condition.",
)
CONDITION = flags.DEFINE_string(
    "condition",
    None,
    "Other conditions than classes: an .npz with an array for each condition, under its name, or "
    "an .npy if the run has one condition; one row for each sample, or one row for all.",
)
X0 = flags.DEFINE_string(
    "x0",
    None,
    "Points to start from instead of noise: an .npy, an .npz with the array x0, or a folder of "
    "images; one for each sample, or one for all. If the source of the run is data, in the units "
    "of that data.",
)
FROM = flags.DEFINE_float(
    "from", None, "For a flow through snapshots: time to start at; default: the first snapshot."
)
TO = flags.DEFINE_float(
    "to", None, "For a flow through snapshots: time to end at; default: the last snapshot."
)
SEED = flags.DEFINE_integer("seed", 0, "Random seed: sample i depends on the seed and i alone.")

# With which parameters.
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "latest", "Which checkpoint: the number of its step, best, or latest."
)
EMA = flags.DEFINE_bool("ema", True, "Use the EMA of the parameters.")
WEAK = flags.DEFINE_string(
    "weak", None, "Autoguidance: guide by the earlier checkpoint of this step."
)

# How to solve.
SOLVER = flags.DEFINE_string(
    "solver",
    None,
    f"Solver of the ODE: {_one_of(SOLVERS)}; of the SDE, which adds noise: {_one_of(METHODS)}; "
    f"jumps, for a flow map; for tokens, {_one_of(TOKEN_SOLVERS)}; or MODULE:NAME of your own. "
    "Default: that of the run's configuration (sample.solver), or heun; for a flow map, jumps; for "
    "tokens, unmask.",
)
STEPS = flags.DEFINE_integer(
    "steps",
    None,
    "Number of fixed steps; default: without --solver that of the configuration (sample.steps); or "
    "25, with jumps 1, of tokens 64, with --rtol or --atol none.",
)
GRID = flags.DEFINE_string(
    "grid", None, f"Time grid of the fixed steps: {_one_of(GRIDS)}, or the times, 0,0.1,1."
)
SHIFT = flags.DEFINE_float(
    "shift",
    1.0,
    "Timestep shift (SD3, FLUX) of the uniform grid; above 1 puts more steps near the noise.",
)
RTOL = flags.DEFINE_float("rtol", None, "Adaptive steps, with this relative tolerance.")
ATOL = flags.DEFINE_float("atol", None, "Adaptive steps, with this absolute tolerance.")
CONTROL = flags.DEFINE_string(
    "control", None, "Step size of adaptive steps: of each sample (default), or batch."
)
RENOISE = flags.DEFINE_float(
    "renoise", 0.0, "With jumps: share of the noise that is drawn again before each jump, 0 to 1."
)
DIFFUSION = flags.DEFINE_string(
    "diffusion", "sigma", f"Diffusion of the SDE: {_one_of(DIFFUSIONS)}."
)
NOISE = flags.DEFINE_float("noise", 1.0, "Multiplier of g^2, the squared diffusion of the SDE.")
TEMPERATURE = flags.DEFINE_float(
    "temperature", 1.0, "For tokens: log-probabilities are divided by it; below 1, likelier tokens."
)
TOP_P = flags.DEFINE_float(
    "top_p", 1.0, "For tokens: draw only the likeliest, those of this probability together."
)
REDRAWS = flags.DEFINE_float(
    "redraws", 0.0, "For tokens, the corrector: how often each token is drawn again on the way."
)

# How to guide.
GUIDANCE = flags.DEFINE_string(
    "guidance",
    None,
    "Classifier-free guidance scale w: 0 is unconditional, 1 conditional, above 1 guided. A list, "
    "1,2,4, is combined with every label, and each scale gets a row of the picture. Default: "
    "sample.guidance of the run's configuration.",
)
SCALES = flags.DEFINE_string(
    "scales",
    None,
    "Instead of --guidance, a scale for each of several conditions: image=1.5,text=7.5.",
)
IN_TURN = flags.DEFINE_bool(
    "in_turn", False, "Guide by the conditions of --scales one after another (InstructPix2Pix)."
)
RULE = flags.DEFINE_string(
    "rule", "linear", f"How the two branches are combined: {_one_of(GUIDANCE_RULES)}."
)
SCHEDULE = flags.DEFINE_string(
    "schedule", "constant", f"The scale as a function of t: {_one_of(SCALE_SCHEDULES)}."
)
INTERVAL = flags.DEFINE_string("interval", None, "Guide only between these times, e.g. 0.2,0.8.")
ZERO_UNTIL = flags.DEFINE_float(
    "zero_until", 0.0, "Velocity 0 before this time (zero-init of CFG-Zero*)."
)
NEGATIVE = flags.DEFINE_integer("negative", None, "Class to guide away from, in place of no class.")

WHAT = {"What to sample": (NUM, LABELS, CONDITION, X0, FROM, TO, SEED)}
WHICH = {"Which parameters": (CHECKPOINT, EMA, WEAK)}
HOW = {
    "How to solve": (SOLVER, STEPS, GRID, SHIFT, RTOL, ATOL, CONTROL, RENOISE, DIFFUSION, NOISE),
    "How to draw tokens": (TEMPERATURE, TOP_P, REDRAWS),
    "How to guide": (GUIDANCE, SCALES, IN_TURN, RULE, SCHEDULE, INTERVAL, ZERO_UNTIL, NEGATIVE),
}


def request() -> Request:
    """What the flags ask to draw."""
    labels = _labels()
    w = None if GUIDANCE.value is None else _numbers("guidance", GUIDANCE.value, float)
    x0 = None if X0.value is None else Path(X0.value)
    asked = Request(NUM.value, labels, w, SEED.value, x0, FROM.value, TO.value)
    check_request(asked)
    return asked


def _labels() -> tuple[int, ...] | Path | None:
    if CONDITION.value is not None:
        if _given("labels"):
            raise InputError("--condition stands in place of --labels; give one of them.")
        return Path(CONDITION.value)
    labels = {"none": None, "all": ()}.get(LABELS.value, LABELS.value)
    return _numbers("labels", labels, int) if isinstance(labels, str) else labels


def recipe(workdir: Path | None, config: ConfigDict | None = None) -> Recipe:
    """How the flags ask to draw it.

    Args:
        workdir: of the run, which decides the solver where no flag does; None without one.
        config: in its place.
    """
    # What is wrong with a flag alone is said before that there is no run.
    if SOLVER.value is None and workdir is not None and (workdir / RECORD).exists():
        config = load_record(workdir).config
    if SOLVER.value is not None or config is None:
        solver = _chosen_solver(SOLVER.value or "heun", STEPS.value, SHIFT.value)
    else:
        solver = _chosen_solver(usual_solver(config), *_steps_and_shift(config))
    return Recipe(solver, _guidance())


def recipes(text: str) -> dict[str, Recipe]:
    """How ``--compare`` asks to draw the same noise, by what is written there.

    Args:
        text: solvers with their steps, heun:25,euler:8.

    Raises:
        InputError: it is written in another way, or a solver adds noise of its own.
    """
    if given := _given("solver", "steps", "rtol", "atol", "control", "diffusion", "noise"):
        raise InputError(f"--compare says which solvers and steps: leave --{given[0]} out.")
    chosen = {}
    for entry in text.split(","):
        name, colon, steps = entry.rpartition(":")
        if not colon or not steps.isdecimal():
            raise InputError(
                "--compare must be solvers with their numbers of steps, such as "
                f"heun:25,euler:8; got {entry!r}."
            )
        if name in METHODS or name in TOKEN_SOLVERS:
            raise InputError(
                f"{name} adds noise of its own, so that its samples are not those of the others; "
                f"--compare takes {_one_of([*SOLVERS, 'jumps'])}."
            )
        chosen[entry] = Recipe(_chosen_solver(name, int(steps), SHIFT.value), _guidance())
    return chosen


def _guidance() -> Guidance:
    interval = None if INTERVAL.value is None else _numbers("interval", INTERVAL.value, float)
    guidance = Guidance(
        rule=RULE.value,
        schedule=SCHEDULE.value,
        interval=interval,
        zero_until=ZERO_UNTIL.value,
        negative=NEGATIVE.value,
        scales=() if SCALES.value is None else _named_numbers("scales", SCALES.value),
        in_turn=IN_TURN.value,
    )
    check_choice(guidance)
    return guidance


def weights() -> Weights:
    """With which parameters of the run."""
    return check_weights(Weights(CHECKPOINT.value, EMA.value, WEAK.value))


def _steps_and_shift(config: ConfigDict) -> tuple[int | None, float]:
    """The steps of the configuration's own solver, and the shift of its grid, by flag or by key."""
    times = GRID.value is not None and GRID.value[:1].isdigit()
    if times or _given("rtol", "atol", "control"):
        return STEPS.value, SHIFT.value
    steps = config.sample.steps if STEPS.value is None else STEPS.value
    return steps, SHIFT.value if _given("shift", "grid") else config.sample.shift


def _chosen_solver(name: str, steps: int | None, shift: float) -> Solver:
    grid: Any = GRID.value
    grid = _numbers("grid", grid, float) if grid and grid[0].isdigit() else grid
    on_grid = {"shift": shift, "grid": grid}
    if name != "jumps" and _given("renoise"):
        raise InputError("--renoise is for jumps: take --solver=jumps, of a flow map.")
    if name not in TOKEN_SOLVERS and (given := _given("temperature", "top_p", "redraws")):
        raise InputError(
            f"--{given[0]} is for runs on tokens: take --solver={_one_of(TOKEN_SOLVERS)}."
        )
    if name in METHODS:
        tolerances = {name: flags.FLAGS[name].value for name in _given("rtol", "atol")}
        return make_solver(
            name,
            steps,
            diffusion=DIFFUSION.value,
            scale=NOISE.value,
            control=CONTROL.value or "fixed",
            **on_grid,
            **tolerances,
        )
    if given := _given("diffusion", "noise"):
        raise InputError(
            f"--{given[0]} is for sampling with noise: take --solver={_one_of(METHODS)}."
        )
    adaptive = {"control": CONTROL.value, "rtol": RTOL.value, "atol": ATOL.value}
    more = {"renoise": RENOISE.value} if name == "jumps" else {}
    if name in TOKEN_SOLVERS:
        more = {"temperature": TEMPERATURE.value, "top_p": TOP_P.value, "redraws": REDRAWS.value}
    return make_solver(name, steps, **adaptive, **on_grid, **more)


def _given(*names: str) -> list[str]:
    return [name for name in names if flags.FLAGS[name].present]


def _named_numbers(flag: str, text: str) -> tuple[tuple[str, float], ...]:
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return tuple((name, float(number)) for name, number in pairs)
    except ValueError:
        raise InputError(
            f"--{flag} must be a list of names with numbers like image=1.5,text=7.5; got {text!r}."
        ) from None


def _numbers(flag: str, text: str, kind: type) -> tuple:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--{flag} must be a list of numbers like 1,2,3; got {text!r}.") from None
