"""The pictures of these pages: one colour for the source, one for the data, on every page."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

SOURCE = "#3b6fb6"  # x0, t = 0
DATA = "#d1495b"  # x1, t = 1
LINE = "#9a9a9a"  # what joins the two
CLASSES = ("#00798c", "#e09f1f", "#7b5ea7", "#4c956c")

plt.rcParams.update(
    {
        "figure.dpi": 130,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#777777",
        "axes.labelcolor": "#333333",
        "xtick.color": "#555555",
        "ytick.color": "#555555",
        "legend.frameon": False,
        "lines.linewidth": 1.6,
    }
)


def planes(titles: Iterable[str], limit: float = 3.0, size: float = 2.4) -> tuple[Figure, list]:
    """A row of square pictures of the plane [-limit, limit]^2, one for each title.

    Args:
        titles: what stands above each picture.
        limit: half the side of the window.
        size: the side of a picture, in inches.

    Returns:
        The figure and its axes.
    """
    titles = list(titles)
    shape = (size * len(titles), size + 0.3)
    fig, axes = plt.subplots(1, len(titles), figsize=shape, squeeze=False, layout="constrained")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set(title=title, xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[])
        ax.set_aspect("equal")
        ax.spines[:].set(visible=True, color="#cccccc")
    return fig, list(axes[0])


def points(ax: Axes, x: np.ndarray, colour: str = DATA, size: float = 3, alpha: float = 0.6):
    """Draws points (n, 2)."""
    x = np.asarray(x)
    ax.scatter(x[:, 0], x[:, 1], s=size, color=colour, alpha=alpha, linewidths=0, zorder=3)


def trajectories(ax: Axes, xs: np.ndarray, ends: bool = True, alpha: float = 0.35):
    """Draws the curves of n points over time, (times, n, 2), from their sources to their ends."""
    xs = np.asarray(xs)
    lines = LineCollection(xs.swapaxes(0, 1), colors=LINE, linewidths=0.6, alpha=alpha)
    ax.add_collection(lines)
    if ends:
        points(ax, xs[0], SOURCE, size=5, alpha=0.8)
        points(ax, xs[-1], DATA, size=5, alpha=0.8)


def pairs(ax: Axes, x0: np.ndarray, x1: np.ndarray, alpha: float = 0.5):
    """Joins each source point (n, 2) to its data point (n, 2)."""
    trajectories(ax, np.stack([x0, x1]), alpha=alpha)
