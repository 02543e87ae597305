"""One training step, fmjax against PyTorch: ``python benchmarks/train_step.py --torch=PYTHON``.

Loss, backward pass, clipping, AdamW and average of a DiT on synthetic images that lie on the
device. On a GPU DiT-B/2 and DiT-XL/2 on 32x32x4 latents in bfloat16; on a CPU, or with ``--toy``, a
DiT of width 128 on 8x8 images in float32. Every contender is compiled first; then they take turns
(turns.py). Each library runs in a process of its own; ``--torch`` is the interpreter that has
torch (and diffusers, where that is to be compared too), by default this one if it has.

Before anything is timed the two networks are held together: the same weights, inputs and gradient.
``images_per_second`` and ``mfu`` (model FLOPs over the peak) are of the least time.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import floors
from sides import Side, about, hold_together, make_turns, ratio, start_sides

RESULTS = Path(__file__).resolve().parent / "results"
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


def measure(case: dict, sides: dict[str, Side], options: argparse.Namespace) -> dict:
    """Makes every contender ready, lets them take turns, and says what each reached."""
    rows, seconds = make_turns("train", case, sides, options.rounds, options.steps)
    size = sides["fmjax"].worker.ask("size", case=case)
    operations = case["batch"] * size["training operations"]
    for label, value in seconds.items():
        peak = sides[label.split()[0]].peak
        rows[label]["images_per_second"] = round(case["batch"] / value["least"], 1)
        rows[label]["mfu"] = round(operations / value["least"] / peak, 4)
    peak = max(side.peak for side in sides.values())
    floor = {"operations": operations, "operations ms": round(1e3 * operations / peak, 3)}
    if bandwidth := sides["fmjax"].bandwidth:
        moved = floors.train_bytes(case["model"], case["shape"], case["batch"], size["parameters"])
        floor |= {"bytes": moved, "bytes ms": round(1e3 * moved / bandwidth, 3)}
    return {"floors (calculated)": floor, "contenders": rows} | ratio(rows)


def read_flags() -> argparse.Namespace:
    """The command line."""
    has_torch = importlib.util.find_spec("torch") is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", default=sys.executable if has_torch else None, metavar="PYTHON")
    parser.add_argument("--toy", action="store_true", help="the toy, on a GPU too")
    parser.add_argument("--models", nargs="+", choices=MODELS)
    parser.add_argument("--batches", nargs="+", type=int)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--ours", nargs="*", help="configuration keys of each contender")
    parser.add_argument("--theirs", nargs="*", help="module and mode of each contender")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10, help="steps of one turn")
    parser.add_argument("--warm", type=int, default=5, help="steps before the first turn")
    parser.add_argument("--threads", type=int, help="of either library, on a CPU")
    parser.add_argument("--out", type=Path, help="results/train_step_{cpu,gpu}.json by default")
    return parser.parse_args()


def main() -> None:
    """Measures, prints and writes after every case."""
    options = read_flags()
    sides = start_sides(options.torch, options.threads)
    on_gpu = sides["fmjax"].about["platform"] != "cpu"
    options.toy = options.toy or not on_gpu
    for name, default, toy in (("fmjax", OURS, OURS_TOY), ("torch", THEIRS, THEIRS_TOY)):
        if name in sides:
            asked = options.ours if name == "fmjax" else options.theirs
            sides[name].contenders[:] = (
                (toy if options.toy else default) if asked is None else asked
            )
    result = about("train_step.py", sides) | {"cases": {}}
    out = options.out or RESULTS / f"train_step_{'gpu' if on_gpu else 'cpu'}.json"
    for name, case in cases(options).items():
        print(name, flush=True)
        # Four blocks of the model's size are compared: the gradient in float32 is large.
        small = case | {"model": case["model"] | {"depth": min(4, case["model"]["depth"])}}
        apart = {}
        if "torch" in sides:
            with tempfile.TemporaryDirectory() as folder:
                apart = hold_together(sides, small, Path(folder) / "weights.npz", gradient=True)
        result["cases"][name] = {"same function": apart} | measure(case, sides, options)
        out.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result["cases"][name], indent=1), flush=True)
    for side in sides.values():
        side.worker.close()


if __name__ == "__main__":
    main()
