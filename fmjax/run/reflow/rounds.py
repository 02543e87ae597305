"""Reflow: a flow learns its own pairs again, and becomes straighter; k times.

The pairs (x0, x1) of a flow, x1 being where the flow carries x0, are a coupling whose lines cross
less than those of independent pairs; a flow that learns the straight line of each follows
straighter paths, and needs fewer steps. Source: Liu et al., arXiv:2209.03003, algorithm 1.
"""

import math
import shlex
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from fmjax.checks import check_at_least
from fmjax.config import ConfigDict, default_config
from fmjax.errors import InputError, unknown_name
from fmjax.factory import Recipe, make_experiment
from fmjax.factory.manifolds import check_flat
from fmjax.factory.snapshots import check_one_distribution
from fmjax.factory.tokens import check_of_numbers
from fmjax.first_process import on_first_process, say
from fmjax.names import named_leaves
from fmjax.run import workdir as folder
from fmjax.run.reflow.compare import Compared, keep_comparison
from fmjax.run.reflow.draw_pairs import draw_pairs
from fmjax.run.restore import TrainedFlow, open_run, restore_flow
from fmjax.run.sample.request import Request, check_request, resolve
from fmjax.run.train.training import train
from fmjax.samplers import ODESolver, solver_spec
from fmjax.storage.fingerprint import fingerprint
from fmjax.training.parallelism import Parallel, check_divides

STARTS = ("weights", "scratch")
PAIRS = "pairs"
REPORT = "reflow.json"


class Plan(NamedTuple):
    """How each round is done.

    Attributes:
        num: how many pairs; a tenth of them is held out.
        start: ``"weights"`` begins with the flow that made the pairs, ``"scratch"`` anew.
        guidance: scale w of the first round's pairs; the flow that learns them has it built in, so
            that it, and the pairs of later rounds, are sampled at w = 1.
        solver: of the pairs, and of the many-step samples of the report.
        train_steps: of each round; None for as many as the first run's.
        batch_size: pairs per call, over the devices of a process.
        seed: of the noise that the pairs start from; each round has its own.
        parallel: ``"jit"`` or ``"pmap"``, of the training.
    """

    num: int = 20_000
    start: str = "weights"
    guidance: float = 1.0
    solver: ODESolver = solver_spec("heun", 25)
    train_steps: int | None = None
    batch_size: int = 256
    seed: int = 0
    parallel: Parallel = "jit"


def round_dir(workdir: Path, k: int) -> Path:
    """The folder of the flow after k rounds: ``<workdir>-reflow<k>``, and `workdir` for k = 0."""
    return workdir.with_name(f"{workdir.name}-reflow{k}") if k else workdir


def reflow(workdir: Path, rounds: int = 1, plan: Plan | None = None) -> int:
    """Rectifies the flow of a trained run, `rounds` times; a second call goes on where it stopped.

    Round k draws pairs from the flow of round k - 1, stores them in ``<workdir>-reflow<k>/pairs``,
    trains on them in that folder along the straight path, and writes the figures of both flows side
    by side to its ``reflow.json``.

    Args:
        workdir: a trained run; it is only read.
        rounds: how many.
        plan: how each is done.

    Returns:
        0 when all is done, else the signal that stopped a training after its state was saved.

    Raises:
        InputError: something does not fit, in one sentence, before any device work.
        FloatingPointError: a flow or a training gave NaN or infinity.
    """
    workdir, plan = Path(workdir), Plan() if plan is None else plan
    check_plan(workdir, rounds, plan)
    for k in range(1, rounds + 1):
        source, target = round_dir(workdir, k - 1), round_dir(workdir, k)
        w = plan.guidance if k == 1 else 1.0
        flow = _restore(source)
        draw_round(flow, target, k, plan, w, command(workdir, rounds, plan))
        config = round_config(folder.load_record(source).config, target, plan, w)
        init_from = source if plan.start == "weights" else None
        stopped = train(config, target, plan.parallel, init_from=init_from)
        if stopped:
            return stopped
        say(on_first_process(partial(_report, flow, _restore(target), k, plan, w)))
    return 0


def draw_round(flow: TrainedFlow, target: Path, k: int, plan: Plan, w: float, resume: str) -> None:
    """Stores the pairs of round k in its folder; those that are there stay as they are.

    Args:
        flow: what carries x0 to x1; each process has a copy of its own.
        target: the folder of the round.
        k: its number.
        plan: how many pairs, and how they are drawn.
        w: their guidance scale.
        resume: the command that goes on where this was stopped.

    Raises:
        InputError: as `draw_pairs`.
    """
    asked = Request(plan.num, w=(w,), seed=pair_seed(plan.seed, k))
    drawn = resolve(flow.experiment, asked, Recipe(plan.solver))
    draw_pairs(flow, target / PAIRS, *drawn, plan.batch_size, resume)


def _restore(workdir: Path) -> TrainedFlow:
    """A run's flow, a copy on each process."""
    return restore_flow(workdir, open_run(workdir), local=True)


def pair_seed(seed: int, k: int) -> int:
    """The seed of round k's noise, hashed: no sample of a small seed is then one of the pairs."""
    return int(np.random.SeedSequence(seed, spawn_key=(k,)).generate_state(1)[0])


def round_config(config: ConfigDict, target: Path, plan: Plan, w: float) -> ConfigDict:
    """The configuration of a round: the run's own, on stored pairs along the straight path."""
    config = config.copy_and_resolve_references()
    usual = default_config()
    config.coupling.update(usual.coupling)
    config.coupling.update({"name": "pairs", "dir": str((target / PAIRS).absolute())})
    config.path.update(usual.path)
    # The mirror image of a pair is none of this flow's pairs: x0 would have two ends.
    config.data.flip = False
    config.flow_map.teacher = None  # it learns its own pairs
    config.flow_map.guidance = 1.0
    if w != 1:
        config.sample.guidance = 1.0  # it is built in
    if plan.train_steps is not None:
        config.train.steps = plan.train_steps
    return config


def command(workdir: Path, rounds: int, plan: Plan) -> str:
    """The command line that does the same, and so goes on where a call was stopped."""
    flags = {"workdir": workdir, "rounds": rounds, "num": plan.num, "start": plan.start}
    flags |= {"guidance": plan.guidance, "solver": plan.solver.solver, "steps": plan.solver.steps}
    flags |= {"train_steps": plan.train_steps, "seed": plan.seed}
    given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    return shlex.join(["python", "-m", "fmjax", "reflow", *given])


def check_plan(workdir: Path, rounds: int, plan: Plan) -> None:
    """Checks everything that can be checked before a device is used.

    Raises:
        InputError: something does not fit.
    """
    check_at_least("the number of rounds", rounds)
    if plan.start not in STARTS:
        raise unknown_name("start (--start)", plan.start, STARTS)
    check_request(Request(plan.num, w=(plan.guidance,)))
    check_at_least("the batch size", plan.batch_size)
    check_at_least("the seed", plan.seed, 0)
    config, spec, *_ = folder.load_record(workdir)
    check_one_distribution(spec, "reflow")
    check_of_numbers(spec, "reflow")
    check_flat(spec, "reflow, which straightens lines,")
    if plan.guidance != 1 and not config.labels.conditional:
        raise InputError("this model is unconditional: nothing guides it; write --guidance=1.")
    # What training would refuse is refused before the pairs are drawn.
    experiment = make_experiment(round_config(config, workdir, plan, plan.guidance), spec)
    if experiment.conditions is not None and experiment.classes is None:
        raise InputError(
            f"stored pairs keep one class id each, and the conditions of {workdir} are "
            f"{', '.join(named_leaves(experiment.conditions))}; train with "
            "labels.conditional=False to reflow."
        )
    check_divides(config.train.batch_size, jax.device_count(), config.train.accumulate)
    batch = config.train.batch_size
    if plan.num - max(1, round(plan.num / 10)) < batch:
        raise InputError(
            f"{plan.num} pairs, a tenth of them held out, do not fill a batch of {batch}; write "
            f"--num={math.ceil(batch / 0.9) + 1} or more."
        )


def _report(before: TrainedFlow, after: TrainedFlow, k: int, plan: Plan, w: float) -> str:
    """Measures the flows on either side of round k, unless that has been done, and says it."""
    path = after.workdir / REPORT
    asked = {
        "round": k,
        "parameters": [int(fingerprint(flow.params)) for flow in (before, after)],
        "solver": plan.solver.describe(),
    }
    solvers = {"one_step": solver_spec("euler", 1), "many_step": plan.solver}
    flows = {
        f"{k}-RF": Compared(before, w, solvers),
        f"{k + 1}-RF": Compared(after, 1.0, solvers),
    }
    return keep_comparison(path, asked, flows)
