"""JSON from disk is what it should be, or an InputError, whatever is in the file."""

import pytest

from fmjax.errors import InputError
from fmjax.json_files import NUMBER, OBJECT, SHAPE, TEXTS, WHOLE, parse_json, read_json


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b'{"a": "\xff"}', "is no JSON"),
        (b"[]", "must be an object"),
        (b"null", "must be an object"),
        (b"5", "must be an object"),
        (b"[" * 200_000, "nested deeper|is no JSON"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested deeper than 32"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is no JSON"),
    ],
)
def test_what_is_no_object_is_an_input_error(tmp_path, content, sentence):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_json(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "x").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match="at most"):
        read_json(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "y")
    with pytest.raises(InputError, match=f"{tmp_path} cannot be read: Is a directory"):
        read_json(tmp_path)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (WHOLE, ["0", "9223372036854775807"], ["-1", "true", "1.0", '"1"', "null", "1e400"]),
        (WHOLE.or_null(), ["null", "3"], ["[]", "-3"]),
        (NUMBER, ["0", "-1.5", "Infinity"], ["NaN", "true", '"0"', "[]"]),
        (
            SHAPE,
            ["[1]", "[8, 8, 1]"],
            ["[]", "[0]", "[-2]", "[1.5]", '["8"]', "[80000, 80000]", str([1] * 9)],
        ),
        (TEXTS, ["[]", '["a"]'], ['"a"', "[1]"]),
        (OBJECT, ["{}"], ["[]", "null"]),
    ],
)
def test_a_value_is_of_its_kind(kind, right, wrong):
    for text in right:
        assert "a" in parse_json(f'{{"a": {text}}}', "x", {"a": kind})
    for text in wrong:
        with pytest.raises(InputError, match="'a' in x must be"):
            parse_json(f'{{"a": {text}}}', "x", {"a": kind})
    with pytest.raises(InputError, match="x has no 'a', which must be"):
        parse_json("{}", "x", {"a": kind})
