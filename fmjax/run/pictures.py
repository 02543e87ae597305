"""What is shown of samples, by what the data are: images, plots, pictures of manifolds, texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, Shaped, UInt8

from fmjax import plots
from fmjax.data.codecs import Codec, vocabulary_of
from fmjax.data.dataset import Dataset
from fmjax.data.points import space_of
from fmjax.data.token_codecs import Text
from fmjax.errors import InputError
from fmjax.factory import Experiment, Recipe
from fmjax.run.restore import TrainedFlow
from fmjax.run.sample.request import Request, resolve
from fmjax.run.sample.sampler import draw_samples
from fmjax.run.space_pictures import draw_points
from fmjax.run.texts import write_texts

_ROWS = 10
_COLUMNS = 3  # of a table, each beside each
_VECTORS = 2000  # of an overview
_MASKED = (120, 150, 215)


def is_pictured(codec: Codec) -> bool:
    """Whether such data have a picture: pixels, vectors, points, and a few tokens in a row."""
    few = codec.kind == "tokens" and len(codec.shape) == 1 and codec.shape[0] <= _COLUMNS
    return codec.kind in ("pixels", "vectors", "points") or few


def is_shown(codec: Codec) -> bool:
    """Whether such data are shown: by a picture, or as a text."""
    return is_pictured(codec) or codec.kind == "text"


def check_shown(codec: Codec) -> None:
    """Checks that such data are shown.

    Raises:
        InputError: they are not.
    """
    if not is_shown(codec):
        raise InputError(
            f"there is no picture of {codec.kind} of shape {codec.data_shape}; leave --trajectory "
            "out."
        )


def named(codec: Codec, stem: str) -> str:
    """The name of a file that shows such data; see `is_shown`."""
    return f"{stem}.txt" if codec.kind == "text" else f"{stem}.png"


def pictured(codec: Codec, images: int, vectors: int) -> int:
    """How many samples are shown: points need more than images to show their shape."""
    return images if codec.kind in ("pixels", "text") else vectors


def draw_picture(
    codec: Codec,
    samples: Shaped[np.ndarray, "n ..."],
    columns: int,
    classes: Any = None,
    captions: Sequence[str] = (),
    row_captions: Sequence[str] = (),
    **options: Any,
) -> UInt8[np.ndarray, "height width channels"]:
    """A picture of samples, uint8 (height, width, channels).

    Args:
        codec: of the data, one that `is_pictured`.
        samples: data (n, ...).
        columns: of a grid of images.
        classes: class ids (n,) that colour vectors, or None.
        captions: of the columns of a grid of images.
        row_captions: of its rows.
        **options: of `fmjax.plots.pair_plots`, for vectors, which are shown standardised: their
            columns may have units that no window holds together; for points on a manifold those of
            `fmjax.run.space_pictures.draw_points`.
    """
    if codec.kind == "pixels":
        return plots.image_grid(samples, columns, captions=captions, row_captions=row_captions)
    space = space_of(codec)
    if space is not None:
        return draw_points(space, samples, classes, **options)
    return plots.pair_plots(standardised(codec, samples), classes, **options)


def standardised(codec: Codec, data: Shaped[np.ndarray, "n ..."]) -> Shaped[np.ndarray, "n ..."]:
    """Vectors as states, their first numbers alone; tokens as they are, a masked one the last."""
    if codec.kind == "tokens":
        return np.asarray(data, np.float32)
    return codec.encode(np.asarray(data))[..., :_COLUMNS]


def draw_states(
    codec: Codec, states: Shaped[np.ndarray, "n ..."], columns: int, **options: Any
) -> UInt8[np.ndarray, "height width channels"]:
    """A picture of states on the way, uint8 (height, width, channels).

    Args:
        codec: of the data, one that `is_pictured`.
        states: (n, ...), as the flow has them; pixels that are masked tokens are shown blue.
        columns: as in `draw_picture`.
        **options: as in `draw_picture`.
    """
    if codec.kind in ("tokens", "points"):
        return draw_picture(codec, states, columns, **options)
    images = np.asarray(codec.decode(states))
    vocabulary = vocabulary_of(codec)
    if vocabulary is not None:
        images = np.broadcast_to(images[..., :3], (*images.shape[:-1], 3)).copy()
        images[(np.asarray(states) == vocabulary).any(axis=-1)] = _MASKED
    return draw_picture(codec, images, columns, **options)


def shown_classes(
    experiment: Experiment, request: Request, num: int
) -> Int[np.ndarray, " n"] | None:
    """The classes of the first samples of a resolved request; None where they have none."""
    if request.labels is None or experiment.classes is None:
        return None
    return request.rows(experiment.conditions, 0, num)[1]


def _real(dataset: Dataset, num: int) -> tuple[Shaped[np.ndarray, "n ..."], Any]:
    """Held-out examples and their labels, those of the last snapshot where there are snapshots."""
    if dataset.snapshots is None:
        return dataset.arrays("test", num)
    points = dataset.snapshots.test.points
    return np.asarray(dataset.codec.decode(points[max(points)][:num])), None


def captions_of(experiment: Experiment, request: Request, columns: int) -> tuple[str, ...]:
    """The name of the class of each column of a picture; nothing where they have none.

    Args:
        experiment: of the model.
        request: resolved: its classes repeat in turn.
        columns: of the picture.
    """
    classes = experiment.classes
    if classes is None or classes.names is None or not isinstance(request.labels, tuple):
        return ()
    if columns % len(request.labels):
        return ()  # a column is then of several classes
    asked = request.labels * (columns // len(request.labels))
    return tuple((*classes.names, "none")[k] for k in asked)


def row_captions_of(request: Request, columns: int, num: int) -> tuple[str, ...]:
    """The guidance scale of each row of a picture; nothing where one scale is that of all.

    Args:
        request: resolved.
        columns: of the picture.
        num: samples in it.
    """
    if len(set(request.scales)) == 1 or columns != request.period:
        return ()
    rows = -(-num // columns)
    return tuple(f"w = {request.scales[row % len(request.scales)]:g}" for row in range(rows))


def save_overview(flow: TrainedFlow, dataset: Dataset, seed: int, path: Path) -> None:
    """Draws samples of every class and writes what shows them, where anything does.

    Images lie in a grid, a class a column; vectors beside real ones; texts one after another.

    Args:
        flow: a trained flow, on all processes; process 0 writes.
        dataset: the real examples.
        seed: of the samples.
        path: of the file, called as by `named`.
    """
    experiment = flow.experiment
    codec, classes = experiment.spec.codec, experiment.classes
    if not is_shown(codec):
        return
    columns = min(classes.num_classes if classes else _ROWS, 20)
    num = pictured(codec, columns * _ROWS, _VECTORS)
    request, recipe = resolve(experiment, Request(num, seed=seed), Recipe(experiment.solver))
    samples = draw_samples(flow, request, recipe)
    if jax.process_index() != 0:
        return
    if isinstance(codec, Text):
        write_texts(codec, samples, path)
        return
    beside: dict[str, Any] = {}
    if codec.kind in ("vectors", "tokens", "points"):
        # A distribution has to be seen beside its model.
        real, labels = _real(dataset, num)
        beside["reference"] = real if codec.kind == "points" else standardised(codec, real)
        beside["reference_labels"] = labels if dataset.classes else None
    asked = shown_classes(experiment, request, num)
    captions = captions_of(experiment, request, columns)
    plots.save_png(draw_picture(codec, samples, columns, asked, captions, **beside), path)
