"""What loading published weights needs: ``python -m benchmarks.speed.load_weights``.

Makes a file in float16 with the names and shapes of a list in `tests/golden/layouts`, every number
zero but the fixed positions, loads it in bfloat16 in a process of its own, and gives the peak of
that process's memory beside that of the parameters and of the imports.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks import machine
from fmjax.models import pretrained
from fmjax.models.embedders import sincos_2d

LISTS = machine.ROOT / "tests" / "golden" / "layouts"
RESULTS = machine.RESULTS / "load_weights.json"


def write_file(path: Path, shapes: dict[str, list[int]]) -> None:
    """A safetensors file of float16; zeros take no room on the disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
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
    """Loads a file, in this process."""
    imports, began = peak(), time.perf_counter()
    net = pretrained.load(path, layout, dtype="bfloat16")
    leaves = jax.block_until_ready(jax.tree.leaves(net.params))
    return {
        "parameters (GB)": round(sum(leaf.nbytes for leaf in leaves) / 1e9, 3),
        "largest parameter (GB)": round(max(leaf.nbytes for leaf in leaves) / 1e9, 3),
        "imports (GB)": round(imports, 3),
        "peak (GB)": round(peak(), 3),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Makes the file, measures, and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", type=Path, default=LISTS / "dit_xl2_256_official.json")
    parser.add_argument("--layout", default="sit")
    parser.add_argument("--file", type=Path, help="load this one, and make none")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.file:
        print(json.dumps(measure(arguments.file, arguments.layout)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        write_file(path, json.loads(arguments.list.read_text()))
        module = "benchmarks.speed.load_weights"
        command = [sys.executable, "-m", module, f"--file={path}", f"--layout={arguments.layout}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = {"list": arguments.list.stem, "layout": arguments.layout} | json.loads(done.stdout)
    print(json.dumps(found, indent=1))
    about = machine.about(device=jax.devices()[0].device_kind)
    machine.write_json(arguments.out, about | found)


if __name__ == "__main__":
    main()
