"""What a training run reports: its opening, previews, the final evaluation, the next command."""

import shlex
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from fmjax.factory import Recipe
from fmjax.factory.training import abstract_params
from fmjax.files import write_json
from fmjax.first_process import on_first_process
from fmjax.run import workdir as folder
from fmjax.run.evaluate.measure import describe_evaluation, evaluate_flow
from fmjax.run.pictures import is_shown, named, save_overview
from fmjax.run.restore import TrainedFlow
from fmjax.run.sample.request import Request
from fmjax.run.train.loss_curve import write_loss_curve
from fmjax.run.train.setup import Run
from fmjax.training.events import Events
from fmjax.training.folder import EVENTS, METRICS


def opening(run: Run, start: int) -> str:
    """The first sentence: what is trained, on what, and where it goes."""
    params = sum(x.size for x in jax.tree.leaves(abstract_params(run.experiment)))
    device = jax.devices()[0].device_kind
    mesh = "x".join(map(str, run.layout.mesh.devices.shape))
    kernel = run.experiment.attention
    return (
        f"{'resuming at step ' + str(start) if start else 'training'}: {run.experiment.network}, "
        f"{params / 1e6:.2f} M parameters, on {run.experiment.data.name}; "
        f"{jax.device_count()} x {device}"
        + (f" as data x fsdp x tensor = {mesh}" if jax.device_count() > 1 else "")
        + (f"; attention by {kernel}" if kernel else "")
        + f"; everything goes to {run.workdir}"
    )


def sample_command(run: Run) -> str:
    """The command that samples this run, into a folder named after it."""
    flags = [f"--workdir={run.workdir}", "--num=100", f"--out={Path('out') / run.workdir.name}"]
    return shlex.join(["python", "-m", "fmjax", "sample", *flags])


def is_finished(run: Run, start: int) -> bool:
    """Whether nothing is left to do, the evaluation included."""
    evaluated = run.experiment.evaluation.num == 0 or folder.evaluated_step(run.workdir) == start
    return start >= run.experiment.train.steps and evaluated


def already_finished(run: Run, start: int) -> str:
    """The sentence for a run that has nothing left to do."""
    return (
        f"{run.workdir} is finished: {start} steps. Sample from it with: {sample_command(run)} ; "
        f"train on with --config.train.steps={2 * start}, or start anew with --overwrite."
    )


def write_configuration(run: Run, start: int) -> None:
    """Shows the configuration in TensorBoard."""
    events = _events(run, start)
    config = "\n".join("    " + line for line in str(run.config).splitlines())
    events.write_text(start, "configuration", config)
    events.close()


def _events(run: Run, start: int) -> Events:
    return Events(run.workdir / EVENTS / folder.EVENTS_OF_REPORT, start)


def write_preview(run: Run, params: Any, step: int) -> None:
    """Samples of every class and the losses, while the run trains, under the number of the step."""
    path = _write_overview(run, params, step, f"{step:08d}")
    on_first_process(lambda: _write_report(run, step, path))


def final_report(run: Run, params: Any, step: int) -> str:
    """Draws, measures and writes what the trained flow gives; returns it in words."""
    experiment, text, report = run.experiment, f"step {step}", None
    path = _write_overview(run, params, step, "final")
    if is_shown(experiment.spec.codec):
        text = f"samples: {path}"
    text = f"{text}; losses: {run.workdir / folder.LOSSES}"
    if experiment.evaluation.num:
        report = _evaluate(run, params, step)
    on_first_process(lambda: _write_report(run, step, path, report))
    return text if report is None else f"{describe_evaluation(report)}\n{text}"


def _evaluate(run: Run, params: Any, step: int) -> dict | None:
    experiment = run.experiment
    flow = TrainedFlow(run.workdir, experiment, step, params, run.layout.mesh)
    request = Request(experiment.evaluation.num, seed=experiment.train.seed)
    report = evaluate_flow(flow, run.dataset, request, Recipe(experiment.solver))
    if report is not None:
        write_json(run.workdir / folder.EVALUATION, {"step": step} | report)
    return report


def _write_report(run: Run, step: int, shown: Path, report: dict | None = None) -> None:
    """Writes ``loss.png``, and for TensorBoard and the run's log the samples and the figures.

    TensorBoard's lie in a folder of their own below the training's: it reads the newest file of a
    folder and leaves the others, and the training goes on writing to its own.
    """
    write_loss_curve(run.workdir / METRICS, run.workdir / folder.LOSSES)
    events = _events(run, step - 1)
    try:
        if shown.exists() and shown.suffix == ".png":
            events.write_picture(step, "samples", shown)
            run.log.picture(step, shown)
        elif shown.exists():
            events.write_text(step, "samples", shown.read_text(encoding="utf-8"))
        figures = flatten_dict(report or {}, sep="/")
        numbers = {name: x for name, x in figures.items() if isinstance(x, int | float)}
        if numbers:
            events.write(step, numbers)
            run.log.scalars(step, numbers)
    finally:
        events.close()


def _write_overview(run: Run, params: Any, step: int, stem: str) -> Path:
    path = run.workdir / folder.SAMPLES / named(run.experiment.spec.codec, stem)
    flow = TrainedFlow(run.workdir, run.experiment, step, params, run.layout.mesh)
    save_overview(flow, run.dataset, run.experiment.train.seed, path)
    return path
