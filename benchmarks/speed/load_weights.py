"""What loading published weights needs: ``python -m benchmarks.speed.load_weights CASE``.

Makes files with the names and shapes of a published network, every number zero but the fixed
positions of a DiT, loads them in bfloat16 in a process of its own, and gives the peak of that
process's memory beside that of the parameters and of the imports. Zeros take no room on the disk.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import machine
from fmjax.models import pretrained
from fmjax.models.embedders import sincos_2d

GOLDEN = machine.ROOT / "tests" / "golden"
RESULTS = machine.RESULTS / "load_weights.json"
Shapes = dict[str, list[int]]


class Case(NamedTuple):
    """A published network: its layout, its list of shapes, and how its file is written."""

    layout: str
    shapes: Callable[[], Shapes]
    dtype: str
    shards: int


def _dit() -> Shapes:
    return json.loads((GOLDEN / "layouts" / "dit_xl2_256_official.json").read_text())


def _sd3() -> Shapes:
    """Of Stable Diffusion 3 medium, from one line for the same tensor of many blocks."""
    folded = json.loads((GOLDEN / "text_to_image" / "layouts.json").read_text())["SD3-medium"]
    return {
        name.replace("*", str(i)): shape
        for name, (shape, first, count) in folded.items()
        for i in ([None] if first is None else range(first, first + count))
    }


CASES = {
    "dit-xl2": Case("sit", _dit, "F16", 1),
    "sd3-medium": Case("diffusers-sd3", _sd3, "BF16", 3),
}


def write_folder(folder: Path, case: Case) -> None:
    """As diffusers writes: one file, or shards and an index."""
    shapes = case.shapes()
    names = list(shapes)
    each = -(-len(names) // case.shards)
    stem, where = "diffusion_pytorch_model", {}
    for k in range(case.shards):
        part = names[k * each : (k + 1) * each]
        number = f"-{k + 1:05}-of-{case.shards:05}" if case.shards > 1 else ""
        write_file(folder / f"{stem}{number}.safetensors", {n: shapes[n] for n in part}, case.dtype)
        where |= dict.fromkeys(part, f"{stem}{number}.safetensors")
    if case.shards > 1:
        index = {"metadata": {}, "weight_map": where}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def write_file(path: Path, shapes: Shapes, dtype: str) -> None:
    """A safetensors file of 16 bits a number."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        file.truncate(start + end)
        if "pos_embed" in shapes:
            _, tokens, width = shapes["pos_embed"]
            side = math.isqrt(tokens)
            file.seek(start + header["pos_embed"]["data_offsets"][0])
            file.write(sincos_2d(side, side, width).astype(np.float16).tobytes())


def peak() -> float:
    """The largest memory that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure(path: Path, layout: str) -> dict[str, float]:
    """Loads weights, in this process."""
    imports, began = peak(), time.perf_counter()
    net = pretrained.load(path, layout, dtype="bfloat16")
    leaves = jax.block_until_ready(jax.tree.leaves(net.params))
    return {
        "numbers": sum(leaf.size for leaf in leaves),
        "parameters (GB)": round(sum(leaf.nbytes for leaf in leaves) / 1e9, 3),
        "largest parameter (GB)": round(max(leaf.nbytes for leaf in leaves) / 1e9, 3),
        "imports (GB)": round(imports, 3),
        "peak (GB)": round(peak(), 3),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Makes the files, measures, and writes the figures beside those of the other cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--folder", type=Path, help="load this one, and make none")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    case = CASES[arguments.case]
    if arguments.folder:
        print(json.dumps(measure(arguments.folder, case.layout)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), case)
        module = "benchmarks.speed.load_weights"
        command = [sys.executable, "-m", module, arguments.case, f"--folder={folder}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = {"layout": case.layout, "dtype": case.dtype, "files": case.shards}
    found |= json.loads(done.stdout)
    print(json.dumps(found, indent=1))
    before = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    about = machine.about(device=jax.devices()[0].device_kind, flags=False)
    cases = before.get("cases", {}) | {arguments.case: found}
    machine.write_json(arguments.out, about | {"cases": cases})


if __name__ == "__main__":
    main()
