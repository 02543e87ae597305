"""One training step, fmjax against PyTorch: ``python -m benchmarks.speed.train_step``.

Loss, backward pass, clipping, AdamW and average of a DiT on synthetic images that lie on the
device. On a GPU DiT-B/2 and DiT-XL/2 on 32x32x4 latents in bfloat16; on a CPU, or with ``--toy``, a
DiT of width 128 on 8x8 images in float32. Every variant is compiled first; then they are timed in
turn. Each library runs in a process of its own (fmjax_worker.py, torch_worker.py); ``--torch`` is
the interpreter that has torch (and diffusers, where that is to be compared too), by default this
one if it has.

Before anything is timed the two networks are compared: the same weights, inputs and gradient.
``images_per_second`` and ``mfu`` (model FLOPs over the peak) are of the least time.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import RESULTS, write_json
from benchmarks.speed.libraries import (
    Library,
    about,
    check_same_function,
    close,
    count_rate,
    lower_bounds,
    ratio,
    start_libraries,
    time_variants,
)
from benchmarks.speed.memory_traffic import train_bytes

LATENTS, TOY = [32, 32, 4], "toy"
MODELS = {
    "DiT-B/2": {"patch_size": 2, "width": 768, "depth": 12, "heads": 12, "num_classes": 1000},
    "DiT-XL/2": {"patch_size": 2, "width": 1152, "depth": 28, "heads": 16, "num_classes": 1000},
    TOY: {"patch_size": 2, "width": 128, "depth": 4, "heads": 4, "num_classes": 10},
}
BATCHES = {"DiT-B/2": [64, 128, 256], "DiT-XL/2": [32, 64, 128], TOY: [256]}
OURS = ["defaults", "model.scan=True", "model.remat=dots", "model.attention=xla"]
THEIRS = ["plain default", "plain max-autotune-no-cudagraphs", "diffusers default"]
OURS_TOY, THEIRS_TOY = ["defaults"], ["plain eager", "plain default"]


def cases(options: argparse.Namespace) -> dict[str, dict]:
    """What is measured, by name."""
    found = {}
    for name in options.models or ([TOY] if options.toy else ["DiT-B/2", "DiT-XL/2"]):
        shape, dtype = ([8, 8, 1], "float32") if name == TOY else (LATENTS, "bfloat16")
        for batch in options.batches or BATCHES[name]:
            found[f"{name}, batch {batch}, {options.dtype or dtype}"] = {
                "model": MODELS[name],
                "shape": shape,
                "batch": batch,
                "dtype": options.dtype or dtype,
                "warm": options.warm,
            }
    return found


def measure(case: dict, libraries: dict[str, Library], options: argparse.Namespace) -> dict:
    """Times every variant and compares it with the roofline."""
    rows, seconds = time_variants("train", case, libraries, options.rounds, options.steps)
    size = libraries["fmjax"].worker.must("size", case=case)
    operations = case["batch"] * size["training operations"]
    count_rate(rows, seconds, libraries, case["batch"], operations)
    moved = train_bytes(case["model"], case["shape"], case["batch"], size["parameters"])
    bounds = lower_bounds(libraries, operations, moved)
    return {"lower bounds (calculated)": bounds, "variants": rows} | ratio(rows)


def read_flags() -> argparse.Namespace:
    """The command line."""
    has_torch = importlib.util.find_spec("torch") is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", default=sys.executable if has_torch else None, metavar="PYTHON")
    parser.add_argument("--toy", action="store_true", help="the toy, on a GPU too")
    parser.add_argument("--models", nargs="+", choices=MODELS)
    parser.add_argument("--batches", nargs="+", type=int)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--ours", nargs="*", help="configuration keys of each variant")
    parser.add_argument("--theirs", nargs="*", help="module and mode of each variant")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10, help="steps of one timing")
    parser.add_argument("--warm", type=int, default=5, help="steps before the first timing")
    parser.add_argument("--threads", type=int, help="of either library, on a CPU")
    parser.add_argument("--out", type=Path, help="results/train_step_{cpu,gpu}.json by default")
    return parser.parse_args()


def main() -> None:
    """Measures, prints and writes after every case."""
    options = read_flags()
    libraries = start_libraries(options.torch, options.threads)
    on_gpu = libraries["fmjax"].about["platform"] != "cpu"
    options.toy = options.toy or not on_gpu
    ours, theirs = (OURS_TOY, THEIRS_TOY) if options.toy else (OURS, THEIRS)
    for name, asked, default in (("fmjax", options.ours, ours), ("torch", options.theirs, theirs)):
        if name in libraries:
            libraries[name].variants.extend(default if asked is None else asked)
    result = about(libraries) | {"cases": {}}
    out = options.out or RESULTS / f"train_step_{'gpu' if on_gpu else 'cpu'}.json"
    for name, case in cases(options).items():
        print(name, flush=True)
        # Four blocks of the model's size are compared: the gradient in float32 is large.
        small = case | {"model": case["model"] | {"depth": min(4, case["model"]["depth"])}}
        apart = {}
        if "torch" in libraries:
            with tempfile.TemporaryDirectory() as folder:
                weights = Path(folder) / "weights.npz"
                apart = check_same_function(libraries, small, weights, gradient=True)
        result["cases"][name] = {"same function": apart} | measure(case, libraries, options)
        write_json(out, result)
        print(json.dumps(result["cases"][name], indent=1), flush=True)
    close(libraries)


if __name__ == "__main__":
    main()
