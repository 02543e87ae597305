"""Every key is declared once, and a configuration is held to what is declared."""

import json
import math

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from fmjax.config import GROUPS, check_config, config_table, default_config, describe_config
from fmjax.errors import InputError
from tests.conftest import ROOT

KEYS = {f"{group}.{name}": key for group, keys in GROUPS.items() for name, key in keys.items()}
NUMBERS = {name: key for name, key in KEYS.items() if key.kind in (int, float)}


def changed(name, value):
    config = default_config()
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict({name: value})
    return config


def test_the_defaults_are_those_that_runs_were_made_with():
    """A default that changes makes stored runs others: change it here, and say so."""
    stored = json.loads((ROOT / "tests" / "golden" / "config_defaults.json").read_text())
    assert flatten_dict(default_config().to_dict(), sep=".") == stored
    check_config(default_config())


def test_a_value_is_of_the_kind_that_is_declared():
    for name, key in KEYS.items():
        assert key.default is None or type(key.default) is key.kind, name
        assert key.help, name
        if name in NUMBERS:
            assert math.isfinite(key.low), name
            assert math.isfinite(key.high), name
            assert key.default is None or key.low <= key.default <= key.high, name


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_outside_its_range_is_refused_by_its_key(name):
    key = NUMBERS[name]
    step = 1 if key.kind is int else 1e-3
    outside = [key.low - step, key.high + max(1.0, key.high * 1e-3)]
    if key.kind is float:
        ends = zip(key.bounds, (key.low, key.high), strict=True)
        outside += [end for bracket, end in ends if bracket in "()"]
        outside += [math.nan, math.inf, -math.inf]
    else:
        outside += [1.5, True]
    for value in outside:
        kept = value if key.kind is float or isinstance(value, bool) or value == 1.5 else int(value)
        with pytest.raises(InputError, match=f"^{name} must .*This key: "):
            key.check(name, kept)
    inside = [key.low, key.high] if key.kind is int else [key.low + step, key.high - step]
    for value in inside:
        key.check(name, key.kind(value))
    if key.kind is int:
        key.check(name, np.int64(key.low))


def test_a_configuration_is_held_to_its_ranges_at_once():
    for name, value in (("optimizer.b1", 1.0), ("train.steps", 0), ("sample.guidance", 1e39)):
        with pytest.raises(InputError, match=f"^{name} must"):
            check_config(changed(name, value))
    with pytest.raises(InputError, match=r"optimizer.warmup_steps=100 of train.steps=50\.$"):
        check_config(changed("train.steps", 50))


def test_the_list_of_keys_says_all_of_them():
    table = {row[0]: row for row in config_table()}
    assert table.keys() == KEYS.keys()
    assert table["optimizer.b1"] == (
        "optimizer.b1",
        "0.9",
        "in [0, 1)",
        "decay of the first moment",
    )
    printed = describe_config()
    for name, key in KEYS.items():
        assert f"--config.{name}=" in printed
        assert key.help in printed
