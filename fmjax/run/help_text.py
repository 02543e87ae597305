"""What ``--help`` prints: the flags of a command in groups, in the order in which one decides."""

import textwrap
from collections.abc import Sequence
from types import ModuleType

from absl import flags

_WIDTH = 88
_INDENT = 22


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether the arguments ask for help, and not for that of every library (``--helpfull``)."""
    return any(argument in ("-h", "-help", "--help", "-?", "--helpshort") for argument in argv)


def help_text(program: str, command: ModuleType) -> str:
    """The help of a command: what it does, and its flags.

    Args:
        program: how it is called.
        command: a module with a docstring and `HELP`, its flags in groups.
    """
    parts = [f"usage: {program} [FLAGS]", (command.__doc__ or "").strip()]
    for heading, holders in command.HELP.items():
        parts.append("\n".join([f"{heading}:", *(_describe(holder.name) for holder in holders)]))
    return "\n\n".join([*parts, "--helpfull also lists the flags of other packages."])


def _describe(name: str) -> str:
    flag = flags.FLAGS[name]
    head = f"  {_written(flag)}"
    default = f" (default: {flag.default})" if flag.default and not flag.boolean else ""
    if flag.boolean and flag.default:
        default = f" (default: yes; --no{name} for no)"
    body = textwrap.wrap(flag.help + default, _WIDTH - _INDENT, break_on_hyphens=False)
    if len(head) >= _INDENT - 1:
        return "\n".join([head, *(" " * _INDENT + line for line in body)])
    body[0] = head.ljust(_INDENT) + body[0]
    return ("\n" + " " * _INDENT).join(body)


def _written(flag: flags.Flag) -> str:
    """A flag as it is written, with what kind of value it takes."""
    if flag.boolean:
        return f"--{flag.name}"
    values = getattr(flag, "enum_values", None)
    if values and len(values) <= 3:
        return f"--{flag.name}={'|'.join(values)}"
    kind = {"int": "N", "float": "X"}.get(flag.flag_type(), "...")
    return f"--{flag.name}={kind}"
