import itertools
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fmjax.conditions import ClassIds, Vector
from fmjax.data import prepare
from fmjax.data.load import load
from fmjax.data.tfds import public
from fmjax.data.token_codecs import Text, Tokens
from fmjax.data.train_command import train_command
from fmjax.errors import InputError
from fmjax.run import cli

RNG = np.random.default_rng(0)


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "set.npz"
    images = RNG.integers(0, 256, size=(40, 6, 5, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(40) % 4)
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("rose", "tulip"):
        (tmp_path / "flowers" / name).mkdir(parents=True)
        for i in range(10):
            pixels = RNG.integers(0, 256, size=(6, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "flowers" / name / f"{i}.png")
    return tmp_path / "flowers"


def run(*arguments):
    """The exit code of the command."""
    with pytest.raises(SystemExit) as end:
        cli.end_with("fmjax prepare", lambda: prepare.main(list(map(str, arguments))))
    return end.value.code


def test_a_folder_becomes_a_set_with_the_same_pixels(folder, data_dir, capsys, monkeypatch):
    monkeypatch.setattr("fmjax.progress_bar.SECONDS", 0.0)
    assert run("--name=flowers", f"--source={folder}") == 0
    dataset = load("flowers")
    assert dataset.classes.names == ("rose", "tulip")
    assert (len(dataset.train), len(dataset.test)) == (18, 2)
    on_disk = {
        np.array(Image.open(path)).tobytes(): path.parent.name for path in folder.glob("*/*.png")
    }
    read = {}
    for split in ("train", "test"):
        images, labels = dataset.arrays(split)
        read |= {
            image.tobytes(): dataset.classes.names[label]
            for image, label in zip(images, labels, strict=True)
        }
    assert read == on_disk
    out, progress = capsys.readouterr()
    assert "flowers: 18 train and 2 test images of shape (6, 5, 3), 2 classes, in" in out
    assert f"Train on it with:\n  {train_command(dataset)}\n" in out
    assert "writing train: 18 of 18 examples" in progress


def test_an_npz_becomes_a_set_with_the_same_pixels(npz, data_dir):
    assert run("--name=noise", f"--source={npz}", "--test_fraction=0.25") == 0
    dataset = load("noise")
    assert (len(dataset.train), len(dataset.test)) == (30, 10)
    arrays = np.load(npz)
    expected = {x.tobytes(): y for x, y in zip(arrays["images"], arrays["labels"], strict=True)}
    parts = [dataset.arrays(split) for split in ("train", "test")]
    read = {x.tobytes(): y for part in parts for x, y in zip(*part, strict=True)}
    assert read == expected


def test_a_data_directory_of_its_own_is_part_of_the_command(npz, tmp_path, capsys):
    place = tmp_path / "elsewhere"
    assert run("--name=noise", f"--source={npz}", f"--data_dir={place}") == 0
    command = train_command(load("noise", place), str(place))
    assert f"\n  {command}\n" in capsys.readouterr().out
    assert load("noise", place).classes.num_classes == 4


def test_size_and_channels_reach_the_images(folder, data_dir):
    assert run("--name=small", f"--source={folder}", "--size=4", "--channels=1") == 0
    assert load("small").shape == (4, 4, 1)


def test_a_set_is_replaced_only_when_asked(npz, folder, data_dir, capsys):
    assert run("--name=same", f"--source={npz}") == 0
    assert run("--name=same", f"--source={folder}") == 2
    assert "exists in" in capsys.readouterr().err
    assert load("same").classes.num_classes == 4
    assert run("--name=same", f"--source={folder}", "--overwrite") == 0
    assert load("same").classes.num_classes == 2


def test_a_folder_that_is_no_set_is_never_replaced(folder, capsys):
    flags = ["--name=flowers", f"--source={folder}", f"--data_dir={folder.parent}"]
    for more in ([], ["--overwrite"]):
        assert run(*flags, *more) == 2
    assert f"{folder} holds no data set, and is not replaced by one" in capsys.readouterr().err
    assert len(list(folder.glob("*/*.png"))) == 20


def test_a_broken_image_is_named_and_leaves_no_set(folder, data_dir, capsys):
    cut = folder / "rose" / "7.png"
    cut.write_bytes(cut.read_bytes()[:100])
    assert run("--name=flowers", f"--source={folder}") == 2
    assert f"fmjax prepare: the image {cut} cannot be read" in capsys.readouterr().err
    assert data_dir.exists()  # it failed in the middle of the writing
    # No set; the parts of others, which are not decoded again once the image is repaired.
    assert {path.name for path in data_dir.iterdir()} <= {".parts-flowers"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--name=Bad", "--source=."], "a set's name is at most 64 lower-case letters"),
        (["--name=digits", "--source=."], "the name 'digits' is taken"),
        (["--name=x", "--source=nowhere"], "--source=nowhere does not exist"),
        (["--name=x", "--source=.", "--channels=2"], "--channels must be 1 or 3, got 2"),
        (["--name=mnits"], "unknown public data set 'mnits'. Did you mean 'mnist'?"),
        (["--name=mnist", "--size=8"], "--size needs --source"),
        (["--name=mnist", "--data_dir=gs://b"], "must be on a mounted file system, got gs://b"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence, data_dir, capsys):
    assert run(*arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("fmjax prepare: ")
    assert sentence in error
    assert error.count("\n") == 1


def test_tensorflow_is_asked_for_where_it_is_needed(data_dir, monkeypatch, capsys):
    monkeypatch.setattr(public, "_installed", lambda module: False)
    assert run("--name=mnist") == 2
    assert "needs TensorFlow this once (training does not)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--name=x", "--sizes=3"], "unrecognized arguments: --sizes=3"),
        (["--name=x", "--size=a"], "argument --size: invalid int value: 'a'"),
        (["--source=."], "the following arguments are required: --name"),
        (["--name=x", "--data_dir="], "--data_dir is empty; give a value, or leave it out"),
    ],
)
def test_a_mistake_in_the_flags_is_one_sentence_too(arguments, sentence, capsys):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fmjax prepare: {sentence}")
    assert error.count("\n") == 1


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch, capsys):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(pathlib.Path, "iterdir", refuse)
    assert run("--name=x", f"--source={tmp_path}") == 4
    assert capsys.readouterr().err == f"fmjax prepare: {tmp_path}: Permission denied.\n"


@pytest.mark.slow
def test_the_module_runs_as_a_command():
    command = [sys.executable, "-m", "fmjax", "prepare", "--name=Bad", "--source=."]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("fmjax prepare: a set's name")


@pytest.mark.parametrize("flag", ["name", "source", "data_dir"])
def test_an_argument_that_is_not_utf_8_is_refused(flag, folder, data_dir, capsys):
    usual = {"name": "flowers", "source": folder, "data_dir": data_dir}
    assert run(*(f"--{name}={x}" for name, x in (usual | {flag: "a\udcff"}).items())) == 2
    assert rf"--{flag} 'a\udcff' is not UTF-8" in capsys.readouterr().err


def test_two_hyphens_are_no_value(folder, capsys):
    assert run("--name=--", f"--source={folder}") == 2
    assert "--name needs a value; got '--'." in capsys.readouterr().err


# ------------------------------------------------------------------------------ tables


def test_a_csv_becomes_a_table_with_its_conditions(data_dir, tmp_path, capsys):
    lines = [f"{i},{i * i},{'ab'[i % 2]},{i / 10},{1 + i % 2}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["u,v,kind,age,w", *lines]))
    options = ["--condition=kind,age", "--weights=w", "--test_fraction=0.25"]
    assert run("--name=people", f"--source={tmp_path / 't.csv'}", *options) == 0
    dataset = load("people")
    assert dataset.conditions == {"kind": ClassIds(2, names=("a", "b")), "age": Vector(1)}
    assert (len(dataset.train), len(dataset.test)) == (30, 10)
    x, labels = dataset.train.read(range(30))
    np.testing.assert_array_equal(x[:, 1], x[:, 0] ** 2)
    np.testing.assert_array_equal(labels["kind"], x[:, 0] % 2)
    np.testing.assert_allclose(labels["age"][:, 0], x[:, 0] / 10, rtol=1e-6)
    np.testing.assert_array_equal(dataset.train.weights, 1 + x[:, 0] % 2)
    out = capsys.readouterr().out
    assert "of shape (2,), with weights, conditions kind (class), age (vector), in" in out
    assert f"\n  {train_command(dataset)}\n" in out


def test_columns_of_a_csv_are_grouped_by_the_command(data_dir, tmp_path, capsys):
    lines = [f"{i},{i / 10},{-i / 10},{'ab'[i % 2]}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["u,morning,evening,kind", *lines]))
    options = ["--condition=kind", "--condition=dose:morning,evening"]
    assert run("--name=people", f"--source={tmp_path / 't.csv'}", *options) == 0
    dataset = load("people")
    assert dataset.conditions == {"kind": ClassIds(2, names=("a", "b")), "dose": Vector(2)}
    x, labels = dataset.train.read(range(30))
    np.testing.assert_allclose(labels["dose"], x / 10 * [1, -1], rtol=1e-6)
    assert "conditions kind (class), dose (vector), in" in capsys.readouterr().out


def test_a_condition_far_from_the_order_of_one_is_said(data_dir, tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(30, 2))
    np.savez(tmp_path / "a.npz", x=x, age=np.linspace(20, 80, 30), dose=x)
    assert run("--name=people", f"--source={tmp_path / 'a.npz'}") == 0
    error = capsys.readouterr().err
    assert "the condition age has numbers above 10, and networks learn best" in error
    assert "dose" not in error


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--name=x", "--source=.", "--condition=a"], "--condition and --weights name columns"),
        (["--name=x", "--source=.", "--condition="], "--condition is empty"),
        (["--name=mnist", "--weights=w"], "--weights needs --source"),
        (["--name=mnist", "--condition=a"], "--condition needs --source"),
    ],
)
def test_flags_of_a_table_are_for_a_table(arguments, sentence, data_dir, capsys):
    assert run(*arguments) == 2
    assert sentence in capsys.readouterr().err


def test_a_bad_table_is_one_sentence_and_leaves_nothing(data_dir, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,nan\n4,5\n")
    assert run("--name=people", f"--source={tmp_path / 't.csv'}") == 2
    error = capsys.readouterr().err
    assert "row 1 holds nan in column 'b'" in error
    assert error.count("\n") == 1
    assert not data_dir.exists()


def test_an_interrupted_preparation_leaves_nothing_and_says_so(npz, data_dir, monkeypatch, capsys):
    def interrupted(examples, split, number):
        yield from itertools.islice(examples, 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "_with_bar", interrupted)
    assert run("--name=noise", f"--source={npz}") == 130
    assert "the set is not there yet; the same command goes on with it." in capsys.readouterr().err
    assert list(data_dir.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert run("--name=noise", f"--source={npz}") == 0
    assert len(load("noise").train) == 36


def test_a_text_becomes_a_set_with_its_tokeniser(tmp_path, data_dir, capsys):
    text = "the quick brown fox jumps over the lazy dog. " * 20
    (tmp_path / "fox.txt").write_text(text)
    assert run("--name=fox", f"--source={tmp_path / 'fox.txt'}", "--length=9") == 0
    assert "fox: 90 train and 10 test texts of shape (9,), no classes" in capsys.readouterr().out
    dataset = load("fox")
    assert dataset.codec == Text.fitted(text, 9)
    blocks = dataset.codec.write(dataset.train.read(np.arange(90))[0])
    assert sorted(blocks) == sorted(text[i : i + 9] for i in range(0, 810, 9))
    assert run("--name=raw", f"--source={tmp_path / 'fox.txt'}", "--bytes", "--length=40") == 0
    assert load("raw").codec == Text(40)


def test_tokens_become_a_set_with_their_vocabulary(tmp_path, data_dir):
    codes = RNG.integers(0, 300, size=(40, 4, 4, 1))
    np.savez(tmp_path / "codes.npz", x=codes, y=np.arange(40) % 3)
    assert run("--name=codes", f"--source={tmp_path / 'codes.npz'}", "--tokens=300") == 0
    dataset = load("codes")
    assert (dataset.codec, dataset.classes.num_classes) == (Tokens((4, 4, 1), 300), 3)
    found = np.concatenate([dataset.arrays(split)[0] for split in ("train", "test")])
    assert found.dtype == np.int32
    assert sorted(map(bytes, found)) == sorted(map(bytes, codes.astype(np.int32)))


def test_a_set_whose_tokens_left_its_vocabulary_is_damaged(tmp_path, data_dir):
    np.save(tmp_path / "codes.npy", RNG.integers(0, 9, size=(40, 4)))
    assert run("--name=codes", f"--source={tmp_path / 'codes.npy'}", "--tokens=9") == 0
    metadata = next(data_dir.glob("codes/*/metadata.json"))
    metadata.write_text(metadata.read_text().replace('"vocabulary": 9', '"vocabulary": 3'))
    with pytest.raises(InputError, match="cannot be read"):
        load("codes").arrays("train")


@pytest.mark.parametrize("flag", ["--tokens=9", "--length=9", "--bytes"])
def test_a_public_set_has_no_tokens_to_name(flag, data_dir, capsys):
    assert run("--name=mnist", flag) == 2
    assert f"{flag.partition('=')[0]} needs --source" in capsys.readouterr().err
