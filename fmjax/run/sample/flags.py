"""The flags that say what to sample, how to solve, how to guide, and with which parameters."""

from pathlib import Path

from absl import flags

from fmjax.config import ConfigDict
from fmjax.errors import InputError
from fmjax.factory import Guidance, Recipe, Solver
from fmjax.factory.generation import check_choice
from fmjax.factory.registry import GUIDANCE_RULES, is_flow_map, make_solver
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
    "num", None, "Number of samples: 100, or one for each row of --condition and --x0."
)
LABELS = flags.DEFINE_string("labels", "all", "Classes that repeat in turn: 0,1,2, all, or none.")
CONDITION = flags.DEFINE_string(
    "condition",
    None,
    "In place of --labels: an .npz with the conditions by name, or the .npy of a run with one; a "
    "row for each sample, or one for all.",
)
X0 = flags.DEFINE_string(
    "x0",
    None,
    "Points to start from in place of noise: an .npy, or an .npz with the array x0, a row for each "
    "sample, or one for all; of a run whose source is data, in the units of those.",
)
FROM = flags.DEFINE_float(
    "from", None, "Of a flow through snapshots: the time at which to start; the first snapshot's."
)
TO = flags.DEFINE_float("to", None, "The time at which to end; the last snapshot's.")
SEED = flags.DEFINE_integer("seed", 0, "Sample i is a function of the seed and i alone.")

# With which parameters.
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "A step, best, or latest.")
EMA = flags.DEFINE_bool("ema", True, "Use the averaged parameters.")
WEAK = flags.DEFINE_string("weak", None, "Guide by an earlier checkpoint: a step (autoguidance).")

# How to solve.
SOLVER = flags.DEFINE_string(
    "solver",
    None,
    f"Of the ODE, {_one_of(SOLVERS)}; of the SDE, {_one_of(METHODS)}; jumps; or MODULE:NAME. heun "
    "if left out, and jumps of a flow map.",
)
STEPS = flags.DEFINE_integer(
    "steps", None, "Fixed steps; 25 unless --rtol or --atol is given, and of jumps 1."
)
GRID = flags.DEFINE_string(
    "grid", None, f"Time grid of the fixed steps: {_one_of(GRIDS)}, or times such as 0,0.1,1."
)
SHIFT = flags.DEFINE_float(
    "shift",
    1.0,
    "Timestep shift (SD3, FLUX) of a uniform grid; above 1 puts more steps near the noise.",
)
RTOL = flags.DEFINE_float("rtol", None, "Relative tolerance of adaptive steps.")
ATOL = flags.DEFINE_float("atol", None, "Absolute tolerance of adaptive steps.")
CONTROL = flags.DEFINE_string("control", None, "Adaptive steps per sample (default) or per batch.")
RENOISE = flags.DEFINE_float("renoise", 0.0, "Of jumps: the share of noise drawn anew, 0 to 1.")
DIFFUSION = flags.DEFINE_string("diffusion", "sigma", f"Noise of the SDE: {_one_of(DIFFUSIONS)}.")
NOISE = flags.DEFINE_float("noise", 1.0, "Multiplier of g^2, the diffusion of the SDE.")

# How to guide.
GUIDANCE = flags.DEFINE_string(
    "guidance", None, "Scale w, or a list that repeats in turn; default: the run's own scale."
)
SCALES = flags.DEFINE_string(
    "scales",
    None,
    "Of several conditions, a scale for each in place of --guidance: image=1.5,text=7.5.",
)
IN_TURN = flags.DEFINE_bool(
    "in_turn", False, "Add each condition of --scales to those before it (InstructPix2Pix)."
)
RULE = flags.DEFINE_string(
    "rule", "linear", f"How the branches are combined: {_one_of(GUIDANCE_RULES)}."
)
SCHEDULE = flags.DEFINE_string("schedule", "constant", f"w over t: {_one_of(SCALE_SCHEDULES)}.")
INTERVAL = flags.DEFINE_string("interval", None, "Guide in these times only, e.g. 0.2,0.8.")
ZERO_UNTIL = flags.DEFINE_float("zero_until", 0.0, "No velocity before this time (CFG-Zero*).")
NEGATIVE = flags.DEFINE_integer("negative", None, "A class to lead away from.")


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
    name = SOLVER.value
    # What is wrong with a flag alone is said before that there is no run.
    if name is None and workdir is not None and (workdir / RECORD).exists():
        config = load_record(workdir).config
    if name is None:
        name = "jumps" if config is not None and is_flow_map(config) else "heun"
    return Recipe(_chosen_solver(name), guidance)


def weights() -> Weights:
    """With which parameters of the run."""
    return check_weights(Weights(CHECKPOINT.value, EMA.value, WEAK.value))


def _chosen_solver(name: str) -> Solver:
    grid = GRID.value
    grid = _numbers("grid", grid, float) if grid and grid[0].isdigit() else grid
    on_grid = {"shift": SHIFT.value, "grid": grid}
    if name != "jumps" and _given("renoise"):
        raise InputError("--renoise is for jumps: take --solver=jumps, of a flow map.")
    if name in METHODS:
        tolerances = {name: flags.FLAGS[name].value for name in _given("rtol", "atol")}
        return make_solver(
            name,
            STEPS.value,
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
    return make_solver(name, STEPS.value, **adaptive, **on_grid, **more)


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
