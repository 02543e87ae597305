"""States of several arrays are guided array by array."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.guidance import (
    Between,
    Guided,
    Rescale,
    autoguidance,
    classifier_free,
    interpolated,
)

NULL = 3
RNG = np.random.default_rng(0)
X = {"at": RNG.normal(size=(4, 2)).astype("f4"), "turn": RNG.normal(size=(4, 3, 3)).astype("f4")}
LABELS, SCALES = np.array([0, 1, 2, 0]), np.array([0.0, 1.0, 2.5, -1.0], np.float32)
TIMES = np.array([0.05, 0.3, 0.5, 0.9], np.float32)


def of_one(x, t, labels):
    """A velocity of one array, which knows no other."""
    t, labels = (jnp.reshape(a, (-1, *[1] * (x.ndim - 1))) for a in (t, labels))
    return jnp.sin(x * (1 + labels)) + t * x


def velocity(x, t, labels):
    return {name: of_one(leaf, t, labels) for name, leaf in x.items()}


def weaker(field):
    return lambda x, t, labels: jax.tree.map(lambda u: 0.5 * u + 1, field(x, t, labels))


WAYS = {
    "linear": lambda field: classifier_free(field, NULL),
    "rescale": lambda field: classifier_free(field, NULL, rule=Rescale()),
    "interval": lambda field: classifier_free(field, NULL, interval=(0.2, 0.6)),
    "zero_until": lambda field: classifier_free(field, NULL, zero_until=0.2),
    "weak": lambda field: autoguidance(field, weaker(field)),
    "weak, interval": lambda field: autoguidance(field, weaker(field), interval=(0.2, 0.6)),
}


def assert_leaf_by_leaf(way, conditions):
    u = jax.jit(way(velocity))(X, TIMES, conditions)
    assert u.keys() == X.keys()
    for name, x in X.items():
        alone = jax.jit(way(of_one))(x, TIMES, conditions)
        np.testing.assert_allclose(u[name], alone, rtol=1e-6, atol=1e-6, err_msg=name)
    return u


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_velocity_of_a_dictionary_is_that_of_each_array(way):
    u = assert_leaf_by_leaf(WAYS[way], Guided(LABELS, SCALES))
    still = [np.all(leaf[0] == 0) for leaf in jax.tree.leaves(u)]
    assert still == [way == "zero_until"] * 2


def test_several_conditions_are_added_array_by_array():
    conditions = Guided(LABELS, SCALES), Guided(np.array([1, 1, 0, 2]), 0.5)
    assert_leaf_by_leaf(WAYS["linear"], conditions)


def test_an_interpolation_is_made_array_by_array():
    conditions = Between(LABELS, np.array([1, 1, 0, 2]), np.linspace(0, 1, 4, dtype="f4"))
    for how in ("linear", "spherical"):
        assert_leaf_by_leaf(lambda field, how=how: interpolated(field, how), conditions)


def test_every_array_keeps_its_precision():
    with jax.enable_x64(True):
        x = {"at": jnp.asarray(X["at"]), "turn": jnp.asarray(X["turn"], "float64")}
        x["half"] = jnp.asarray(X["at"], "bfloat16")
        u = classifier_free(velocity, NULL, interval=(0.2, 0.6))(x, TIMES, Guided(LABELS, SCALES))
    dtypes = {name: str(leaf.dtype) for name, leaf in u.items()}
    assert dtypes == {"at": "float32", "half": "float32", "turn": "float64"}
