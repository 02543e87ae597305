import json

import numpy as np
from PIL import Image

from fmjax.run.train.loss_curve import draw_curves, write_loss_curve

BLUE, ORANGE = (31, 103, 180), (240, 128, 24)


def near(picture, colour):
    """Where a picture has a colour, but for the names of the curves at its top."""
    found = np.abs(picture.astype(int) - colour).sum(axis=-1) < 60
    found[:50] = False
    return found


def test_a_falling_loss_is_drawn_falling():
    steps = np.arange(1, 101)
    picture = draw_curves({"loss": np.stack([steps, 5.0 - 0.01 * steps], axis=-1)})
    rows, columns = np.nonzero(near(picture, BLUE))
    heights = [rows[columns == c].mean() for c in np.unique(columns)]
    assert (np.diff(heights) >= 0).all()  # rows are counted from the top
    # A straight line is drawn straight.
    middle = heights[len(heights) // 2]
    np.testing.assert_allclose(middle, (heights[0] + heights[-1]) / 2, atol=2)


def test_a_power_law_is_straight_on_the_logarithmic_axis():
    steps = np.arange(1, 101)
    picture = draw_curves({"loss": np.stack([steps, 10.0 ** (-steps / 25)], axis=-1)})
    rows, columns = np.nonzero(near(picture, BLUE))
    heights = [rows[columns == c].mean() for c in np.unique(columns)]
    np.testing.assert_allclose(np.diff(heights, 2), 0, atol=1)


def test_both_losses_of_a_run_are_drawn_and_one_line_is_no_curve(tmp_path):
    metrics, path = tmp_path / "metrics.jsonl", tmp_path / "loss.png"
    lines = [{"step": 1, "loss": 2.0}]
    metrics.write_text(json.dumps(lines[0]) + "\n")
    write_loss_curve(metrics, path)
    assert not path.exists()
    lines += [{"step": k, "loss": 2.0 / k} for k in range(2, 9)]
    lines += [{"step": k, "val_loss": 1.0} for k in (4, 8)]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_loss_curve(metrics, path)
    with Image.open(path) as image:
        picture = np.asarray(image.convert("RGB"))
    assert near(picture, BLUE).any()
    assert near(picture, ORANGE).any()
