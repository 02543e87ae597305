"""Whether a set of files is the one that is asked for.

What it is to hold stands in a JSON file that is written before the first of them, so that a job
that was stopped goes on only where it is asked for the same again.
"""

import json
from pathlib import Path


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
    stored, asked = json.loads(path.read_text()), json.loads(json.dumps(content))
    return [
        f"{key}={stored.get(key)!r} (asked: {asked.get(key)!r})"
        for key in dict.fromkeys([*stored, *asked])
        if key not in free and stored.get(key) != asked.get(key)
    ]
