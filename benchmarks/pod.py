"""What the TPU compiler plans for DiT-XL/2 on slices of v5e: ``python -m benchmarks.pod``.

Compiles a training step at a global batch of 1,024, and the sampler of a batch, for TPU topologies,
and writes what `fmjax.run.compile` reports. Needs the libtpu wheel and no TPU; a
row takes one to two minutes of a CPU core. Rows that the results hold already are kept: ``--again``
compiles them anew.
"""

import argparse
import json
import runpy
from pathlib import Path

import jax

from benchmarks import machine
from fmjax.config import ConfigDict, default_config
from fmjax.factory import Recipe
from fmjax.run.compile.programs import compile_sampling, compile_training, record_of
from fmjax.run.compile.report import Report, too_large
from fmjax.run.sample.request import Request
from fmjax.samplers import solver_spec

RESULTS = machine.RESULTS / "pod.json"
TRAINING = (  # topology, copies of the state, parts of the state, what is computed again
    ("v5e:4x4", 1, 16, "full"),
    ("v5e:4x4", 4, 4, "full"),
    ("v5e:8x8", 16, 4, "dots"),
    ("v5e:16x16", 64, 4, "none"),
    ("v5e:16x16", 256, 1, "none"),
)
SAMPLING = ("50 guided steps", "v5e:4x4", 256)
TOY = {"name": "dit", "width": 64, "depth": 2, "heads": 2, "patch_size": 4}
SENTENCE = (
    "These are the compiler's plans, not measurements: memory and collectives are exact for this "
    "program and compiler, the two times are roofline bounds (the model's operations at the chip's "
    "peak; the program's memory traffic at full bandwidth), and waiting for the network is in "
    "neither."
)


def config_of(toy: bool) -> ConfigDict:
    """The configuration of configs/dit_xl2.py, or a toy of the same make."""
    config = runpy.run_path(str(machine.ROOT / "configs" / "dit_xl2.py"))["get_config"]()
    if toy:
        config.model = default_config().model
        config.model.update(TOY)
        config.train.batch_size = 64
    return config


def rows(config: ConfigDict, toy: bool):
    """Each row's name and a function that compiles it."""
    training = TRAINING if not toy else (("v5e:2x2", 1, 4, "full"),)
    for topology, data, fsdp, remat in training:
        sized = config.copy_and_resolve_references()
        sized.mesh.update({"data": data, "fsdp": fsdp})
        sized.model.remat = remat
        name = f"train, {topology}, data={data} fsdp={fsdp} remat={remat}"
        yield name, lambda c=sized, t=topology: compile_training(c, t)
    name, topology, batch = SAMPLING if not toy else ("2 guided steps", "v5e:2x2", 8)
    recipe = Recipe(solver_spec("euler", int(name.split()[0])))
    request = Request(batch, (), (1.5,))
    record = record_of(config, None)
    yield (
        f"sample, {topology}, {name}",
        lambda: compile_sampling(record, topology, request, recipe, batch_size=batch),
    )


def table(results: dict[str, Report]) -> str:
    """The rows as a Markdown table."""
    heads = (
        "",
        "chips",
        "batch",
        "GiB a chip",
        "collectives, GB",
        "compute bound",
        "memory bound",
        "images/s",
    )
    lines = [" | ".join(heads), " | ".join(["---", *["---:"] * (len(heads) - 1)])]
    for name, report in results.items():
        start = [name, str(report["devices"]), str(report["examples"])]
        if not report["fits"]:
            lines.append(" | ".join([*start, too_large(report), *[""] * 4]))
            continue
        moved = sum(sums["bytes"] for sums in report["collectives"].values())
        least = "" if report["loops_are_known"] else "over "
        cells = [
            f"{report['memory']['total'] / 2**30:.1f}",
            f"{moved / 1e9:.2f}",
            f"{report['compute_bound_ms']:.0f} ms",
            f"{least}{report['memory_bound_ms']:.0f} ms",
            f"{report['examples_per_second_at_peak']:,.0f}",
        ]
        lines.append(" | ".join([*start, *cells]))
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """Compiles the rows that are missing, and prints them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="compile all rows anew")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--toy", action="store_true", help="a small model on four chips")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    found = {}
    if options.out.exists() and not options.again:
        found = json.loads(options.out.read_text())["rows"]
    wanted = dict(rows(config_of(options.toy), options.toy))
    for name, run in wanted.items():
        if options.only in name and (options.only or name not in found):
            found[name] = run()
            ordered = {row: found[row] for row in wanted if row in found}
            about = {"command": machine.command(flags=False), "versions": machine.versions()}
            machine.write_json(options.out, about | {"rows": ordered})
            print(name, "done", flush=True)
    results = {row: found[row] for row in wanted if row in found}
    print(f"\n{table(results)}\n\n{SENTENCE}")


if __name__ == "__main__":
    main()
