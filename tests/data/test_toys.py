import pickle

import numpy as np
import pytest

from fmjax.data.toys import TOYS, ToyBatches
from fmjax.errors import InputError

N = 40_000


@pytest.fixture(scope="module", params=sorted(TOYS))
def any_toy(request):
    return TOYS[request.param]


def draw(name, n=N, seed=0):
    points, labels = TOYS[name].sample(np.random.default_rng(seed), n)
    return points.astype(np.float64), labels


def unit(angle):
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def test_every_toy_keeps_its_contract(any_toy):
    points, labels = any_toy.sample(np.random.default_rng(0), 1000)
    assert points.shape == (1000, 2)
    dtype = np.float32 if any_toy.vocabulary is None else np.int32
    assert (points.dtype, labels.dtype, labels.shape) == (dtype, np.int32, (1000,))
    assert set(labels) == set(range(any_toy.num_classes or 1))
    again, _ = any_toy.sample(np.random.default_rng(0), 1000)
    np.testing.assert_array_equal(points, again)


def test_classes_are_equally_likely(any_toy):
    _, labels = any_toy.sample(np.random.default_rng(1), N)
    share = np.bincount(labels) / N
    np.testing.assert_allclose(share, 1 / len(share), atol=4 * 0.5 / np.sqrt(N))


def test_eight_gaussians_have_unit_covariance_on_a_circle_of_radius_five():
    points, labels = draw("8gaussians")
    for k in range(8):
        mode = points[labels == k]
        # 5,000 points: the mean is within 0.06 and the covariance within 0.1 at four sigma.
        np.testing.assert_allclose(mode.mean(0), 5 * unit(2 * np.pi * k / 8), atol=0.06)
        np.testing.assert_allclose(np.cov(mode.T), np.eye(2), atol=0.1)


def test_moons_are_half_circles_with_the_published_scale():
    points, labels = draw("moons")
    moon = (points + np.array([1.0, 0.0])) / 2
    for k, centre, sign in ((0, [0.0, 0.0], 1), (1, [1.0, 0.5], -1)):
        arm = moon[labels == k] - np.array(centre)
        radius = np.linalg.norm(arm, axis=1)
        assert radius.mean() == pytest.approx(1, abs=0.003)
        assert radius.std() == pytest.approx(0.05, abs=0.002)
        # The mean of (cos, sin) over half a turn is (0, 2 / pi).
        np.testing.assert_allclose(arm.mean(0), [0, sign * 2 / np.pi], atol=0.02)


def test_checkerboard_is_uniform_on_eight_dark_squares():
    points, labels = draw("checkerboard")
    assert np.abs(points).max() <= 4
    square = np.floor((points + 4) / 2)
    assert np.all(square.sum(axis=1) % 2 == 0)
    inside = (points + 4) / 2 - square
    np.testing.assert_allclose(inside.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(inside.var(0), 1 / 12, atol=0.002)
    of_label = [np.unique(square[labels == k], axis=0) for k in range(8)]
    assert all(len(rows) == 1 for rows in of_label)
    assert len(np.unique(np.concatenate(of_label), axis=0)) == 8


def test_the_checkerboard_of_tokens_is_uniform_on_the_cells_of_the_same_squares():
    tokens, labels = draw("checkerboard_tokens", 200_000)
    points, of_points = draw("checkerboard", 200_000)
    cells = {tuple(cell) for cell in tokens.astype(int)}
    assert len(cells) == 8192
    assert (tokens.min(), tokens.max()) == (0, TOYS["checkerboard_tokens"].vocabulary - 1)
    for k in range(8):
        squares = tokens[labels == k] // 32, (points[of_points == k] + 4) // 2
        np.testing.assert_array_equal(*(np.unique(x, axis=0) for x in squares))
    counts = np.unique(tokens, axis=0, return_counts=True)[1]
    # Chi-square with 8,191 degrees of freedom: within five standard deviations of its mean.
    statistic = np.sum((counts - 200_000 / 8192) ** 2) / (200_000 / 8192)
    assert abs(statistic - 8191) < 5 * np.sqrt(2 * 8191)


def test_s_curve_is_two_circles_that_touch():
    points, _ = draw("scurve")
    curve = points / 1.5
    centre = np.stack([np.zeros(N), np.sign(curve[:, 1])], axis=-1)
    off = np.linalg.norm(curve - centre, axis=1) - 1
    assert off.std() == pytest.approx(0.05, abs=0.002)
    # E (1 - cos t)^2 for t uniform on (-3 pi / 2, 3 pi / 2), plus the noise.
    second = 1.5 + 4 / (3 * np.pi) + 0.05**2
    assert (curve[:, 1] ** 2).mean() == pytest.approx(second, rel=0.02)
    np.testing.assert_allclose(curve.mean(0), 0, atol=0.03)


def test_spiral_arms_are_opposite_and_follow_the_formula():
    points, labels = draw("spirals")
    assert (points**2).sum(axis=1).mean() == pytest.approx(16 / 2 + 2 * 0.1**2, rel=0.02)
    turn = (np.arange(20_000) + 0.5) / 20_000  # its density is 2 * turn
    mean = (4 * turn[:, None] * unit(3 * np.pi * turn) * 2 * turn[:, None]).mean(0)
    np.testing.assert_allclose(points[labels == 0].mean(0), mean, atol=0.06)
    np.testing.assert_allclose(points[labels == 1].mean(0), -mean, atol=0.06)


def test_pinwheel_blades_are_one_bent_gaussian_turned():
    points, labels = draw("pinwheel")
    second = 4 * (1 + 0.3**2 + 0.1**2)
    assert (points**2).sum(axis=1).mean() == pytest.approx(second, rel=0.02)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    along = 1 + 0.3 * nodes
    mean = 2 * np.average(along[:, None] * unit(0.25 * np.exp(along)), axis=0, weights=weights)
    for k in range(5):
        angle = -2 * np.pi * k / 5
        back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        np.testing.assert_allclose(back @ points[labels == k].mean(0), mean, atol=0.04)


def test_rings_have_their_radii():
    points, labels = draw("rings")
    radius = np.linalg.norm(points, axis=1)
    for k in range(4):
        # Noise across the radius adds 0.1^2 / 2r to its mean.
        expected = k + 1 + 0.1**2 / (2 * (k + 1))
        assert radius[labels == k].mean() == pytest.approx(expected, abs=0.005)
        assert radius[labels == k].std() == pytest.approx(0.1, abs=0.005)
    np.testing.assert_allclose(points.mean(0), 0, atol=0.06)


def test_batch_k_depends_on_seed_and_k_alone():
    source = ToyBatches(TOYS["moons"], 64, seed=3)
    later = source[41]["x1"]
    source[0], source[40]
    np.testing.assert_array_equal(source[41]["x1"], later)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[41]["x1"], later)
    others = [source[40]["x1"], ToyBatches(TOYS["moons"], 64, seed=4)[41]["x1"]]
    assert not any(np.array_equal(other, later) for other in others)


def test_batches_of_a_toy_without_classes_carry_no_labels():
    assert set(ToyBatches(TOYS["scurve"], 4, 0)[0]) == {"x1"}
    assert set(ToyBatches(TOYS["rings"], 4, 0)[0]) == {"x1", "labels"}


@pytest.mark.parametrize(("batch", "seed", "word"), [(0, 0, "batch size"), (4, -1, "seed")])
def test_bad_batches_are_refused(batch, seed, word):
    with pytest.raises(InputError, match=word):
        ToyBatches(TOYS["moons"], batch, seed)


class FixedNumbers(np.random.Generator):
    """In the place of a generator: the first class, and the same numbers in every row."""

    def __init__(self, *row):
        super().__init__(np.random.PCG64(0))
        self.row = row

    def integers(self, most, size):
        return np.zeros(size, np.int32)

    def normal(self, size):
        return np.broadcast_to(self.row, size)


def test_the_width_of_a_pinwheel_blade_is_across_its_length():
    def point(along, across):
        (row,) = TOYS["pinwheel"].sample(FixedNumbers(along, across), 1)[0]
        return row

    middle, side = point(0.5, 0.0), point(0.5, 1.0)
    assert np.linalg.norm(middle) == pytest.approx(2 * (1 + 0.3 * 0.5))
    assert np.linalg.norm(side - middle) == pytest.approx(2 * 0.1, rel=1e-4)
    assert (side - middle) @ middle == pytest.approx(0, abs=1e-6)
