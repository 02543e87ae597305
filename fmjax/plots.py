"""Pictures as uint8 arrays: grids of images, scatter plots of points, histograms.

By pillow, so that a training loop needs no plotting library.
"""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Real, UInt8
from numpy.typing import ArrayLike

from fmjax.array_checks import check_class_ids, check_finite
from fmjax.checks import check_at_least, check_positive
from fmjax.errors import InputError
from fmjax.files import whole_file

_BACKGROUND = 255
_FRAME = (216, 216, 222)
_ZOOM = 4  # a scatter plot is drawn so many times larger, and averaged down
_BINS = 40  # of a histogram
_OPACITY = 178  # of a dot, of 255: several on one spot look darker than one
_CAPTION = 14  # pixels of height
_TILE = 48  # pixels: small images are enlarged to about this width
# One colour per class; they differ in lightness too. One set of points takes the first.
_PALETTE = (
    *("#1f67b4", "#f08018", "#269642", "#d02c32", "#8a5cb8"),
    *("#7a4e42", "#e66ebe", "#626268", "#b4b61e", "#14b4cc"),
)


def image_grid(
    images: UInt8[np.ndarray, "n height width channels"] | ArrayLike,
    columns: int | None = None,
    scale: int | None = None,
    pad: int | None = None,
    captions: Sequence[str] = (),
    row_captions: Sequence[str] = (),
) -> UInt8[np.ndarray, "rows columns colours"]:
    """Lays images out in rows, left to right, on white.

    Args:
        images: uint8, ``(N, H, W, C)``: grey for C = 1, in colour for 3; of any other number the
            first three channels are shown, or the first of two.
        columns: images per row; by default the grid is about square.
        scale: each pixel becomes ``scale x scale`` pixels (nearest neighbour); by default small
            images are enlarged to be readable, and images of 32 pixels or more are left as is.
        pad: white pixels between images and around the grid; by default a twelfth of an image.
        captions: one for each column, written above it and cut off where it is too long; none if
            empty.
        row_captions: one for each row, written to its left; none if empty.

    Returns:
        uint8, ``(rows * (scale H + pad) + pad, columns * (scale W + pad) + pad, 1 or 3)``, and 14
        rows more with captions; wider by the longest of the row captions. Places that the last row
        leaves empty are white.

    Raises:
        InputError: for another dtype or shape, no image, or a size that is not positive.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise InputError(f"images must be uint8, got {images.dtype}.")
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(f"images must have shape (N, H, W, C), got {images.shape}.")
    images = images[..., : 3 if images.shape[-1] >= 3 else 1]
    count, height, width, channels = images.shape
    columns = int(np.ceil(np.sqrt(count))) if columns is None else columns
    scale = max(1, round(_TILE / width)) if scale is None else scale
    pad = max(1, scale * width // 12) if pad is None else pad
    check_at_least("columns", columns)
    check_at_least("scale", scale)
    check_at_least("pad", pad, 0)
    rows = -(-count // columns)
    tile_h, tile_w = scale * height + pad, scale * width + pad
    cells = np.full((rows * columns, tile_h, tile_w, channels), _BACKGROUND, np.uint8)
    cells[:count, pad:, pad:] = images.repeat(scale, axis=1).repeat(scale, axis=2)
    grid = cells.reshape(rows, columns, tile_h, tile_w, channels).swapaxes(1, 2)
    grid = grid.reshape(rows * tile_h, columns * tile_w, channels)
    grid = np.pad(grid, ((0, pad), (0, pad), (0, 0)), constant_values=_BACKGROUND)
    for what, texts, number in (("columns", captions, columns), ("rows", row_captions, rows)):
        if texts and len(texts) != number:
            raise InputError(f"{number} {what} must have as many captions; got {len(texts)}.")
    if captions:
        above = _captions(captions, tile_w, pad, grid.shape[1])
        grid = np.concatenate([np.broadcast_to(above, (*above.shape[:2], channels)), grid])
    if row_captions:
        beside = _row_captions(row_captions, tile_h, grid.shape[0])
        grid = np.hstack([np.broadcast_to(beside, (*beside.shape[:2], channels)), grid])
    return grid


def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size=_CAPTION - 3)


def _row_captions(
    captions: Sequence[str], step: int, height: int
) -> UInt8[np.ndarray, "{height} width 1"]:
    """A column of texts beside the rows of a grid, counted from its end: uint8 (height, w, 1)."""
    from PIL import Image, ImageDraw

    font = _font()
    width = 4 + int(max(map(font.getlength, captions)))
    column = Image.new("L", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(column)
    for k, text in enumerate(captions):
        middle = height - (len(captions) - k - 0.5) * step
        draw.text((2, middle - _CAPTION / 2), text, fill=0, font=font)
    return np.asarray(column)[..., None]


def _captions(
    captions: Sequence[str], step: int, start: int, width: int
) -> UInt8[np.ndarray, "14 {width} 1"]:
    """A row of texts, one every `step` pixels from `start` on: uint8 (14, width, 1)."""
    from PIL import Image, ImageDraw

    font = _font()
    row = Image.new("L", (width, _CAPTION), _BACKGROUND)
    draw = ImageDraw.Draw(row)
    for k, text in enumerate(captions):
        fits = next(n for n in range(len(text), -1, -1) if font.getlength(text[:n]) <= step)
        draw.text((start + k * step, 0), text[:fits], fill=0, font=font)
    return np.asarray(row)[..., None]


def save_png(
    array: UInt8[np.ndarray, "height width *channels"] | ArrayLike, path: str | os.PathLike[str]
) -> None:
    """Writes a picture as PNG, whole or not at all: a reader never sees half a file.

    Args:
        array: uint8, ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``.
        path: where to; its folder is made, and an existing file is replaced.

    Raises:
        InputError: for another dtype or shape.
        OSError: if it cannot be written; what was there before is untouched.
    """
    from PIL import Image

    array = np.asarray(array)
    if array.dtype != np.uint8:
        raise InputError(f"a picture must be uint8, got {array.dtype}.")
    if array.ndim not in (2, 3) or 0 in array.shape or array.shape[2:] not in ((), (1,), (3,)):
        raise InputError(f"a picture must have shape (H, W, 1 or 3), got {array.shape}.")
    picture = Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)
    _write_whole(picture, path, "PNG", optimize=True)


def save_animation(
    frames: list[UInt8[np.ndarray, "height width *colours"]],
    path: str | os.PathLike[str],
    seconds: float = 0.08,
) -> None:
    """Writes pictures as an animated GIF that repeats, whole or not at all.

    Args:
        frames: uint8 pictures of one shape, each as in `save_png`; equal ones in a row are joined.
        path: where to; its folder is made, and an existing file is replaced.
        seconds: how long each is shown.

    Raises:
        InputError: there is no frame, or they differ in shape or dtype, or seconds is not positive.
        OSError: if it cannot be written; what was there before is untouched.
    """
    from PIL import Image

    frames = [np.asarray(frame) for frame in frames]
    if not frames or any(f.shape != frames[0].shape or f.dtype != np.uint8 for f in frames):
        raise InputError(
            "an animation needs uint8 frames of one shape; got "
            f"{sorted({(f.shape, str(f.dtype)) for f in frames})}."
        )
    check_positive("seconds", seconds)
    pictures = [Image.fromarray(f[..., 0] if f.shape[2:] == (1,) else f) for f in frames]
    options = {
        "save_all": True,
        "append_images": pictures[1:],
        "duration": round(1000 * seconds),
        "loop": 0,
    }
    _write_whole(pictures[0], path, "GIF", **options)


def _write_whole(picture: Any, path: str | os.PathLike[str], kind: str, **options: Any) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        picture.save(temporary, format=kind, **options)


def scatter(
    points: Real[np.ndarray, "n 2"] | ArrayLike,
    labels: Int[np.ndarray, " n"] | ArrayLike | None = None,
    *,
    size: int = 320,
    height: int | None = None,
    limits: tuple[float, float, float, float] | None = None,
    lines: Sequence[Real[np.ndarray, "_k 2"] | ArrayLike] = (),
    reference: Real[np.ndarray, "m 2"] | ArrayLike | None = None,
    reference_labels: Int[np.ndarray, " m"] | ArrayLike | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Draws 2-D points as soft dots, which add up to a density where there are many.

    Args:
        points: ``(n, 2)``, as (x, y); y points up.
        labels: class ids, ``(n,)``, one colour each. Without them there is one colour.
        size: width of the picture, in pixels.
        height: of the picture; as its width if None.
        limits: ``(x_min, x_max, y_min, y_max)``; points outside are not drawn. By default a square
            around the reference, or around the points if there is none.
        lines: drawn behind the points, each through ``(k, 2)`` places.
        reference: real points, ``(m, 2)``, for a second picture left of the first, with the same
            limits.
        reference_labels: their class ids.

    Returns:
        uint8, ``(height, size, 3)``, or ``(height, 2 size + size // 20, 3)`` with a reference.

    Raises:
        InputError: for points that are not finite or not 2-D, labels that do not match them, or
            limits out of order.
    """
    points = _checked_points(points, "points")
    labels = _checked_labels(labels, "labels", len(points))
    check_at_least("size, in pixels,", size, 16)
    height = size if height is None else check_at_least("height, in pixels,", height, 16)
    if reference is None:
        box = _checked_limits(limits, points)
        return _draw_points(points, labels, (size, height), box, lines)
    reference = _checked_points(reference, "reference")
    reference_labels = _checked_labels(reference_labels, "reference_labels", len(reference))
    box = _checked_limits(limits, reference)
    left = _draw_points(reference, reference_labels, (size, height), box, lines)
    gap = np.full((height, size // 20, 3), _BACKGROUND, np.uint8)
    right = _draw_points(points, labels, (size, height), box, lines)
    return np.concatenate([left, gap, right], axis=1)


def pair_plots(
    points: Real[np.ndarray, "n columns"] | ArrayLike,
    labels: Int[np.ndarray, " n"] | ArrayLike | None = None,
    *,
    size: int = 320,
    limits: tuple[float, float, float, float] | None = None,
    reference: Real[np.ndarray, "m columns"] | ArrayLike | None = None,
    reference_labels: Int[np.ndarray, " m"] | ArrayLike | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Draws each two columns of points as a `scatter` plot, one below the other.

    Points of one column are drawn as a histogram.

    Args:
        points: ``(n, d)``.
        labels: as in `scatter`, as all that follow.
        size: of each plot.
        limits: of each plot.
        reference: real points, ``(m, d)``.
        reference_labels: their class ids.

    Returns:
        uint8, d (d - 1) / 2 plots as wide as one of `scatter`.

    Raises:
        InputError: as `scatter`, or points and reference have no columns, or not as many.
    """
    points = np.asarray(points)
    beside = None if reference is None else np.asarray(reference)
    found = [points.shape] + ([] if beside is None else [beside.shape])
    if any(len(shape) != 2 for shape in found) or len({shape[1:] for shape in found}) > 1:
        raise InputError(f"points and reference must have shapes (n, d) and (m, d), got {found}.")
    if not points.shape[1]:
        raise InputError("points must have at least one column; got none.")
    if points.shape[1] == 1:
        return histogram(points[:, 0], size=size, limits=limits and limits[:2], reference=beside)
    plots = [
        scatter(
            points[:, pair],
            labels,
            size=size,
            limits=limits,
            reference=beside if beside is None else beside[:, pair],
            reference_labels=reference_labels,
        )
        for pair in map(list, itertools.combinations(range(points.shape[1]), 2))
    ]
    gap = np.full((size // 20, *plots[0].shape[1:]), _BACKGROUND, np.uint8)
    return np.concatenate([part for plot in plots for part in (gap, plot)][1:])


def histogram(
    values: Real[np.ndarray, "..."] | ArrayLike,
    *,
    size: int = 320,
    limits: tuple[float, float] | None = None,
    reference: Real[np.ndarray, "..."] | ArrayLike | None = None,
) -> UInt8[np.ndarray, "{size} width 3"]:
    """Draws how values are distributed: the share in each of 40 bins, as bars.

    Args:
        values: ``(n,)``, or of any shape.
        size: height and width of the picture, in pixels.
        limits: the ends of the axis; by default those of the reference, or of the values.
        reference: real values, for a second picture left of the first, of the same scale.

    Returns:
        uint8, ``(size, size, 3)``, or ``(size, 2 size + size // 20, 3)`` with a reference.

    Raises:
        InputError: for values that are none or not finite, or limits out of order.
    """
    sets = [
        np.ravel(x).astype(np.float64)
        for x in ([values] if reference is None else [reference, values])
    ]
    check_at_least("size, in pixels,", size, 16)
    for x in sets:
        if not x.size:
            raise InputError("a histogram needs at least one value; got none.")
        check_finite("the values of a histogram", x)
    low, high = (sets[0].min(), sets[0].max()) if limits is None else limits
    if not low <= high:
        raise InputError(f"limits must be (least, most), in order, got {limits}.")
    edges = np.linspace(low - 1e-6, high + 1e-6, _BINS + 1)
    shares = [np.histogram(x, edges)[0] / x.size for x in sets]
    most = max(max(share.max() for share in shares), 1e-6)
    left, *right = [_draw_bars(share / most, size) for share in shares]
    gap = np.full((size, size // 20, 3), _BACKGROUND, np.uint8)
    return np.concatenate([left, *(part for plot in right for part in (gap, plot))], axis=1)


def _draw_bars(
    heights: Float[np.ndarray, " bins"], size: int
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """One square picture: bars from below, of heights in [0, 1], in a thin frame."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (size, size), (_BACKGROUND,) * 3)
    pen = ImageDraw.Draw(picture)
    width = size / len(heights)
    for i, height in enumerate(heights):
        if height > 0:
            top = round((1 - 0.95 * height) * (size - 1))
            box = (
                round(i * width),
                top,
                max(round((i + 1) * width) - 2, round(i * width)),
                size - 1,
            )
            pen.rectangle(box, fill=_PALETTE[0])
    pen.rectangle((0, 0, size - 1, size - 1), outline=_FRAME)
    return np.array(picture)


def _checked_points(
    points: Real[np.ndarray, "n 2"] | ArrayLike, what: str
) -> Float[np.ndarray, "n 2"]:
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise InputError(f"{what} must have shape (n, 2), got {points.shape}.")
    check_finite(what, points)
    return points


def _checked_labels(
    labels: Int[np.ndarray, " {count}"] | ArrayLike | None, what: str, count: int
) -> Int[np.ndarray, " {count}"]:
    labels = np.zeros(count, np.int64) if labels is None else np.asarray(labels)
    check_class_ids(what, labels, count=count)
    return labels


def _checked_limits(
    limits: tuple[float, float, float, float] | None, points: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "2 2"]:
    """Limits as ((x_min, y_min), (x_max, y_max))."""
    if limits is None:
        low, high = points.min(axis=0), points.max(axis=0)
        half = 0.54 * max(float((high - low).max()), 1e-6)
        return np.stack([(low + high) / 2 - half, (low + high) / 2 + half])
    box = np.asarray(limits, np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or not (box[0::2] < box[1::2]).all():
        raise InputError(f"limits must be (x_min, x_max, y_min, y_max), in order, got {limits}.")
    return np.stack([box[0::2], box[1::2]])


def _draw_points(
    points: Float[np.ndarray, "n 2"],
    labels: Int[np.ndarray, " n"],
    size: tuple[int, int],
    limits: Float[np.ndarray, "2 2"],
    lines: Sequence[Real[np.ndarray, "_k 2"] | ArrayLike],
) -> UInt8[np.ndarray, "height width 3"]:
    """One picture of a width and a height: dots in the colour of their class, in a thin frame."""
    from PIL import Image, ImageDraw

    low, high = limits
    inside = ((points >= low) & (points <= high)).all(axis=1)
    large = _ZOOM * np.asarray(size)

    def place(x: Real[np.ndarray, "k 2"] | ArrayLike) -> Float[np.ndarray, "k 2"]:
        spots = (np.asarray(x, np.float64) - low) / (high - low)
        return large * np.stack([spots[:, 0], 1 - spots[:, 1]], axis=1)

    spots = place(points[inside])
    colour_of = {label: _colour(label) for label in np.unique(labels).tolist()}
    colours = [colour_of[label] for label in labels[inside]]
    # Drawn larger and averaged down, which smooths the rims; in a random order, so that no class
    # lies on top of the others.
    picture = Image.new("RGB", tuple(large), (_BACKGROUND,) * 3)
    pen = ImageDraw.Draw(picture, "RGBA")
    for line in lines:
        pen.line(place(line).ravel().tolist(), fill=_FRAME, width=_ZOOM)
    for i in np.random.default_rng(0).permutation(len(spots)):
        pen.circle(spots[i], _ZOOM * max(min(size) / 170, 1.0), fill=colours[i])
    picture = picture.resize(size, Image.Resampling.BOX)
    ImageDraw.Draw(picture).rectangle((0, 0, size[0] - 1, size[1] - 1), outline=_FRAME)
    return np.array(picture)


def _colour(label: int) -> tuple[int, int, int, int]:
    """The colour of a class, the same whichever other classes there are."""
    from PIL import ImageColor

    if label < len(_PALETTE):
        name = _PALETTE[label]
    else:  # steps of the golden ratio around the circle of hues never repeat
        name = f"hsl({360 * (label * 0.618034 % 1):.1f}, 60%, 45%)"
    return (*ImageColor.getrgb(name), _OPACITY)
