import math

import numpy as np
import pytest

from fmjax.checks import (
    FLOAT32_MAX,
    check_at_least,
    check_between,
    check_class_names,
    check_finite_number,
    check_methods,
    check_multiple,
    check_positive,
    check_seed,
    check_utf8,
)
from fmjax.errors import InputError


def refused(check, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        check(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("value", [1, 0.5, 1e-300, np.float32(2)])
def test_a_positive_number_passes(value):
    check_positive("the shift", value)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, -math.inf, math.nan])
def test_what_is_not_positive_is_refused_by_name(value):
    found = refused(check_positive, "the shift", value)
    assert found == f"the shift must be a positive number; got {value!r}."


@pytest.mark.parametrize(
    ("check", "args"),
    [
        (check_positive, ("x", 0)),
        (check_at_least, ("x", 0, 1)),
        (check_between, ("x", 3, 0, 1)),
    ],
)
def test_advice_ends_the_message(check, args):
    found = refused(check, *args, advice="For none write None.")
    assert found == refused(check, *args) + " For none write None."


@pytest.mark.parametrize("value", [2, 3, np.int64(2), np.uint8(200)])
def test_a_whole_number_that_is_large_enough_passes(value):
    check_at_least("--num", value, 2)


@pytest.mark.parametrize("value", [1, -3, 2.0, np.float32(5), True, "2", None, math.nan])
def test_other_counts_are_refused(value):
    found = refused(check_at_least, "--num", value, 2)
    assert found == f"--num must be a whole number of at least 2; got {value!r}."


def test_a_count_is_at_least_one_where_nothing_else_is_said():
    check_at_least("steps", 1)
    assert "at least 1; got 0" in refused(check_at_least, "steps", 0)


def test_a_bool_is_no_count():
    assert "at least 1; got True" in refused(check_at_least, "steps", True)


@pytest.mark.parametrize(
    ("bounds", "low", "high"),
    [("[]", True, True), ("[)", True, False), ("(]", False, True), ("()", False, False)],
)
def test_square_brackets_take_the_end_and_round_ones_leave_it_out(bounds, low, high):
    check_between("ema", 0.25, 0, 0.5, bounds)
    for end, belongs in ((0, low), (0.5, high)):
        if belongs:
            check_between("ema", end, 0, 0.5, bounds)
        else:
            found = refused(check_between, "ema", end, 0, 0.5, bounds)
            assert found == f"ema must lie in {bounds[0]}0, 0.5{bounds[1]}; got {end!r}."


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
@pytest.mark.parametrize("bounds", ["[]", "()"])
def test_numbers_outside_the_interval_are_refused(value, bounds):
    assert f"got {value!r}" in refused(check_between, "ema", value, 0, 1, bounds)


def test_an_interval_without_an_upper_end():
    check_between("eta", 1e30, 0, math.inf, "[)")
    assert "must lie in [0, inf); got inf" in refused(
        check_between, "eta", math.inf, 0, math.inf, "[)"
    )


@pytest.mark.parametrize(
    ("value", "near"), [(12, "Write 10 or 15"), (14, "Write 10 or 15"), (4, "Write 5")]
)
def test_a_number_that_does_not_split_is_refused_with_its_neighbours(value, near):
    check_multiple("the batch", 15, 5, "groups")
    found = refused(check_multiple, "the batch", value, 5, "groups")
    assert found == f"the batch must be a multiple of 5 (groups); got {value}. {near}."


@pytest.mark.parametrize("seed", [0, 2**32 - 1, np.uint32(7)])
def test_seeds_of_32_bits_pass(seed):
    check_seed(seed)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True])
def test_other_seeds_are_refused(seed):
    assert (
        refused(check_seed, seed)
        == f"the seed must be a whole number from 0 to 2^32 - 1; got {seed!r}."
    )
    assert refused(check_seed, seed, "train.seed").startswith("train.seed must be")


def test_a_finite_number_passes_and_others_are_refused():
    check_finite_number("the guidance scale", -3.4e38)
    for value in (math.inf, -math.inf, math.nan, 1e39, -1e300):
        found = refused(check_finite_number, "the guidance scale", value)
        assert found == f"the guidance scale must be a finite number; got {value!r}."


def test_a_whole_number_comes_back_as_one_of_python():
    found = check_at_least("steps", np.int64(10))
    assert (found, type(found)) == (10, int)


KEPT = ["cat", "black cat", "naïve 猫", "a,b", "3", "it's", "👩\u200d👧"]
NOT_KEPT = [
    "",
    "   ",
    " cat",
    "cat ",
    "a\nb",
    "a\rb",
    "a\tb",
    "a\x85b",
    "a\u2028b",
    "\udcff",
    "\xa0cat",
]


def test_names_that_a_file_of_one_name_a_line_keeps_pass():
    check_class_names(KEPT)
    check_class_names([])


@pytest.mark.parametrize("name", NOT_KEPT)
def test_a_name_that_such_a_file_would_change_is_refused_in_letters_that_can_be_shown(name):
    found = refused(check_class_names, ["dog", name])
    assert found.startswith(f"the class name {name!a} cannot be kept exactly")
    assert found.isprintable()


def test_a_name_that_is_there_twice_is_refused():
    assert "'cat' is there twice" in refused(check_class_names, ["cat", "dog", "cat"])


def test_a_text_that_is_not_utf_8_is_refused():
    check_utf8("--name", "naïve 猫 👩\u200d👧")
    found = refused(check_utf8, "--name", "cat\udcff")
    assert found == r"--name 'cat\udcff' is not UTF-8; rename the file that it names."
    found = refused(check_utf8, "--out", "a\0b")
    assert found == r"--out 'a\x00b' has a null character, which no name of a file holds."


def test_the_largest_number_of_float32_is_that_of_numpy():
    assert np.finfo(np.float32).max == FLOAT32_MAX


def test_what_cannot_do_what_is_asked_is_told_what_it_must_have():
    check_methods("the source", {}, "keys", "items", such_as="{}")
    check_methods("the cost", len, such_as="lambda x: x")
    found = refused(check_methods, "the source", 5, "keys", "items", such_as="{}")
    assert found == "the source must be an object with keys, items, such as {}; got 5."
    found = refused(check_methods, "the cost", 5, such_as="lambda x: x")
    assert found == "the cost must be a function, such as lambda x: x; got 5."
    found = refused(check_methods, "the source", dict, "keys", such_as="{}")
    assert found == "the source is the class dict; write dict(...)."
