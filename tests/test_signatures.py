"""The arguments and the defaults of public functions, against a record of them."""

import json

from tests.golden import make_signatures


def test_arguments_and_defaults_are_those_recorded():
    recorded = json.loads(make_signatures.FILE.read_text())
    found = make_signatures.signatures()
    changed = {name: text for name, text in found.items() if recorded.get(name, text) != text}
    assert changed == {name: recorded[name] for name in changed}
    assert len(set(found) & set(recorded)) > 200  # the record is of this package
