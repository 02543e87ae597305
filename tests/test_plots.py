import numpy as np
import pytest
from PIL import Image

from fmjax.errors import InputError
from fmjax.plots import histogram, image_grid, pair_plots, save_png, scatter

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3), np.uint8)


def test_every_image_stands_in_its_place_and_the_rest_is_white():
    grid = image_grid(IMAGES, columns=3, scale=2, pad=5)
    assert grid.shape == (3 * (8 + 5) + 5, 3 * (12 + 5) + 5, 3)
    white = np.ones(grid.shape[:2], bool)
    for i, image in enumerate(IMAGES):
        top, left = 5 + (i // 3) * 13, 5 + (i % 3) * 17
        tile = grid[top : top + 8, left : left + 12]
        np.testing.assert_array_equal(tile[::2, ::2], image)
        np.testing.assert_array_equal(tile[1::2, 1::2], image)
        white[top : top + 8, left : left + 12] = False
    assert (grid[white] == 255).all()


def test_small_images_are_enlarged_to_be_read():
    assert image_grid(np.zeros((1, 8, 8, 1), np.uint8), pad=0).shape == (48, 48, 1)
    assert image_grid(np.zeros((1, 64, 64, 1), np.uint8), pad=0).shape == (64, 64, 1)


@pytest.mark.parametrize(("channels", "shown"), [(2, 1), (4, 3), (16, 3)])
def test_of_other_channels_the_first_are_shown(channels, shown):
    latents = np.random.default_rng(0).integers(0, 255, (5, 4, 4, channels)).astype(np.uint8)
    np.testing.assert_array_equal(image_grid(latents), image_grid(latents[..., :shown]))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_reads_back_to_the_bit(tmp_path, channels):
    picture = IMAGES[0, :, :, :channels]
    path = tmp_path / "made" / "x.png"
    save_png(picture, path)
    with Image.open(path) as read:
        np.testing.assert_array_equal(np.asarray(read).reshape(picture.shape), picture)
    assert [p.name for p in path.parent.iterdir()] == ["x.png"]


def test_a_picture_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    save_png(IMAGES[0], path)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_png(IMAGES[1], path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def ink(picture):
    """Where something other than the background or the frame was drawn: (row, column) means."""
    inner = picture[2:-2, 2:-2].astype(int)
    rows, columns = np.nonzero(inner.min(axis=2) < 200)
    return rows.mean() + 2, columns.mean() + 2


def test_a_point_is_drawn_where_it_is_with_y_upwards():
    limits = (-1.0, 1.0, -1.0, 1.0)
    for x, y in ((0.5, 0.5), (-0.5, 0.25), (0.0, -0.75)):
        row, column = ink(scatter(np.full((50, 2), [x, y]), size=200, limits=limits))
        assert abs(column - (x + 1) * 100) < 3
        assert abs(row - (1 - y) * 100) < 3


def test_points_outside_are_not_drawn_however_far():
    limits = (-1.0, 1.0, -1.0, 1.0)
    picture = scatter(np.array([[0.5, 0.5]]), size=64, limits=limits)
    far = np.array([[0.5, 0.5], [1e30, 0.0], [0.0, -1e30], [1.5, 0.5]])
    np.testing.assert_array_equal(scatter(far, size=64, limits=limits), picture)
    assert (scatter(np.array([[1e30, 0.0]]), size=64, limits=limits)[1:-1, 1:-1] == 255).all()


def test_many_points_on_one_spot_are_darker_than_one():
    limits = (-1.0, 1.0, -1.0, 1.0)
    one, many = (scatter(np.zeros((n, 2)), size=64, limits=limits)[32, 32] for n in (1, 20))
    assert (many.astype(int) <= one).all()
    assert one.min() - many.min() > 30


def test_no_class_lies_on_top_of_another():
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 2))
    both = np.arange(4000) % 2
    blue, orange, mixed = (
        scatter(points, labels, size=100, limits=(-1.0, 1.0, -1.0, 1.0))[30:70, 30:70, 0].mean()
        for labels in (0 * both, 0 * both + 1, both)
    )
    assert abs((mixed - blue) / (orange - blue) - 0.5) < 0.05


def test_classes_have_colours_of_their_own_and_the_reference_stands_on_the_left():
    points = np.array([[-0.5, 0.0], [0.5, 0.0]]).repeat(50, axis=0)
    labels = np.repeat([0, 1], 50)
    limits = (-1.0, 1.0, -1.0, 1.0)
    picture = scatter(points, labels, size=200, limits=limits)
    left, right = picture[100, 50].astype(int), picture[100, 150].astype(int)
    assert np.abs(left - right).max() > 50
    both = scatter(points, labels, size=200, limits=limits, reference=-points)
    assert both.shape == (200, 410, 3)
    np.testing.assert_array_equal(both[:, 210:], picture)
    np.testing.assert_array_equal(both[:, :200], scatter(-points, size=200, limits=limits))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: image_grid(IMAGES / 255), "uint8"),
        (lambda: image_grid(IMAGES[0]), "shape"),
        (lambda: image_grid(IMAGES, columns=0), "columns"),
        (lambda: save_png(IMAGES[0] / 255, "x.png"), "uint8"),
        (lambda: save_png(IMAGES, "x.png"), "shape"),
        (lambda: scatter(np.zeros((3, 3))), "points"),
        (lambda: scatter(np.full((3, 2), np.nan)), "points"),
        (lambda: scatter(np.zeros((3, 2)), np.zeros(2, int)), "labels"),
        (lambda: scatter(np.zeros((3, 2)), limits=(1, 0, 0, 1)), "limits"),
        (lambda: scatter(np.zeros((3, 2)), size=4), "size"),
        (lambda: pair_plots(np.zeros(3)), "shapes"),
        (lambda: pair_plots(np.zeros((3, 3)), reference=np.zeros((3, 2))), "shapes"),
        (lambda: pair_plots(np.zeros((3, 0))), "column"),
        (lambda: histogram([]), "at least one value"),
        (lambda: histogram([np.nan]), "finite"),
        (lambda: histogram([1.0], limits=(1, 0)), "limits"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_each_two_columns_of_a_table_are_one_plot():
    points = np.random.default_rng(0).normal(size=(50, 3))
    options = {"size": 60, "limits": (-3, 3, -3, 3), "reference": points[::-1]}
    picture = pair_plots(points, np.arange(50) % 2, **options)
    assert picture.shape == (3 * 60 + 2 * 3, 2 * 60 + 3, 3)
    options["reference"] = points[::-1][:, 1:]
    expected = scatter(points[:, 1:], np.arange(50) % 2, **options)
    np.testing.assert_array_equal(picture[-60:], expected)
    np.testing.assert_array_equal(pair_plots(points[:, :2]), scatter(points[:, :2]))


def test_one_column_is_a_histogram_whose_bars_are_its_shares():
    values = np.repeat([0.0, 1.0, 2.0], [10, 20, 40])
    picture = pair_plots(values[:, None], size=200)
    np.testing.assert_array_equal(picture, histogram(values, size=200))
    inside = (picture[1:-1] != 255).any(axis=2)
    heights = [
        inside[:, near].sum(axis=0).max() for near in map(slice, (1, 95, 195), (5, 105, 199))
    ]
    np.testing.assert_allclose(heights, [47, 95, 190], atol=3)
    both = histogram(values, size=200, reference=values[:10])
    assert both.shape == (200, 410, 3)


def test_captions_stand_above_their_columns_and_are_cut_off():
    plain = image_grid(IMAGES, columns=3, scale=4, pad=5)
    named = image_grid(IMAGES, columns=3, scale=4, pad=5, captions=("a", "", "x" * 50))
    np.testing.assert_array_equal(named[14:], plain)
    above, step = named[:14, :, 0], (plain.shape[1] - 5) // 3
    dark = [(above[:, 5 + k * step : 5 + (k + 1) * step] < 128).any() for k in range(3)]
    assert dark == [True, False, True]
    assert (above[:, -2:] == 255).all()  # of 50 letters only those that fit


def test_captions_of_rows_stand_to_their_left():
    plain = image_grid(IMAGES, columns=3, scale=4, pad=5)
    named = image_grid(IMAGES, columns=3, scale=4, pad=5, row_captions=("w = 1", "", ""))
    width = named.shape[1] - plain.shape[1]
    np.testing.assert_array_equal(named[:, width:], plain)
    left, half = named[:, :width, 0], plain.shape[0] // 3
    assert (left[:half] < 128).any()
    assert (left[half:] == 255).all()
    both = image_grid(IMAGES, columns=3, scale=4, pad=5, captions="abc", row_captions=["w"] * 3)
    assert both.shape[0] == plain.shape[0] + 14


def test_there_is_a_caption_for_each_column_and_row():
    with pytest.raises(InputError, match="3 columns must have as many captions; got 2"):
        image_grid(IMAGES, columns=3, captions=("a", "b"))
    with pytest.raises(InputError, match="3 rows must have as many captions; got 2"):
        image_grid(IMAGES, columns=3, row_captions=("a", "b"))
