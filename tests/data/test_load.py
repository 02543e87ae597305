"""Data sets by name: toys, random images, prepared sets, and what is said of other names."""

import pytest

from fmjax.conditions import ClassIds
from fmjax.data.codecs import Vectors
from fmjax.data.load import in_levels, load
from fmjax.data.points import Points
from fmjax.data.token_codecs import Levels, Tokens
from fmjax.data.toys import TOYS
from fmjax.errors import InputError
from tests.data.tfds.image_sets import multiset, write


def test_toys_load_by_name():
    for name, toy in TOYS.items():
        dataset = load(f"toy/{name}")
        codec = Vectors(2) if toy.vocabulary is None else Tokens((2,), toy.vocabulary)
        codec = codec if toy.manifold is None else Points(toy.manifold, 2)
        assert (dataset.codec, dataset.toy) == (codec, toy)
        k = toy.num_classes
        named = k and ClassIds(k, names=tuple(map(str, range(k))))
        assert dataset.conditions == named
    with pytest.raises(InputError, match=r"unknown toy 'toy/mons'. Did you mean 'toy/moons'\?"):
        load("toy/mons")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["toy/moons", "random/4x4x1/3"])
def test_a_set_that_is_drawn_needs_no_tensorflow_datasets(run_python, name):
    out = run_python(
        f"""
        import sys
        from fmjax.data.load import load
        load({name!r})
        print("tensorflow_datasets" in sys.modules)
        """,
        devices=1,
    )
    assert out == "False\n"


def test_an_unknown_name_is_answered_with_the_known_ones(data_dir):
    write(data_dir, name="flowers")
    with pytest.raises(InputError) as caught:
        load("flower")
    message = str(caught.value)
    assert "unknown data set 'flower'. Did you mean 'flowers'?" in message
    assert "`python -m fmjax prepare --name=NAME --source=PATH`" in message
    assert f"Prepared in {data_dir}: flowers." in message
    assert "toy/moons" in message


def test_a_public_set_that_is_not_prepared_comes_with_its_command(data_dir, tmp_path):
    with pytest.raises(InputError) as caught:
        load("mnist")
    message = str(caught.value)
    assert "data set 'mnist' is not prepared" in message
    assert "`python -m fmjax prepare --name=mnist` once" in message
    assert "tensorflow-cpu" in message
    assert f"Prepared in {data_dir}: none." in message
    with pytest.raises(InputError, match=f"--name=mnist --data_dir={tmp_path / 'else'}`"):
        load("mnist", tmp_path / "else")


def test_a_remote_data_directory_is_refused():
    with pytest.raises(InputError, match="mounted file system, got gs://bucket/sets"):
        load("digits", "gs://bucket/sets")


def test_own_images_may_stand_in_for_a_public_set(data_dir):
    _, train, _ = write(data_dir, name="mnist")
    assert multiset(*load("mnist").arrays("train")) == multiset(*zip(*train, strict=True))


def test_images_are_read_as_tokens_of_levels(digits):
    found = in_levels(digits, 17)
    assert found.codec == Levels((8, 8, 1), 17)
    assert (found.train, found.test) == (digits.train, digits.test)
    with pytest.raises(InputError, match="makes tokens of the pixels of images, and data set '"):
        in_levels(load("toy/moons"), 17)
    with pytest.raises(InputError, match=r"the number of levels must lie in \[2, 256\]"):
        in_levels(digits, 1)
