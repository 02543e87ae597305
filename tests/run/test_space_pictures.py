"""Pictures of points on a manifold: what they show, and where."""

import jax
import numpy as np
import pytest

from fmjax.manifolds import SO3, SPD, Euclidean, FlatProduct, Hyperbolic, Sphere, Torus
from fmjax.run.space_pictures import draw_points, mollweide, panels_of

SIZES = {
    "sphere": (Sphere(2), (320, 640)),
    "circle": (Torus(1), (320, 320)),
    "torus": (Torus(2), (320, 320)),
    "seven angles": (Torus(7), (3 * 320 + 2 * 16, 320)),
    "rotations": (SO3(), (3 * 320 + 2 * 16, 640)),
    "ball": (Hyperbolic(2), (320, 320)),
    "line": (Euclidean(1), (320, 320)),
    "matrices": (SPD(2), (3 * 320 + 2 * 16, 320)),
    "product": (FlatProduct((SO3(), Torus(2))), (4 * 320 + 3 * 16, 640)),
}


@pytest.mark.parametrize(("manifold", "size"), SIZES.values(), ids=SIZES)
def test_each_manifold_has_its_plots(manifold, size):
    x = np.broadcast_to(np.asarray(manifold.origin), (5, *manifold.shape))
    picture = draw_points(manifold, x, np.arange(5))
    assert (picture.shape, picture.dtype) == ((*size, 3), np.uint8)
    coloured = np.ptp(picture.astype(int), axis=2) > 60
    assert coloured.any()
    for k in range(0, size[0], 336):
        assert coloured[k : k + 320].any()  # in each plot


def test_a_reference_stands_left_of_the_points():
    x = np.array([[0.0, 0.0, 1.0]])
    picture = draw_points(Sphere(2), x, reference=-x)
    assert picture.shape == (320, 2 * 640 + 32, 3)
    rows = np.nonzero(np.ptp(picture.astype(int), axis=2) > 60)
    left = rows[1] < 640
    assert rows[0][left].min() > 300  # the south pole
    assert rows[0][~left].max() < 20


def test_the_map_keeps_areas():
    x = np.asarray(Sphere(2).uniform(jax.random.key(0), (20_000,)))
    u, v = mollweide(x).T
    assert (u**2 / 4 + v**2).max() < 1 + 1e-6
    for height in (-0.5, 0.0, 0.7):
        a = np.arcsin(height)
        share = 0.5 + (2 * a + np.sin(2 * a)) / (2 * np.pi)
        assert np.mean(v < height) == pytest.approx(share, abs=0.015)
    poles = mollweide(np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [-1.0, -1e-9, 0.0]]))
    np.testing.assert_allclose(poles, [[0, 1], [0, -1], [-2, 0]], atol=2e-3)


def test_rotations_are_shown_by_where_their_axes_point():
    turn = np.array([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])  # x to y, y to -x
    found = [panel.project(turn)[0] for panel in panels_of(SO3())]
    np.testing.assert_allclose(found[0], [1, 0], atol=1e-6)  # a quarter to the east
    np.testing.assert_allclose(np.abs(found[1]), [2, 0], atol=1e-6)
    np.testing.assert_allclose(found[2], [0, 1], atol=1e-3)


def test_a_window_fixes_the_limits():
    x = np.zeros((1, 2), np.float32)
    wide = np.array([[-1.0, -1.0], [3.0, 3.0]])
    picture = draw_points(Euclidean(2), x, window=wide)
    rows, columns = np.nonzero(np.ptp(picture.astype(int), axis=2) > 60)
    assert columns.mean() == pytest.approx(320 * (0.5 - 1 / 4.32), abs=3)
    assert rows.mean() == pytest.approx(320 * (0.5 + 1 / 4.32), abs=3)
