"""What this machine can hold, asked before memory is taken for what a file or a flag names."""

import os

from fmjax.errors import InputError


def check_memory(needed: int, what: str, advice: str) -> None:
    """Checks that the machine has so much memory at all, whoever uses it now.

    Args:
        needed: bytes.
        what: needs them, as in "the samples".
        advice: what to do otherwise.

    Raises:
        InputError: it has not.
    """
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # a system that does not say
        return
    if needed > memory:
        raise InputError(
            f"{what} need {needed / 1e9:.3g} GB, and this machine has {memory / 1e9:.3g} GB of "
            f"memory; {advice}."
        )
