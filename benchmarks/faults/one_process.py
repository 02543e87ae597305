"""Faults of a run of one process: killed, stopped, its disk failing, slow, full, or damaged."""

import contextlib
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.faults.compare_runs import (
    copy,
    last_step,
    lines,
    read_states,
    same_bits,
    saved,
)
from benchmarks.faults.forked_runs import EVERY, FLAGS, Child, finish, start

KILLS_A_RUN = 10
_CANNOT_WRITE = "a checkpoint could not be written"


def steps() -> int:
    """How many steps a run of one process has."""
    return FLAGS["train.steps"]


def whole_run(folder: Path, name: str = "whole", **options) -> Path:
    """A run that nothing happens to, made once."""
    if not (folder / name).exists():
        finish(start(folder / name, **options))
    return folder / name


def _training(workdir: Path, since: float) -> bool:
    """Whether a process started at that time has got to its steps."""
    path = workdir / "metrics.jsonl"
    return path.exists() and path.stat().st_mtime > since and "compile_s" in path.read_text()[-300:]


def _hurt(child: Child, workdir: Path, rng: random.Random, number: int) -> dict | None:
    """Sends a signal at a random moment, mostly while it trains; None when it ended before."""
    since = time.time()
    early = number == signal.SIGKILL and rng.random() < 0.15
    if early:  # while it starts: reads the checkpoint, compiles
        child.until(lambda: False, rng.uniform(0.5, 4))
    else:
        if not child.until(partial(_training, workdir, since)):
            return None
        goal = last_step(workdir) + rng.randrange(5 * EVERY)
        child.until(lambda: last_step(workdir) >= min(goal, steps() - EVERY))
        child.until(lambda: False, rng.uniform(0, 0.1))
    if child.poll() is not None:
        return None
    child.send(number)
    child.wait()
    saving = any(p.name.endswith("tmp") for p in (workdir / "checkpoints").glob("*"))
    reached, kept = last_step(workdir), max(saved(workdir), default=0)
    moment = "while starting" if early else "while saving" if saving else "between saves"
    return {"reached": reached, "saved": kept, "moment": moment}


def kill(folder: Path, rng: random.Random, trials: int = 30, devices: int = 1) -> dict:
    """Kill -9 at random moments; the run started again must end as one that was left alone."""
    sharded = {"mesh__data": 1, "mesh__fsdp": devices} if devices > 1 else {}
    options = {"devices": devices} | sharded
    whole = whole_run(folder, f"whole{devices}", **options)
    runs, kills = [], []
    while len(kills) < trials:
        workdir, mine = folder / f"killed{devices}.{len(runs)}", 0
        runs.append(workdir)
        while mine < KILLS_A_RUN and len(kills) < trials:
            child = start(workdir, **options)
            hurt = _hurt(child, workdir, rng, signal.SIGKILL)
            if hurt is None:
                break
            kills.append(hurt | {"run": len(runs) - 1})
            mine += 1
            print(f"  kill {len(kills)}: {hurt}", flush=True)
        finish(child if hurt is None else start(workdir, **options))
    same = same_bits(whole, *runs, devices=devices)
    lost = sum(not same[kill["run"]] for kill in kills)
    moments = [kill["moment"] for kill in kills]
    again = [kill["reached"] - kill["saved"] for kill in kills]
    details = {
        "runs": len(runs),
        "moments": {moment: moments.count(moment) for moment in sorted(set(moments))},
        "steps_done_again": {"mean": sum(again) / len(again), "max": max(again)},
        "checkpoint_every": EVERY,
    }
    if devices > 1:
        (split, _), *_ = read_states(whole, devices=devices)
        details |= {"devices": devices, "parameters_split": split}
    return {"trials": len(kills), "lost": lost, "details": details}


def kill_sharded(folder: Path, rng: random.Random, trials: int = 6) -> dict:
    """The same for a state in shards over four devices."""
    return kill(folder, rng, trials, devices=4)


def terminate(folder: Path, rng: random.Random, trials: int = 3) -> dict:
    """SIGTERM: the run saves, says so, exits with 143, and goes on exactly."""
    whole, runs, details = whole_run(folder, "whole1"), [], []
    for trial in range(trials):
        workdir = folder / f"terminated{trial}"
        child = start(workdir)
        hurt = _hurt(child, workdir, rng, signal.SIGTERM)
        said = f"saved step {max(saved(workdir), default=0)}." in child.output
        details.append(hurt | {"code": child.code, "said": said})
        finish(start(workdir, name="again"))
        runs.append(workdir)
    same = same_bits(whole, *runs, log=False)
    good = [s and d["code"] == 143 and d["said"] for s, d in zip(same, details, strict=True)]
    return {"trials": trials, "lost": trials - sum(good), "details": details}


def _stopped_well(child: Child) -> dict:
    """How a run ended that could not write: code 4, and one sentence that says so at the end."""
    code, output = child.wait(), child.output
    said = [line for line in output.splitlines() if line.startswith("train.py: ")]
    clear = len(said) == 1 and _CANNOT_WRITE in said[0]
    # A write cut short leaves callbacks of tensorstore behind, which complain of their own.
    noise = output.count("Traceback")
    return {"code": code, "said": said, "tracebacks": noise, "good": bool(code == 4 and clear)}


def _fails_then_works(
    folder: Path, name: str, hurt: Callable[[Child, Path], None], mend: Callable[[Path], None]
) -> dict:
    whole, workdir = whole_run(folder, "whole1"), folder / name
    child = start(workdir)
    child.until(lambda: len(saved(workdir)) >= 2)
    hurt(child, workdir)
    ended = _stopped_well(child)
    mend(workdir)
    before = saved(workdir)
    finish(start(workdir, name="again"))
    (same,) = same_bits(whole, workdir)
    return ended | {"checkpoints_left": before, "exact": same}


def _result(details: list[dict]) -> dict:
    lost = sum(not (d["good"] and d["exact"]) for d in details)
    return {"trials": len(details), "lost": lost, "details": details}


def failing_store(folder: Path, rng: random.Random) -> dict:
    """The folder of the checkpoints turns into a file, and later back."""

    def replace(_: Child, workdir: Path) -> None:
        folder = workdir / "checkpoints"
        folder.rename(workdir / "elsewhere")
        while not folder.is_file():  # a checkpoint that was being written may make it anew
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.write_text("not a folder")

    def mend(workdir: Path) -> None:
        (workdir / "checkpoints").unlink()
        (workdir / "elsewhere").rename(workdir / "checkpoints")

    return _result([_fails_then_works(folder, "failing", replace, mend)])


def full_disk(folder: Path, rng: random.Random, sizes: tuple = (40_000, 200_000)) -> dict:
    """No file may grow past a size, which a checkpoint of 600 kB reaches early or late."""
    return _result(
        [
            _fails_then_works(
                folder,
                f"full{size}",
                lambda child, _, size=size: child.limit_files(size),
                lambda _: None,
            )
            | {"bytes": size}
            for size in sizes
        ]
    )


def slow_store(folder: Path, rng: random.Random, seconds: float = 2.0) -> dict:
    """A store that takes its time: the steps go on meanwhile."""
    from benchmarks.faults.fmjax_internals import slow_writer

    whole, workdir = whole_run(folder, "whole1"), folder / "slow"
    changes = {"train__checkpoint_every": steps() // 2}
    child = start(workdir, patch=slow_writer(seconds), **changes)
    child.until(lambda: last_step(workdir) >= steps() // 2)
    unfinished = 0
    while child.poll() is None and not saved(workdir):
        unfinished = max(unfinished, last_step(workdir) - steps() // 2)
        time.sleep(0.005)
    finish(child)
    (_, a), (_, b) = read_states(whole, workdir)
    speeds = {
        line["step"]: line["examples_per_second"] for line in lines(workdir) if "loss" in line
    }
    return {
        "trials": 1,
        "lost": int(a != b or unfinished < EVERY),
        "details": {
            "seconds_to_write": seconds,
            "steps_meanwhile": unfinished,
            "logged": len(speeds),
            "exact": a == b,
        },
    }


def _files(checkpoint: Path) -> list[str]:
    return sorted(str(p.relative_to(checkpoint)) for p in checkpoint.rglob("*") if p.is_file())


def damage(folder: Path, rng: random.Random) -> dict:
    """Flips a byte in each file of the newest checkpoint in turn, and starts the run again.

    A file that decides nothing of the state may be flipped without harm: what counts is that the
    run ends with the right bits, and how it came to them.
    """
    whole, details, runs = whole_run(folder, "whole1"), [], []
    for name in _files(whole / "checkpoints" / str(steps())):
        workdir = copy(whole, f"damaged{len(runs)}")
        path = workdir / "checkpoints" / str(steps()) / name
        content = bytearray(path.read_bytes())
        place = rng.randrange(len(content))
        content[place] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        child = start(workdir)
        code = child.wait()
        aside = (workdir / "corrupt").exists()
        noticed = f"step {steps()}" in child.output and "Taking the one before" in child.output
        details.append({"file": name, "byte": place, "code": code, "set_aside": aside})
        details[-1]["noticed"] = noticed
        runs.append(workdir)
        print(f"  {details[-1]}", flush=True)
    whole_state = read_states(whole)[0][1]
    for detail, (_, state) in zip(details, read_states(*runs), strict=True):
        detail["exact"] = state == whole_state
    lost = sum(not (d["exact"] and d["code"] == 0) for d in details)
    for run in runs:
        shutil.rmtree(run)
    return {"trials": len(details), "lost": lost, "details": details}
