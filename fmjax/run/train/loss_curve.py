"""The losses of a run as a picture: ``loss.png``, from its ``metrics.jsonl``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from fmjax.plots import save_png

_WIDTH, _HEIGHT, _ZOOM = 640, 360, 2
_LEFT, _BOTTOM, _TOP, _RIGHT = 64, 34, 14, 16  # pixels around the frame
_GREY, _BLACK, _WHITE = (216, 216, 222), (40, 40, 44), (255, 255, 255)
_COLOURS = ((31, 103, 180), (240, 128, 24))
_CURVES = {"loss": "training loss", "val_loss": "held-out loss of the EMA"}


def write_loss_curve(metrics: Path, path: Path) -> None:
    """Draws the losses that a run has logged; nothing while there are fewer than two.

    Args:
        metrics: the run's ``metrics.jsonl``.
        path: of the PNG.
    """
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    curves = {
        label: np.array([(line["step"], line[name]) for line in lines if name in line])
        for name, label in _CURVES.items()
    }
    curves = {label: points for label, points in curves.items() if len(points) > 1}
    if curves:
        save_png(draw_curves(curves), path)


def draw_curves(
    curves: dict[str, Float[np.ndarray, "... 2"]],
) -> UInt8[np.ndarray, "height width 3"]:
    """Curves in one frame with ticks and a legend, uint8 (360, 640, 3).

    The vertical axis is logarithmic where all values are positive and span more than a factor of
    10.

    Args:
        curves: points (n, 2), the step and the value, by what they are.
    """
    from PIL import Image, ImageDraw, ImageFont

    values = np.concatenate([points[:, 1] for points in curves.values()])
    steps = np.concatenate([points[:, 0] for points in curves.values()])
    log = values.min() > 0 and values.max() > 10 * values.min()
    scale: Callable[[Any], Any] = np.log10 if log else lambda x: np.asarray(x, float)
    low, high = scale(values.min()), scale(values.max())
    margin = 0.05 * (high - low) or 0.5
    low, high = low - margin, high + margin

    def place(x, y):
        across = (np.asarray(x) - steps.min()) / (np.ptp(steps) or 1)
        up = (scale(y) - low) / (high - low)
        return (
            _ZOOM * (_LEFT + across * (_WIDTH - _LEFT - _RIGHT)),
            _ZOOM * (_HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _TOP)),
        )

    # The frame, its ticks and what they say.
    image = Image.new("RGB", (_ZOOM * _WIDTH, _ZOOM * _HEIGHT), _WHITE)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=_ZOOM * 11)
    bottom, right = _ZOOM * (_HEIGHT - _BOTTOM), _ZOOM * (_WIDTH - _RIGHT)
    ends = (10**low, 10**high) if log else (low, high)
    for tick in _log_ticks(*ends) if log else _ticks(*ends):
        height = float(place(steps.min(), tick)[1])
        draw.line([(_ZOOM * _LEFT, height), (right, height)], _GREY, _ZOOM)
        draw.text((_ZOOM * (_LEFT - 6), height), f"{tick:g}", _BLACK, font, anchor="rm")
    for tick in _ticks(steps.min(), steps.max()):
        across = float(place(tick, values.max())[0])
        draw.text((across, bottom + _ZOOM * 5), f"{tick:,.0f}", _BLACK, font, anchor="mt")
    draw.text((right, _ZOOM * (_HEIGHT - 2)), "step", _BLACK, font, anchor="rb")

    # The curves, each named in the upper right corner.
    for k, (label, points) in enumerate(curves.items()):
        line = np.stack(place(points[:, 0], points[:, 1]), axis=-1)
        draw.line([tuple(point) for point in line], _COLOURS[k], 2 * _ZOOM, joint="curve")
        corner = (right - _ZOOM * 4, _ZOOM * (_TOP + 4 + 15 * k))
        draw.text(corner, label, _COLOURS[k], font, anchor="rt")
    return np.asarray(image.resize((_WIDTH, _HEIGHT), Image.Resampling.BOX))


def _ticks(low: float, high: float) -> Float[np.ndarray, " ticks"]:
    """At most seven round numbers in a range, at equal distances."""
    rough = max((high - low) / 6, 1e-30)
    power = 10 ** np.floor(np.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step


def _log_ticks(low: float, high: float) -> Float[np.ndarray, " ticks"]:
    """The numbers 1, 2, 5 times a power of ten in a range; powers of ten alone in a wide one."""
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    mantissas = (1,) if high > 1e3 * low else (1, 2, 5)
    ticks = np.sort(np.outer(powers, mantissas).ravel())
    return ticks[(ticks >= low) & (ticks <= high)]
