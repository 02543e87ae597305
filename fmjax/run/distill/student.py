"""Distillation: what a trained flow does in many steps, a network of two times does in one.

The student begins with the teacher's parameters, and learns the map of its flow, guided at a scale
that is then built in, by one of the identities of `fmjax.flow_maps` with the teacher's velocity in
the place of its own (Boffi et al., arXiv:2406.07507).

==============  =================================================================================
`lagrangian`    the end of a jump moves with the teacher's velocity there
`eulerian`      where a jump leads does not change along the teacher's flow: MeanFlow's identity
`progressive`   one jump leads where two of half its length do, the shortest made by the teacher
==============  =================================================================================

`pairs` is the distillation of rectified flow: a network of one time, begun as the teacher, learns
x1 - x0 of stored pairs of it at the times i / k alone, and takes k Euler steps (Liu et al.,
arXiv:2209.03003).
"""

import shlex
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fmjax.checks import check_at_least, check_finite_number, check_name
from fmjax.config import ConfigDict, default_config
from fmjax.errors import InputError
from fmjax.factory import Experiment
from fmjax.factory.manifolds import check_flat
from fmjax.factory.snapshots import check_one_distribution
from fmjax.factory.tokens import check_of_numbers
from fmjax.first_process import on_first_process, say
from fmjax.flow_maps import Jumps
from fmjax.run import workdir as folder
from fmjax.run.reflow import rounds
from fmjax.run.reflow.compare import Compared, keep_comparison
from fmjax.run.restore import TrainedFlow, open_run, restore_flow
from fmjax.run.train.training import train
from fmjax.samplers import ODESolver, Solver, solver_spec
from fmjax.storage.fingerprint import fingerprint
from fmjax.training.parallelism import Parallel

METHODS: dict[str, dict[str, Any]] = {
    "lagrangian": {
        "flow_map": {"name": "lagrangian", "diagonal": 0.0, "from_source": 0.5},
        "loss": {"distance": "adaptive", "power": 0.5},
    },
    "eulerian": {
        "flow_map": {"name": "meanflow", "diagonal": 0.5},
        "loss": {"distance": "adaptive", "power": 1.0},
    },
    # With the live network for its own target it diverged on the 2-D tasks.
    "progressive": {
        "flow_map": {"name": "shortcut", "diagonal": 0.25, "averaged": True},
        "loss": {},
    },
    "pairs": {},
}
"""What each sets in the configuration of the student; of pairs `_on_pairs` does."""

JUMPS = (1, 2, 4)
REPORT = "distill.json"
# What a loss of flow maps does not take, or does in its own way.
_RESET = {
    "loss": ("target", "distance", "c", "power", "weight"),
    "time": ("stratified", "importance"),
    "sample": ("solver", "steps", "guidance"),
}


class Plan(NamedTuple):
    """How the student is made.

    Attributes:
        method: a name of `METHODS`.
        guidance: scale w of the teacher's velocity, built into the student; None for the scale at
            which the teacher's run is sampled.
        solver: of the teacher's samples in the report.
        train_steps: of the student; None for as many as the teacher's.
        parallel: ``"jit"`` or ``"pmap"``, of the training.
        k: of pairs: in how many steps the student goes from noise to data.
        num: of pairs: how many, a tenth of them held out.
        batch_size: of pairs: drawn per call, over the devices of a process.
        seed: of the noise that pairs start from.
    """

    method: str = "lagrangian"
    guidance: float | None = None
    solver: ODESolver = solver_spec("heun", 25)
    train_steps: int | None = None
    parallel: Parallel = "jit"
    k: int = 1
    num: int = 20_000
    batch_size: int = 256
    seed: int = 0

    def pairs(self, w: float) -> rounds.Plan:
        """The same as a round of reflow."""
        return rounds.Plan(
            num=self.num,
            guidance=w,
            solver=self.solver,
            train_steps=self.train_steps,
            batch_size=self.batch_size,
            seed=self.seed,
            parallel=self.parallel,
        )


def distill(workdir: Path, out: Path, plan: Plan | None = None) -> int:
    """Teaches a network of two times what a trained run does; a second call goes on.

    The student is a run like any other: its folder is `out`, and it is sampled in one evaluation
    unless asked otherwise. The figures of both, side by side, are in its ``distill.json``.

    Args:
        workdir: the teacher, a trained run; it is only read.
        out: the student's folder.
        plan: how.

    Returns:
        0 when all is done, else the signal that stopped the training after its state was saved.

    Raises:
        InputError: something does not fit, in one sentence, before any device work.
        FloatingPointError: the training, or one of the flows, gave NaN or infinity.
    """
    workdir, out, plan = Path(workdir), Path(out), Plan() if plan is None else plan
    _check(workdir, out, plan)
    teacher = open_run(workdir)
    w = _scale(plan, teacher)
    config = folder.load_record(workdir).config
    if plan.method == "pairs":
        rounds.check_plan(workdir, 1, plan.pairs(w))
        flow = restore_flow(workdir, teacher, local=True)
        rounds.draw_round(flow, out, 1, plan.pairs(w), w, command(workdir, out, plan))
        config = _on_pairs(config, out, plan, w)
    else:
        config = student_config(config, workdir, plan, w)
    stopped = train(config, out, plan.parallel, init_from=workdir)
    if stopped:
        return stopped
    before, after = (restore_flow(run, open_run(run), local=True) for run in (workdir, out))
    say(on_first_process(partial(_report, before, after, plan, w)))
    steps = ["--solver=euler", f"--steps={plan.k}"] if plan.method == "pairs" else ["--steps=1"]
    say(f"next: {shlex.join(['python', '-m', 'fmjax', 'sample', f'--workdir={out}', *steps])}")
    return 0


def student_config(config: ConfigDict, workdir: Path, plan: Plan, w: float) -> ConfigDict:
    """The configuration of the student: the teacher's, but for what is learned and how."""
    config, usual = config.copy_and_resolve_references(), default_config()
    for group, keys in _RESET.items():
        config[group].update({key: usual[group][key] for key in keys})
    config.loss.target = "fm"
    config.flow_map.update(usual.flow_map)
    for group, values in METHODS[plan.method].items():
        config[group].update(values)
    config.flow_map.update({"teacher": str(workdir.absolute()), "guidance": w})
    if plan.train_steps is not None:
        config.train.steps = plan.train_steps
    return config


def _on_pairs(config: ConfigDict, out: Path, plan: Plan, w: float) -> ConfigDict:
    """The configuration of a student of stored pairs: that of a round of reflow, on few times."""
    config = rounds.round_config(config, out, plan.pairs(w), w)
    config.time.update(default_config().time)
    config.time.update({"name": "step_starts", "steps": plan.k})
    config.sample.update({"solver": "euler", "steps": plan.k, "guidance": 1.0})
    return config


def command(workdir: Path, out: Path, plan: Plan) -> str:
    """The command line that does the same, and so goes on where a call was stopped."""
    flags = {"workdir": workdir, "out": out, "method": plan.method, "guidance": plan.guidance}
    flags |= {"solver": plan.solver.solver, "steps": plan.solver.steps}
    flags |= {"train_steps": plan.train_steps, "k": plan.k, "num": plan.num, "seed": plan.seed}
    given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    return shlex.join(["python", "-m", "fmjax", "distill", *given])


def _scale(plan: Plan, teacher: Experiment) -> float:
    if plan.guidance is not None:
        return plan.guidance
    return 1.0 if teacher.conditions is None else teacher.guidance_scale


def _check(workdir: Path, out: Path, plan: Plan) -> None:
    """What would otherwise be noticed late, or said in the words of another command."""
    check_name("method (--method)", plan.method, METHODS)
    if plan.guidance is not None:
        check_finite_number("the guidance scale", plan.guidance)
    if plan.train_steps is not None:
        check_at_least("the number of training steps", plan.train_steps)
    check_at_least("k, the number of steps,", plan.k)
    if out.absolute() == workdir.absolute():
        raise InputError(f"the student needs a folder of its own; got --out={out} for both.")
    config, spec, *_ = folder.load_record(workdir)
    check_one_distribution(spec, "distillation")
    check_of_numbers(spec, "distillation")
    check_flat(spec, "the command distill (a run with flow_map.teacher is of any)")
    if plan.guidance not in (None, 1) and not config.labels.conditional:
        raise InputError("this model is unconditional: nothing guides it; write --guidance=1.")
    if plan.method == "pairs" and config.flow_map.name != "none":
        raise InputError(
            f"--method=pairs distills networks of one time, and {workdir} has one of two: take "
            "--method=lagrangian."
        )


def _report(teacher: TrainedFlow, student: TrainedFlow, plan: Plan, w: float) -> str:
    """Measures both, unless that has been done, and says it."""
    path = student.workdir / REPORT
    asked = {
        "method": plan.method,
        "guidance": w,
        "k": plan.k,
        "parameters": [int(fingerprint(flow.params)) for flow in (teacher, student)],
        "solver": plan.solver.describe(),
    }
    flows = {
        "teacher": Compared(teacher, w, {"many_step": plan.solver}),
        "student": Compared(student, 1.0, _few_steps(plan)),
    }
    return keep_comparison(path, asked, flows)


def _few_steps(plan: Plan) -> dict[str, Solver]:
    """How the student is sampled for the report, by the name of the figure."""
    if plan.method == "pairs":
        return {f"euler_{n}": solver_spec("euler", n) for n in sorted({*JUMPS, plan.k})}
    return {f"jumps_{n}": Jumps(n) for n in JUMPS}
