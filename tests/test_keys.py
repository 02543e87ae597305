"""A declared key takes what lies in its range and says in one line what does not."""

import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.keys import NAME, TEXT, Group, Key, check_keys, describe_keys, table_of_keys, walk

COUNT = Key(3, "[1, inf)", "how many", "apples")
RATE = Key(0.5, "[0, 1)", "how fast")
SCALE = Key(1.0, "(0, inf)", "how large")
NONE_OR_MORE = Key(0, "0 or [2, inf)", "how many")
SEED = Key(0, "[0, 4294967295]", "of every draw")
WORD = Key("red", ("red", "blue"), "which colour")
FLAG = Key(True, "", "whether")
PLACE = Key(None, TEXT, "where", kind=str)

RIGHT = [
    (COUNT, [1, 2**31 - 1, np.int64(10), np.uint8(3)]),
    (RATE, [0, 0.0, 0.999, np.float32(0.5), -0.0]),
    (SCALE, [1e-30, 1e38, 7]),
    (NONE_OR_MORE, [0, 2, 100]),
    (SEED, [0, 2**32 - 1]),
    (WORD, ["red", "blue"]),
    (FLAG, [True, False]),
    (PLACE, [None, "here"]),
]
INF, NAN = float("inf"), float("nan")
WRONG = [
    (COUNT, [0, -1, 1.0, True, "3", None, 2**31, 10**400, NAN]),
    # A number is what it is in float32, in which the mathematics takes it.
    (RATE, [1, 1.0, 1 - 1e-12, -1e-9, NAN, INF, True, "0.5", None, 1j]),
    (SCALE, [0, 1e-50, 1e39, INF, -INF, NAN]),
    (NONE_OR_MORE, [1, -1, 0.0]),
    (SEED, [-1, 2**32]),
    (WORD, ["green", "", None, 1]),
    (FLAG, [1, 0, None, "True"]),
    (PLACE, ["", 3]),
]


def check(key, value):
    check_keys({"group": Group("things", name=key)}, {"group": {"name": value}})


@pytest.mark.parametrize(("key", "values"), RIGHT)
def test_what_lies_in_the_range_is_taken(key, values):
    for value in values:
        check(key, value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("key", "values"), WRONG)
def test_what_lies_outside_is_refused_in_a_line_that_names_the_key(key, values):
    for value in values:
        with pytest.raises(InputError) as refused:
            check(key, value)
        assert f"group.name ({key.help}) must be {key.expected()}; got {value!r}" in str(
            refused.value
        )
        assert "\n" not in str(refused.value)


def test_a_range_is_said_in_words():
    assert COUNT.expected() == "a whole number in [1, inf)"
    assert NONE_OR_MORE.expected() == "a whole number, 0 or in [2, inf)"
    assert WORD.expected() == "one of red, blue"
    assert Key("x", NAME, "which").expected() == "a name"


def test_all_that_is_wrong_is_said_at_once():
    groups = {"a": Group("one", n=COUNT, r=RATE), "b": Group("two", s=SCALE)}
    with pytest.raises(InputError) as refused:
        check_keys(groups, {"a": {"n": 0, "r": 0.5}, "b": {"s": 1e39}})
    assert str(refused.value) == (
        "a.n (how many) must be a whole number in [1, inf); got 0. "
        "b.s (how large) must be a number in (0, inf); got 1e+39, which is inf in float32."
    )
    with pytest.raises(InputError, match=r"a\.n .* it is missing\. b\.s .* it is missing\.$"):
        check_keys(groups, {"a": {"r": 0.5}})


def test_the_list_and_the_table_have_every_key_with_all_that_is_declared():
    groups = {"a": Group("one", n=COUNT, r=RATE), "b": Group("two", s=SCALE)}
    listed = describe_keys(groups)
    for dotted, key in walk(groups):
        assert f"{dotted}={key.default}    {key.expected()}" in listed
        assert key.help in listed
    assert "apples" in listed
    assert table_of_keys(groups["a"]).splitlines()[2:] == [
        "| `n` | `3` | a whole number in [1, inf) | apples | how many |",
        "| `r` | `0.5` | a number in [0, 1) |  | how fast |",
    ]
