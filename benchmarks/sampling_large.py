"""Guided sampling at the size of DiT-XL/2, fmjax against PyTorch on one device.

Euler's 50 steps with guidance w = 4, both branches in one call of the network, bfloat16, the same
weights in either library; the contenders take turns as those of train_step.py do. With ``toy`` the
digits' DiT, so that it runs on a CPU.
"""

import tempfile
from pathlib import Path

import floors
from sides import about, hold_together, make_turns, ratio, start_sides

XL = {"patch_size": 2, "width": 1152, "depth": 28, "heads": 16, "num_classes": 1000}
DIGITS = {"patch_size": 2, "width": 64, "depth": 4, "heads": 4, "num_classes": 10}
OURS, THEIRS = ["defaults", "model.scan=True"], ["plain default", "plain reduce-overhead"]


def large(toy: bool, torch: str | None, batch: int, repeat: int) -> dict:
    """What each contender takes for a batch, and the two floors."""
    case = {"model": XL, "shape": [32, 32, 4], "batch": batch, "dtype": "bfloat16", "steps": 50}
    if toy:
        digits = {"model": DIGITS, "shape": [8, 8, 1], "dtype": "float32", "steps": 4}
        case |= digits | {"batch": min(batch, 8)}
    case["guidance"] = 4.0
    sides = start_sides(torch, None)
    sides["fmjax"].contenders.extend(["defaults"] if toy else OURS)
    if "torch" in sides:
        sides["torch"].contenders.extend(["plain eager"] if toy else THEIRS)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.npz"
        case["weights"] = str(weights)
        apart = hold_together(sides, case, weights, gradient=False)
        rows, seconds = make_turns("sample", case, sides, repeat, 1)
    size = sides["fmjax"].worker.must("size", case=case)
    steps = case["steps"]
    operations = 2 * case["batch"] * steps * size["training operations"] / 3  # forward is a third
    for label, value in seconds.items():
        rows[label]["images_per_second"] = round(case["batch"] / value["least"], 2)
        rows[label]["mfu"] = round(operations / value["least"] / sides[label.split()[0]].peak, 4)
    floor = {"operations": operations}
    floor["operations ms"] = 1e3 * operations / max(side.peak for side in sides.values())
    if bandwidth := sides["fmjax"].bandwidth:
        moved = floors.sample_bytes(
            case["model"], case["shape"], case["batch"], size["parameters"], steps
        )
        floor |= {"bytes": moved, "bytes ms": 1e3 * moved / bandwidth}
    for side in sides.values():
        side.worker.close()
    facts = {"batch": case["batch"], "steps": steps, "solver": "euler", "guidance": 4.0}
    found = {"same function": apart, "floors (calculated)": floor, "contenders": rows}
    return facts | found | ratio(rows) | {"made by": about("sampling.py", sides)}
