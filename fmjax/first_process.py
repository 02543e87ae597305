"""What one process does for all of them: checks that fail on every process, and printing."""

from collections.abc import Callable
from typing import Any, TextIO

import jax
import numpy as np
from jax.experimental import multihost_utils

from fmjax.errors import InputError


def on_first_process(work: Callable[[], Any]) -> Any:
    """Does something on one process; its InputError is raised on all, so that none waits for ever.

    Returns:
        What the work returns, None on the other processes.
    """
    result, message = None, ""
    if jax.process_index() == 0:
        try:
            result = work()
        except InputError as error:
            message = str(error)
    failed = multihost_utils.broadcast_one_to_all(np.int32(bool(message)))
    if failed:
        raise InputError(message or "process 0 found something wrong; it says what.")
    return result


def say(text: str, file: TextIO | None = None) -> None:
    """Prints on one process of all, to the standard output unless a file is given."""
    if jax.process_index() == 0:
        print(text, flush=True, file=file)
