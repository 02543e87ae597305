"""Texts of samples, where there is no picture: each under a line with its number."""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from fmjax.conventions import Times
from fmjax.data.token_codecs import Text
from fmjax.files import write_bytes


def write_texts(codec: Text, samples: Int[np.ndarray, "n length"], path: Path) -> None:
    """Writes samples as a text.

    Args:
        codec: of the data.
        samples: tokens (n, L).
        path: of the file.
    """
    headed = (f"=== {i} ===\n{text}\n" for i, text in enumerate(codec.write(samples)))
    _write(path, "\n".join(headed))


def write_steps(
    codec: Text, states: Int[np.ndarray, "times n length"], times: Times, path: Path
) -> None:
    """Writes how samples came about: all of them at each time, what is masked shown as ▒.

    Args:
        codec: of the data.
        states: tokens (times, n, L).
        times: of the states.
        path: of the file.
    """
    steps = []
    for t, tokens in zip(times, states, strict=True):
        texts = "\n---\n".join(codec.write(tokens))
        steps.append(f"=== t = {t:.3g} ===\n{texts}\n")
    _write(path, "\n".join(steps))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode())
