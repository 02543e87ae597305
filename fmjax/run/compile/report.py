"""What a compiled program will need and do, as numbers and as text, before anything has run it."""

import re
import time
from typing import Any

import jax

from fmjax.roofline.chips import Chip, chip_of
from fmjax.roofline.collectives import collectives
from fmjax.roofline.memory_traffic import memory_traffic

# What the TPU compiler says of a program that is too large, in the two ways it has.
_OUT_OF_MEMORY = re.compile(
    r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"
    r"|Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm"
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def compile_and_report(
    lowered: Any, mesh: jax.sharding.Mesh, examples: int, flops: float | None
) -> dict[str, Any]:
    """Compiles a lowered program and says what the compiler plans.

    Args:
        lowered: from ``jax.jit(f).lower(...)``.
        mesh: whose devices it is for.
        examples: how many one execution trains on or samples.
        flops: operations of the model in one execution, all devices together; None if unknown.

    Returns:
        A dict that JSON can hold; bytes, operations and milliseconds are per device and execution.
        Where the program does not fit, ``fits`` is False, and only ``memory`` and what was known
        before is there.
    """
    device = mesh.devices.flat[0]
    chip = chip_of(device)
    report = {
        "devices": mesh.size,
        "chip": device.device_kind if chip is None else chip.name,
        "mesh": dict(mesh.shape),
        "examples": examples,
        "model_flops": None if flops is None else flops / mesh.size,
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
    text = compiled.as_text()
    traffic = memory_traffic(text)
    return report | {
        "fits": True,
        "memory": _memory(compiled.memory_analysis(), chip),
        "collectives": {kind: sums._asdict() for kind, sums in collectives(text).items()},
        "memory_traffic": traffic._asdict(),
        "compile_seconds": round(seconds, 1),
        **_floors(report["model_flops"], traffic.bytes, chip, examples),
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
    return {"total": float(needed) * _UNITS[unit], "chip": float(there) * _UNITS[unit_there]}


def _floors(
    flops: float | None, traffic: int, chip: Chip | None, examples: int
) -> dict[str, float | None]:
    """The least time that the chip's peak and its memory allow, and examples a second at peak."""
    compute = None if chip is None or flops is None else flops / chip.flops
    return {
        "compute_floor_ms": None if compute is None else 1e3 * compute,
        "memory_floor_ms": None if chip is None else 1e3 * traffic / chip.bandwidth,
        "examples_per_second_at_peak": None if not compute else examples / compute,
    }


def too_large(report: dict[str, Any]) -> str:
    """One sentence for a program that does not fit."""
    memory = report["memory"]
    return (
        f"it does not fit: it needs {_binary(memory['total'])} at least on each "
        f"{report['chip']}, {_binary(memory['total'] - memory['chip'])} more than the "
        f"{_binary(memory['chip'])} there are for programs"
    )


def describe(report: dict[str, Any]) -> str:
    """A report of a program that fits, in a few lines."""
    mesh = " ".join(f"mesh.{axis}={size}" for axis, size in report["mesh"].items())
    memory = {k: None if v is None else _binary(v) for k, v in report["memory"].items()}
    traffic = report["memory_traffic"]
    whole = "" if memory["chip"] is None else f" of {memory['chip']}"
    lines = [
        f"{report['program']}: {report['examples']} examples on {report['devices']} x "
        f"{report['chip']} ({report['topology']}), {mesh}; compiled in "
        f"{report['compile_seconds']:.0f} s. Per device and execution:",
        f"  memory {memory['total']}{whole}, it fits: arguments {memory['arguments']}, temporaries "
        f"{memory['temporaries']}, outputs {memory['outputs']}, program {memory['program']}",
        f"  memory traffic{_least(traffic)} {_decimal(traffic['bytes'])}B"
        + _milliseconds(report["memory_floor_ms"], "at the memory's bandwidth"),
    ]
    if report["model_flops"] is not None:
        peak = report["examples_per_second_at_peak"]
        lines.append(
            f"  operations of the model {_decimal(report['model_flops'])}"
            + _milliseconds(report["compute_floor_ms"], "at the chip's peak")
            + ("" if peak is None else f", which is {peak:.0f} examples/s on all devices")
        )
    lines += [_collective(kind, sums) for kind, sums in report["collectives"].items()]
    return "\n".join(lines)


def _milliseconds(value: float | None, when: str) -> str:
    return "" if value is None else f", {value:.3g} ms {when}"


def _collective(kind: str, sums: dict[str, Any]) -> str:
    return f"  {kind}:{_least(sums)} {sums['count']} of {_decimal(sums['bytes'])}B in all"


def _least(sums: dict[str, Any]) -> str:
    return "" if sums["exact"] else " at least"


def _decimal(value: float) -> str:
    """Three digits and a prefix, e.g. 1.25 G."""
    for prefix in ("", "k", "M", "G", "T"):
        if value < 1000 or prefix == "T":
            return f"{value:.3g} {prefix}"
        value /= 1000
    return ""


def _binary(value: float) -> str:
    return f"{value / 2**30:.2f} GiB" if value > 2**28 else f"{value / 2**20:.1f} MiB"
