"""Faults of a run of several processes, and of a state in shards."""

import random
import re
import signal
import time
from functools import partial
from pathlib import Path

from benchmarks.faults.compare_runs import last_step, read_states, same_bits, saved
from benchmarks.faults.forked_runs import EVERY, Child, finish, start, start_two

HEARTBEAT = 10
SHORT = {"train__steps": 6 * EVERY}  # Gloo between two processes is slow where cores are few
SENTENCE = "Start all of them again by the same command"


def _whole(folder: Path) -> Path:
    """Two processes that nothing happens to."""
    if not (folder / "two").exists():
        finish(*start_two(folder / "two", **SHORT))
    return folder / "two"


def _other_stops(other: Child, began: float) -> dict:
    """How long the other process took to stop, with which code, and whether it said why."""
    code = other.wait(HEARTBEAT * 6)
    said = [line for line in other.output.splitlines() if SENTENCE in line]
    return {
        "seconds": round(time.monotonic() - began, 1),
        "hung": code is None,
        "code": code,
        "sentences": len(said),
        "good": bool(code and len(said) == 1),
    }


def one_of_two(folder: Path, rng: random.Random, trials: int = 4) -> dict:
    """Kill -9 of process 1, or of process 0: the other stops with a sentence; both go on after."""
    whole, details, runs = _whole(folder), [], []
    for trial in range(trials):
        workdir, victim = folder / f"one_of_two{trial}", 1 - trial % 2
        children = start_two(workdir, f"--heartbeat_timeout={HEARTBEAT}", **SHORT)
        goal = 2 * EVERY + rng.randrange(EVERY)
        children[0].until(lambda w=workdir, g=goal: last_step(w) >= g)
        children[victim].send(signal.SIGKILL)
        began = time.monotonic()
        details.append({"killed": victim} | _other_stops(children[1 - victim], began))
        children[victim].wait()
        finish(*start_two(workdir, **SHORT))
        runs.append(workdir)
        print(f"  {details[-1]}", flush=True)
    for detail, same in zip(details, same_bits(whole, *runs), strict=True):
        detail["exact"] = same
    lost = sum(not (d["good"] and d["exact"]) for d in details)
    return {"trials": trials, "lost": lost, "details": details}


def frozen(folder: Path, rng: random.Random) -> dict:
    """Process 1 stands still, as on a machine that has gone: nobody closes its connections."""
    workdir = folder / "frozen"
    children = start_two(workdir, f"--heartbeat_timeout={HEARTBEAT}", **SHORT)
    children[0].until(lambda: last_step(workdir) >= EVERY)
    children[1].send(signal.SIGSTOP)
    detail = _other_stops(children[0], time.monotonic()) | {"heartbeat_timeout": HEARTBEAT}
    children[1].send(signal.SIGKILL)
    children[1].wait()
    return {"trials": 1, "lost": int(not detail["good"]), "details": [detail]}


def one_fails(folder: Path, rng: random.Random) -> dict:
    """An error in one process only, while it trains and while process 0 alone evaluates."""
    from benchmarks.faults.fmjax_internals import fail_at, fail_in_pictures

    details, at_a_step = [], partial(fail_at, 2 * EVERY + 3)
    cases = {
        "process 1 at a step": (1, (None, at_a_step), "is nan at step"),
        "process 0 at a step": (0, (at_a_step, None), "is nan at step"),
        "process 0 at the end": (0, (fail_in_pictures, None), "no space left"),
    }
    for number, (case, (failing, patches, words)) in enumerate(cases.items()):
        changes = {"train__steps": 4 * EVERY, "eval__num": 100}  # so that they meet at the end
        children = start_two(folder / f"one_fails{number}", patches=patches, **changes)
        children[failing].until(lambda c=children[failing], w=words: w in c.output)
        began = time.monotonic()
        detail = {"case": case} | _other_stops(children[1 - failing], began)
        detail["code_of_the_failing"] = children[failing].wait(60)
        details.append(detail)
        print(f"  {detail}", flush=True)
    lost = sum(not (d["good"] and d["code_of_the_failing"]) for d in details)
    return {"trials": len(details), "lost": lost, "details": details}


def terminate_one(folder: Path, rng: random.Random) -> dict:
    """SIGTERM to one of two processes: both save the same step, and go on exactly."""
    whole, details, runs = _whole(folder), [], []
    for victim in (0, 1):
        workdir = folder / f"terminated_one{victim}"
        children = start_two(workdir, **SHORT)
        children[0].until(lambda w=workdir: last_step(w) >= EVERY + 5)
        children[victim].send(signal.SIGTERM)
        codes = [child.wait() for child in children]
        told = re.search(r"saved step (\d+)", children[0].output)
        said = bool(told) and int(told[1]) == max(saved(workdir))
        details.append({"to": victim, "codes": codes, "said": said})
        finish(*start_two(workdir, **SHORT))
        runs.append(workdir)
    for detail, same in zip(details, same_bits(whole, *runs), strict=True):
        detail["exact"] = same
    lost = sum(not (d["codes"] == [143, 143] and d["said"] and d["exact"]) for d in details)
    return {"trials": len(details), "lost": lost, "details": details}


def other_mesh(folder: Path, rng: random.Random) -> dict:
    """What 8 devices, or 2 processes, wrote in shards is read elsewhere, to the bit."""
    mesh = {"mesh__data": 1, "mesh__fsdp": -1, "train__steps": 2 * EVERY}
    eight, two = folder / "eight", folder / "two_sharded"
    finish(start(eight, devices=8, **mesh))
    finish(*start_two(two, **mesh))
    places = [(8, 1), (4, 1), (1, 1), (1, 2)]
    read = {
        place: read_states(eight, two, devices=place[0], processes=place[1]) for place in places
    }
    details = [
        {
            "written_by": ("8 devices", "2 processes")[run],
            "read_by": f"{processes} x {devices} devices",
            "parameters_split": split,
            "good": state == read[1, 1][run][1] and (split > 0) == (devices * processes > 1),
        }
        for (devices, processes), states in read.items()
        for run, (split, state) in enumerate(states)
    ]
    lost = sum(not d["good"] for d in details)
    return {"trials": len(details), "lost": lost, "details": details}
