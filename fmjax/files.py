"""Whether a set of files is the one that is asked for.

What it is to hold stands in a JSON file that is written before the first of them, so that a job
that was stopped goes on only where it is asked for the same again.
"""

import json
from pathlib import Path

from fmjax.errors import changed_keys


def differences(path: Path, content: dict, free: tuple[str, ...] = ()) -> list[str]:
    """How a stored manifest differs from one that is asked for, key by key.

    Args:
        path: of the JSON file.
        content: what is asked for.
        free: keys that may differ.

    Returns:
        ``"key=stored (asked: ...)"`` for each key that differs; empty where there is no file.

    Raises:
        ValueError: the file is not JSON.
    """
    if not path.exists():
        return []
    stored, asked = (
        {key: value for key, value in json.loads(text).items() if key not in free}
        for text in (path.read_text(), json.dumps(content))
    )
    return changed_keys(stored, asked)
