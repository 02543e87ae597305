import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.draws import Draw
from fmjax.errors import InputError
from fmjax.sources import (
    Empirical,
    JointSource,
    StandardNormal,
    UniformBox,
    draw_source,
    example_shape,
)

KEY = jax.random.key(1)
INDEX = jnp.arange(4096)
POINTS = np.arange(10, dtype="float32").reshape(5, 2)
JOINT = JointSource({"a": StandardNormal(), "b": UniformBox(2.0, 5.0)})
SHAPES = {"a": (2,), "b": (3,)}
SOURCES = {
    "normal": (StandardNormal(), (2,)),
    "normal tree": (StandardNormal(), SHAPES),
    "uniform": (UniformBox(-1.0, 3.0), (2,)),
    "data": (Empirical(POINTS), (2,)),
    "joint": (JOINT, SHAPES),
}


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize(("source", "shape"), SOURCES.values(), ids=SOURCES)
def test_an_example_is_drawn_by_its_place_in_the_global_batch(source, shape):
    draw = jax.jit(lambda index: draw_source(source, KEY, index, shape))
    whole = draw(INDEX)
    assert example_shape(whole) == shape
    part = draw(INDEX[1000:1010])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1000:1010], b), whole, part)
    for leaf in jax.tree.leaves(whole):
        assert len(np.unique(np.asarray(leaf), axis=0)) > 4


@pytest.mark.parametrize("shape", [(2,), SHAPES], ids=["array", "tree"])
def test_the_parts_of_a_tree_are_independent_standard_normal_numbers(shape):
    x = StandardNormal().sample(KEY, INDEX, shape)
    rows = np.concatenate([np.asarray(leaf).T for leaf in jax.tree.leaves(x)])
    assert np.abs(np.cov(rows) - np.eye(len(rows))).max() < 5 * np.sqrt(2 / 4096)


def test_densities_integrate_to_one():
    grid = jnp.linspace(-8, 8, 4001)[:, None]
    for source in (StandardNormal(), UniformBox(-2.5, 4.0)):
        density = jnp.exp(source.log_prob(grid))
        np.testing.assert_allclose(jnp.sum(density) * 16 / 4000, 1.0, rtol=2e-3)


def test_the_density_of_a_joint_source_is_the_product_of_its_parts():
    x = {"a": jnp.array([[0.5, -1.0]]), "b": jnp.array([[2.5, 3.0, 4.9]])}
    expected = StandardNormal().log_prob(x["a"]) - 3 * math.log(3)
    np.testing.assert_allclose(JOINT.log_prob(x), expected, rtol=1e-6)


def test_a_source_that_is_data_draws_each_point_equally_often():
    drawn = np.asarray(Empirical(POINTS).sample(KEY, INDEX, (2,)))
    rows = (drawn[:, 0] / 2).astype(int)
    np.testing.assert_array_equal(drawn, POINTS[rows])
    counts = np.bincount(rows, minlength=5)
    assert np.sum((counts - 819.2) ** 2 / 819.2) < 18.5  # chi-square, 4 degrees: once in 1000


def test_a_draw_starts_from_its_source():
    args = Draw(source=Empirical(POINTS))(KEY, INDEX, jnp.zeros((4096, 2)))
    assert set(map(tuple, np.asarray(args.x0))) == set(map(tuple, POINTS))


class Wrong(StandardNormal):
    def sample(self, key, index, shape):
        return super().sample(key, index, (*shape, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformBox(1.0, 1.0), "high must be above low"),
        (lambda: UniformBox(0.0, math.inf), "high must be a finite number"),
        (lambda: Empirical(np.zeros((0, 2))), r"arrays \(n, ...\) of one n, at least 1"),
        (lambda: Empirical({"a": np.zeros(3), "b": np.zeros(2)}), "of one n"),
        (lambda: Empirical(POINTS).sample(KEY, INDEX, (3,)), r"have shape \(2,\), and \(3,\)"),
        (lambda: Empirical(POINTS).log_prob(POINTS), "no density"),
        (lambda: JOINT.sample(KEY, INDEX, {"a": (2,)}), "built as the sources are"),
        (
            lambda: Draw(source=Wrong())(KEY, INDEX, jnp.zeros((4096, 2))),
            r"sample of Wrong must return floats .*, \(4096, 2\); got float32 of shape",
        ),
        (
            lambda: Draw(source=Empirical(POINTS))(KEY, INDEX, jnp.zeros((4096, 3))),
            r"the shape of the data",
        ),
    ],
)
def test_sources_that_do_not_fit_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_default_box_is_symmetric_about_zero():
    assert UniformBox() == UniformBox(-1.0, 1.0)
