"""Memory that would be lost with every checkpoint, and is not.

What tensorstore (0.1.86 and before) gives Python as JSON is never freed: each key and value of its
dictionaries has a reference too many. orbax asks for such JSON at every array that it saves, and
for tensorstore's counters at every save: one or two kilobytes an array, for as long as the process
runs.
"""

import functools
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple


class _Spec(NamedTuple):
    """Where something is stored, as tensorstore takes it, and as JSON."""

    whole: Any
    to_json: Callable[[], dict]


class _Specs:
    """`tensorstore`, whose descriptions of a place as JSON are asked for once each."""

    def __init__(self, tensorstore: Any):
        self._tensorstore = tensorstore

        @functools.lru_cache(maxsize=16)  # the arrays of a checkpoint lie in one place
        def described(spec: str) -> str:
            return json.dumps(tensorstore.KvStore.Spec(json.loads(spec)).to_json())

        def spec(given: dict) -> _Spec:
            whole = tensorstore.KvStore.Spec(given)
            return _Spec(whole, lambda: json.loads(described(json.dumps(given))))

        def opened(spec: _Spec, **options: Any) -> Any:
            return tensorstore.KvStore.open(spec.whole, **options)

        self.KvStore = SimpleNamespace(Spec=spec, open=opened)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensorstore, name)


def avoid_leaks() -> None:
    """Has orbax ask tensorstore for less; where orbax is another one, nothing is changed."""
    try:
        from orbax.checkpoint._src.serialization import tensorstore_utils as inside

        usual, _ = inside.ts, inside.get_tensorstore_raw_bytes
    except (ImportError, AttributeError):
        return
    if not isinstance(usual, _Specs):
        inside.ts = _Specs(usual)
        inside.get_tensorstore_raw_bytes = lambda *_: 0  # of a metric that nobody reads here
