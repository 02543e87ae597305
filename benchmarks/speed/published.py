"""Published networks against PyTorch compiled: ``python -m benchmarks.speed.published``.

Forward passes and training steps (squared error, AdamW) in float32 on the same cores, the two
libraries in processes of their own that take turns; ``--torch`` is an interpreter with torch and
diffusers. Beside the clock it measures the seconds of all processors, which a busy machine changes
less. PyTorch's networks are diffusers' for MM-DiT and FLUX, and those that the golden files come
from for the others; convolutions are channels-last there, as here.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks import machine
from benchmarks.speed.worker import Worker, time_interleaved

RESULTS = machine.RESULTS / "published_speed.json"
BATCHES = {"DiT-S/2": 2, "U-Net, CIFAR-10": 2, "MM-DiT, 2 layers": 1, "FLUX/10": 1, "TAEF2": 1}
"""Examples at once of each network; the workers know the networks by these names."""
WORKS = ("forward", "step")


def compare(workers: dict[str, Worker], network: str, rounds: int) -> dict:
    """Both libraries on one network: its row."""
    row = {"batch": BATCHES[network]}
    for work in WORKS:
        ready, compiled = {}, {}
        for library, worker in workers.items():
            made = worker.must("prepare", network=network, batch=BATCHES[network], work=work)
            ready[library] = worker, work
            compiled[library] = round(made["compile seconds"], 1)
            row.setdefault("parameters", made["parameters"])
            if row["parameters"] != made["parameters"]:
                raise RuntimeError(f"{network} has {made['parameters']} parameters in {library}.")
        times = time_interleaved(ready, rounds, 1)
        row[work] = {
            "compile seconds": compiled,
            "ms": {name: round(1e3 * value["least"], 1) for name, value in times.items()},
            "cpu ms": {name: round(1e3 * value["cpu"], 1) for name, value in times.items()},
        }
        if "torch" in times:
            for name, key in (("torch / fmjax", "least"), ("torch / fmjax, cpu", "cpu")):
                row[work][name] = round(times["torch"][key] / times["fmjax"][key], 3)
        print(f"{network}, {work}: {row[work]}", flush=True)
        for worker in workers.values():
            worker.must("clear")
    return row


def main() -> None:
    """Measures each network and writes after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", help="an interpreter with torch and diffusers")
    parser.add_argument("--networks", nargs="*", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of each library")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    pythons = {"fmjax": sys.executable} | ({"torch": arguments.torch} if arguments.torch else {})
    workers = {
        name: Worker(python, f"benchmarks.speed.published_{name}", arguments.threads)
        for name, python in pythons.items()
    }
    found = machine.about(packages=()) | {
        "load average before": round(os.getloadavg()[0], 2),
        "libraries": {name: worker.must("about") for name, worker in workers.items()},
        "networks": {},
    }
    for network in arguments.networks:
        found["networks"][network] = compare(workers, network, arguments.rounds)
        machine.write_json(arguments.out, found)
    for worker in workers.values():
        worker.close()


if __name__ == "__main__":
    main()
