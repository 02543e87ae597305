"""Measures samples of a trained run against real examples.

    python -m fmjax evaluate --workdir=runs/digits --num=1000

Draws samples with the solver and the guidance of the flags, and prints how they compare with real
examples: class accuracy, Fréchet distance, nearest training examples, balance of the classes.
"""

from pathlib import Path

from absl import flags

from fmjax.errors import InputError
from fmjax.files import check_file, write_json
from fmjax.first_process import say
from fmjax.run.evaluate.measure import check_evaluated, describe_evaluation, evaluate_flow
from fmjax.run.restore import open_run, restore_flow
from fmjax.run.sample.flags import recipe, request, weights
from fmjax.run.workdir import check_same_data, load_record

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run.")
OUT = flags.DEFINE_string("out", None, "A JSON file to write the figures to.")


def main() -> int:
    """Reads the flags and evaluates."""
    if WORKDIR.value is None:
        raise InputError("say what to evaluate: --workdir=runs/digits")
    out = None if OUT.value is None else Path(OUT.value)
    if out is not None:
        check_file(out, "--out")
    workdir = Path(WORKDIR.value)
    what, how, which = request(), recipe(workdir), weights()
    experiment = open_run(workdir)
    check_evaluated(experiment, what, how, which)
    dataset = experiment.data.load()
    check_same_data(workdir, load_record(workdir), dataset.fingerprint)
    flow = restore_flow(workdir, experiment, which)
    report = {"step": flow.step} | evaluate_flow(flow, dataset, what, how)
    say(describe_evaluation(report))
    if out is not None:
        write_json(out, report)
    return 0
