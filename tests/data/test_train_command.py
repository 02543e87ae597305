"""The command that `prepare` prints passes every check that comes before compiling."""

import ast
import dataclasses
import runpy
import shlex

import jax
import numpy as np
import pytest

from fmjax.conditions import ClassIds, Vector
from fmjax.data import pipeline
from fmjax.data.codecs import Pixels, States, Vectors
from fmjax.data.dataset import Dataset
from fmjax.data.load import load
from fmjax.data.points import Points
from fmjax.data.token_codecs import Levels, Text, Tokens
from fmjax.data.train_command import (
    BATCH,
    TABLE_BATCH,
    choose_patch_size,
    choose_steps,
    choose_width,
    train_command,
)
from fmjax.factory import DataSpec, make_experiment, spec_of
from tests.conftest import ROOT
from tests.data.tfds.image_sets import write_images

RNG = np.random.default_rng(0)


def set_of(shape=(32, 32, 3), classes=10, count=60_000, name="own"):
    """A data set of which only the sizes are asked."""
    return Dataset(name, Pixels(shape), classes and ClassIds(classes), range(count), range(10))


def flags_of(command):
    """The flags of a command line by name, as a shell hands them over."""
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "fmjax", "train"]
    return dict(word.removeprefix("--").split("=", 1) for word in words[4:])


def configuration(command):
    """The configuration that a command line asks for."""
    flags = flags_of(command)
    config = runpy.run_path(str(ROOT / "configs" / f"{flags.pop('config')}.py"))["get_config"]()
    for name, text in flags.items():
        *parts, key = name.removeprefix("config.").split(".")
        section = config
        for part in parts:
            section = section[part]
        words = name.startswith("config.data.") or name.endswith(".name")
        section[key] = text if words else ast.literal_eval(text)
    return config


def write(shape, classes, train, test):
    def examples(count):
        images = RNG.integers(0, 256, size=(count, *shape), dtype=np.uint8)
        return [(x, None if classes is None else i % classes) for i, x in enumerate(images)]

    names = classes and [f"kind {k}" for k in range(classes)]
    write_images("own", None, examples(train), examples(test), names, shape)
    return load("own")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "classes", "train"),
    [
        ((32, 32, 3), 2, 70),
        ((32, 32, 3), None, 70),
        ((30, 20, 1), None, 9),
        ((31, 17, 3), 3, 20),
        ((8, 8, 1), None, 2),  # three images, one of them to test on
        ((64, 64, 3), 2, 2),
    ],
)
def test_a_set_trains_by_the_command(data_dir, shape, classes, train):
    dataset = write(shape, classes, train, test=1)
    config = configuration(train_command(dataset))
    spec = spec_of(dataset)
    experiment = make_experiment(config, spec)
    assert load(config.data.name, config.data.dir).shape == shape
    assert config.train.batch_size <= len(dataset.train)
    stream = pipeline.batches(dataset, global_batch=config.train.batch_size, seed=0)
    batch = next(stream)
    stream.close()

    def loss(params, key, batch):
        return experiment.loss_fn(params, *experiment.draw(key, batch))

    key = jax.random.key(0)
    params = jax.eval_shape(experiment.init_params, key)
    assert jax.eval_shape(jax.value_and_grad(loss), params, key, batch)[0].shape == ()


@pytest.mark.parametrize(
    ("codec", "source"),
    [(Points("sphere", 3), "uniform"), (Points("so3,euclidean3", 12), "wrapped_normal")],
)
def test_points_train_along_geodesics(codec, source):
    dataset = Dataset("own", codec, None, range(1000), range(10))
    config = configuration(train_command(dataset))
    experiment = make_experiment(config, spec_of(dataset))
    assert experiment.path.manifold == codec.manifold
    assert (config.source.name, config.model.name) == (source, "fourier_mlp")


@pytest.mark.parametrize(("name", "shape"), [("mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))])
def test_a_known_set_has_a_configuration_of_its_own(name, shape):
    command = train_command(set_of(shape, name=name))
    assert command == f"python -m fmjax train --config={name}"
    config = configuration(command)
    assert config.data.name == name
    make_experiment(config, DataSpec(Pixels(shape), ClassIds(10)))


@pytest.mark.parametrize(
    "changes", [{"shape": (32, 32, 1)}, {"classes": None}, {"classes": 26}, {"count": 100}]
)
def test_other_images_under_a_known_name_do_not(changes):
    command = train_command(set_of(**{"shape": (28, 28, 1), "name": "mnist"} | changes))
    assert flags_of(command)["config"] == "images"
    assert flags_of(command)["config.data.name"] == "mnist"


def test_only_what_the_set_asks_for_is_said():
    flags = {
        "config": "images",
        "config.data.name": "own",
        "config.model.patch_size": "4",
        "config.train.steps": "20000",
    }
    assert flags_of(train_command(set_of())) == flags
    assert configuration(train_command(set_of())).train.batch_size == BATCH
    place = "/data/own sets"
    assert flags_of(train_command(set_of(), place)) == flags | {"config.data.dir": place}
    assert configuration(train_command(set_of(), place)).data.dir == place


@pytest.mark.parametrize(("count", "batch"), [(1, 1), (3, 2), (63, 32), (64, 64), (1000, 64)])
def test_a_batch_is_no_larger_than_the_set(count, batch):
    config = configuration(train_command(set_of(count=count)))
    assert config.train.batch_size == batch


def test_many_patches_leave_room_for_few_images():
    config = configuration(train_command(set_of((63, 64, 3))))
    assert (config.model.patch_size, config.train.batch_size) == (1, 1)


@pytest.mark.parametrize(
    ("sides", "patch_size"),
    [
        ((8, 8), 1),
        ((28, 28), 4),
        ((32, 32), 4),
        ((64, 64), 8),
        ((30, 20), 5),
        ((30, 60), 6),
        ((31, 17), 1),
        ((20, 200), 10),
        ((20, 2000), 20),
    ],
)
def test_the_patch_size_divides_the_image(sides, patch_size):
    assert choose_patch_size(*sides) == patch_size


@pytest.mark.parametrize(
    ("side", "numbers", "width"),
    [(8, 1, 128), (16, 12, 128), (28, 16, 192), (64, 192, 192), (64, 193, 256), (256, 3072, 384)],
)
def test_the_width_holds_the_numbers_of_a_patch_within_limits(side, numbers, width):
    assert choose_width(side, numbers) == width


@pytest.mark.parametrize(("shape", "width"), [((8, 8, 1), 128), ((128, 128, 3), 384)])
def test_small_and_large_images_have_a_width_of_their_own(shape, width):
    model = configuration(train_command(set_of(shape))).model
    assert (model.width, model.heads) == (width, width // 64)


def table(count=1000, conditions=None, paired=False):
    part = type(
        "Part", (), {"__len__": lambda self: count} | ({"read_pairs": None} if paired else {})
    )
    return Dataset("cells", Vectors(7), conditions, part(), part())


def test_a_table_trains_an_mlp():
    command = train_command(table(conditions={"age": Vector(1)}))
    assert command == "python -m fmjax train --config=table --config.data.name=cells"
    config = configuration(command)
    experiment = make_experiment(config, DataSpec(Vectors(7), {"age": Vector(1)}))
    assert (experiment.network, config.train.batch_size) == ("mlp", TABLE_BATCH)


def test_a_small_table_of_pairs_says_so():
    flags = flags_of(train_command(table(count=100, paired=True), "/data"))
    assert flags == {
        "config": "table",
        "config.data.name": "cells",
        "config.data.dir": "/data",
        "config.train.batch_size": "64",
        "config.labels.conditional": "False",
        "config.source.name": "data",
        "config.source.data": "cells",
        "config.source.dir": "/data",
    }


def test_latents_train_a_dit():
    dataset = dataclasses.replace(table(), codec=States((32, 32, 4)))
    assert flags_of(train_command(dataset)) == {
        "config": "images",
        "config.data.name": "cells",
        "config.model.patch_size": "4",
        "config.train.steps": "1500",
        "config.labels.conditional": "False",
    }


@pytest.mark.parametrize(
    ("examples", "batch", "steps"),
    [(200, 64, 1500), (5_000, 64, 4700), (1_000_000, 64, 20_000), (5_000, 8, 20_000)],
)
def test_each_image_is_seen_sixty_times_within_limits(examples, batch, steps):
    assert choose_steps(examples, batch) == steps
    command = train_command(set_of((32, 32, 3), None, examples))
    assert flags_of(command)["config.train.steps"] == str(choose_steps(examples, 64))


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("codec", "classes", "config"),
    [
        (Text(16, tuple("abc")), None, "text"),
        (Tokens((16,), 9), 3, "text"),
        (Tokens((8, 8, 1), 9), 3, "images"),
        (Levels((8, 8, 1), 9), None, "images"),
    ],
)
def test_tokens_have_a_command_that_trains_them(codec, classes, config):
    conditions = classes and ClassIds(classes)
    dataset = Dataset("own", codec, conditions, range(60_000), range(10))
    command = train_command(dataset)
    assert flags_of(command)["config"] == config
    built = make_experiment(configuration(command), spec_of(dataset))
    assert built.vocabulary == codec.vocabulary
    assert (built.conditions is None) == (classes is None)
    params = jax.eval_shape(built.init_params, jax.random.key(0))
    x1 = jax.ShapeDtypeStruct((4, *codec.data_shape), codec.data_dtype)
    batch = {"x1": x1, "index": jax.ShapeDtypeStruct((4,), "int32")}
    if classes:
        batch["labels"] = jax.ShapeDtypeStruct((4,), "int32")
    args = jax.eval_shape(built.draw, jax.random.key(0), batch)
    loss = jax.eval_shape(lambda p, a: built.loss_fn(p, *a, noise=a.noise), params, args)
    assert loss.shape == ()
