"""The report of a compiled program that nothing has run: its memory, collectives, roofline bounds.

The memory is what the compiler's ``memory_analysis()`` says. The rest is read from the program's
text, as ``cost_analysis()`` does not give it; `fmjax.roofline.memory_traffic` has the numbers.
"""

import re
import time
from typing import Any

import jax

from fmjax.errors import InputError
from fmjax.roofline.chips import Chip, chip_of
from fmjax.roofline.collectives import collectives
from fmjax.roofline.hlo import loops_are_known, read_program
from fmjax.roofline.memory_traffic import memory_traffic

# What the TPU compiler says of a program that is too large, in the two ways it has.
_OUT_OF_MEMORY = re.compile(
    r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"
    r"|Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm"
)
_BINARY_PREFIXES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

Report = dict[str, Any]
"""Numbers and names that JSON can hold."""


def compile_and_report(
    lowered: Any, mesh: jax.sharding.Mesh, examples: int, flops: float | None
) -> Report:
    """Compiles a lowered program and says what the compiler plans.

    Args:
        lowered: from ``jax.jit(f).lower(...)``.
        mesh: whose devices it is for.
        examples: how many one execution trains on or samples.
        flops: operations of the model in one execution, all devices together; None if unknown.

    Returns:
        Bytes, operations and milliseconds are per device and execution. Where the program does not
        fit, ``fits`` is False, and only ``memory`` and what was known before is there. Where
        ``loops_are_known`` is False, collectives and memory traffic are lower bounds.
    """
    device = mesh.devices.flat[0]
    chip = chip_of(device)
    model_flops = None if flops is None else flops / mesh.size
    report = {
        "devices": mesh.size,
        "chip": device.device_kind if chip is None else chip.name,
        "mesh": dict(mesh.shape),
        "examples": examples,
        "model_flops": model_flops,
    }
    began = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        memory = _overflow(str(error))
        if memory is None:
            raise
        return report | {"fits": False, "memory": memory}
    seconds = time.perf_counter() - began
    program = read_program(compiled.as_text())
    traffic = memory_traffic(program)
    return report | {
        "fits": True,
        "memory": _memory(compiled.memory_analysis(), chip),
        "collectives": {kind: sums._asdict() for kind, sums in collectives(program).items()},
        "memory_traffic": traffic,
        "loops_are_known": loops_are_known(program),
        "compile_seconds": round(seconds, 1),
        **_bounds(model_flops, traffic, chip, examples),
    }


def _memory(stats: Any, chip: Chip | None) -> dict[str, float | None]:
    parts = {
        "arguments": stats.argument_size_in_bytes,
        "outputs": stats.output_size_in_bytes - stats.alias_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "program": stats.generated_code_size_in_bytes,
    }
    return parts | {"total": sum(parts.values()), "chip": None if chip is None else chip.memory}


def _overflow(message: str) -> dict[str, float] | None:
    """Bytes needed at least, and bytes there, as the compiler says; None for another error."""
    found = _OUT_OF_MEMORY.search(message)
    if found is None:
        return None
    needed, unit, there, unit_there = (part for part in found.groups() if part is not None)
    return {
        "total": float(needed) * _BINARY_PREFIXES[unit],
        "chip": float(there) * _BINARY_PREFIXES[unit_there],
    }


def _bounds(
    flops: float | None, traffic: int, chip: Chip | None, examples: int
) -> dict[str, float | None]:
    """The roofline bounds: the least time by the chip's peak and by its memory's bandwidth."""
    compute = None if chip is None or flops is None else flops / chip.flops
    return {
        "compute_bound_ms": None if compute is None else 1e3 * compute,
        "memory_bound_ms": None if chip is None else 1e3 * traffic / chip.bandwidth,
        "examples_per_second_at_peak": None if not compute else examples / compute,
    }


def too_large(report: Report) -> str:
    """One sentence for a program that does not fit."""
    memory = report["memory"]
    return (
        f"it does not fit: it needs {_binary(memory['total'])} at least on each "
        f"{report['chip']}, {_binary(memory['total'] - memory['chip'])} more than the "
        f"{_binary(memory['chip'])} there are for programs"
    )


def print_report(report: Report) -> int:
    """Prints a report for a command; 0 where the program fits.

    Raises:
        InputError: it does not fit.
    """
    if not report["fits"]:
        raise InputError(
            f"{too_large(report)}. Take more devices, a larger mesh.fsdp, a smaller batch, "
            "train.accumulate, or model.remat=full with model.scan."
        )
    print(compile_report_text(report))
    return 0


def compile_report_text(report: Report) -> str:
    """A report of a program that fits, in a few lines."""
    mesh = " ".join(f"mesh.{axis}={size}" for axis, size in report["mesh"].items())
    memory = {k: None if v is None else _binary(v) for k, v in report["memory"].items()}
    whole = "" if memory["chip"] is None else f" of {memory['chip']}"
    least = "" if report["loops_are_known"] else "at least "
    lines = [
        f"{report['program']}: {report['examples']} examples on {report['devices']} x "
        f"{report['chip']} ({report['topology']}), {mesh}; compiled in "
        f"{report['compile_seconds']:.0f} s. Per device and execution:",
        f"  memory: {memory['total']}{whole}, it fits: arguments {memory['arguments']}, "
        f"temporaries {memory['temporaries']}, outputs {memory['outputs']}, program "
        f"{memory['program']}",
        f"  memory traffic: {least}{_decimal(report['memory_traffic'])}B"
        + _milliseconds(report["memory_bound_ms"], "at the memory's bandwidth"),
    ]
    if report["model_flops"] is not None:
        peak = report["examples_per_second_at_peak"]
        lines.append(
            f"  operations of the model: {_decimal(report['model_flops'])}"
            + _milliseconds(report["compute_bound_ms"], "at the chip's peak")
            + ("" if peak is None else f", which is {peak:.0f} examples/s on all devices")
        )
    lines += [
        f"  {kind}: {least}{sums['count']}, {_decimal(sums['bytes'])}B in all"
        for kind, sums in report["collectives"].items()
    ]
    return "\n".join(lines)


def _milliseconds(value: float | None, when: str) -> str:
    return "" if value is None else f", {value:.3g} ms {when}"


def _decimal(value: float) -> str:
    """Three digits and a prefix, e.g. 1.25 G."""
    for prefix in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.3g} {prefix}"
        value /= 1000
    return f"{value:.3g} T"


def _binary(value: float) -> str:
    return f"{value / 2**30:.2f} GiB" if value > 2**28 else f"{value / 2**20:.1f} MiB"
