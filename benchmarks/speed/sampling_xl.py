"""Guided sampling with DiT-XL/2 on a GPU: ``python -m benchmarks.speed.sampling_xl``.

Fifty Euler steps with guidance w = 4, both branches in one call of the network, bfloat16, by fmjax
and by PyTorch with the same weights; the variants are timed in turn on one device. ``--torch`` is
the interpreter that has torch, by default this one if it has. With ``--toy`` the digits' DiT, so
that it runs on a CPU.
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
from benchmarks.speed.memory_traffic import sample_bytes
from benchmarks.speed.networks import DIGITS, XL

LATENTS = {"model": XL, "shape": [32, 32, 4], "dtype": "bfloat16", "steps": 50}
TOY = {"model": DIGITS, "shape": [8, 8, 1], "dtype": "float32", "steps": 4}
OURS, THEIRS = ["defaults", "model.scan=True"], ["plain default", "plain reduce-overhead"]


def measure(case: dict, libraries: dict[str, Library], rounds: int) -> dict:
    """Times every variant and compares it with the roofline."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.npz"
        case |= {"weights": str(weights)}
        apart = check_same_function(libraries, case, weights, gradient=False)
        rows, seconds = time_variants("sample", case, libraries, rounds, 1)
    size = libraries["fmjax"].worker.must("size", case=case)
    batch, steps = case["batch"], case["steps"]
    # Both branches at every step; a forward pass is a third of the training operations.
    operations = 2 * batch * steps * size["training operations"] / 3
    count_rate(rows, seconds, libraries, batch, operations)
    moved = sample_bytes(case["model"], case["shape"], batch, size["parameters"], steps)
    facts = {"batch": batch, "steps": steps, "solver": "euler", "guidance": case["guidance"]}
    bounds = {"lower bounds (calculated)": lower_bounds(libraries, operations, moved)}
    return facts | {"same function": apart} | bounds | {"variants": rows} | ratio(rows)


def main() -> None:
    """Measures, prints and writes."""
    has_torch = importlib.util.find_spec("torch") is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", default=sys.executable if has_torch else None, metavar="PYTHON")
    parser.add_argument("--toy", action="store_true", help="a small network, on a CPU too")
    parser.add_argument("--batch", type=int, default=64, help="images")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS / "sampling_gpu.json")
    options = parser.parse_args()
    libraries = start_libraries(options.torch)
    libraries["fmjax"].variants.extend(["defaults"] if options.toy else OURS)
    if "torch" in libraries:
        libraries["torch"].variants.extend(["plain eager"] if options.toy else THEIRS)
    case = (TOY if options.toy else LATENTS) | {"batch": options.batch, "guidance": 4.0}
    result = about(libraries) | measure(case, libraries, options.rounds)
    close(libraries)
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
