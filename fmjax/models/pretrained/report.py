"""What a published file holds beside what a network needs, in full, and as one sentence."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fmjax.errors import InputError
from fmjax.models.pretrained.rules import Origin, expected
from fmjax.storage.safetensors import Shapes


class OtherShape(NamedTuple):
    """A tensor whose shape is not the network's.

    Attributes:
        found: its shape in the file.
        expected: its shape for the network.
        hint: what to do.
        parameter: the path of the parameter that it belongs to.
    """

    found: tuple[int, ...]
    expected: tuple[int, ...]
    hint: str
    parameter: str


class Report(NamedTuple):
    """What became of each tensor of a file.

    Attributes:
        read: names of tensors that the parameters are made of.
        left_out: names that are known and not needed, and why.
        missing: names that the network needs and the file lacks, with their shapes.
        other_shape: names whose shapes differ, and how.
        unknown: names that the family has no place for.
    """

    read: tuple[str, ...]
    left_out: dict[str, str]
    missing: Shapes
    other_shape: dict[str, OtherShape]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        """The numbers in a line, and every name that was not read."""
        parts = [f"{len(self.read)} tensors read"]
        parts += [f"left out {name}: {why}" for name, why in self.left_out.items()]
        parts += [f"missing {name} {list(shape)}" for name, shape in self.missing.items()]
        parts += [
            f"{name} has shape {list(other.found)} and not {list(other.expected)}"
            for name, other in self.other_shape.items()
        ]
        return "\n".join([*parts, *(f"unknown {name}" for name in self.unknown)])


def compare(found: Shapes, where: Sequence[Origin], left_out: Mapping[str, str]) -> Report:
    """Compares what is there with what is needed.

    Args:
        found: the shapes of the file.
        where: each parameter's origin.
        left_out: names that are known and not needed, and why.
    """
    read, missing, other = [], {}, {}
    for name, shape, origin in expected(where):
        if name not in found:
            missing[name] = shape
        elif found[name] != shape:
            other[name] = OtherShape(found[name], shape, origin.rule.hint, origin.path)
        else:
            read.append(name)
    known = {*read, *missing, *other, *left_out}
    unknown = tuple(name for name in found if name not in known)
    # A tensor may be left out for one parameter and be read for another.
    spare = set(found) - set(read)
    present = {name: why for name, why in left_out.items() if name in spare}
    return Report(tuple(read), present, missing, other, unknown)


def check_whole(report: Report, path: Path, what: str) -> None:
    """Refuses a file that is not that of the network, tensor for tensor.

    Args:
        report: of the comparison.
        path: of the file.
        what: the family, in words.

    Raises:
        InputError: something is missing, of another shape, or unknown; the first is named.
    """
    for name, other in report.other_shape.items():
        hint = f"; {other.hint}" if other.hint else ""
        raise InputError(
            f"{path} holds {name} of shape {list(other.found)}, and the network takes "
            f"{list(other.expected)}{_more(report.other_shape)}: leave model out to get the "
            f"network of the file, or write fresh=({other.parameter!r},) to begin that parameter "
            f"anew{hint}."
        )
    for name, shape in report.missing.items():
        raise InputError(
            f"{path} lacks {name} of shape {list(shape)}{_more(report.missing)}, and is not whole "
            f"as {what}: fetch it again, or name its layout."
        )
    for name in report.unknown:
        raise InputError(
            f"{path} holds {name}{_more(report.unknown)}, which {what} has no place for: it is "
            "another network, or one with additions."
        )


def _more(names: Sequence[str] | Mapping) -> str:
    return f" (and {len(names) - 1} more such)" if len(names) > 1 else ""
