"""Manifolds against geomstats: the numbers of tests/golden/manifolds.npz, in float64."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.manifolds import SO3, SPD, Hyperbolic, Sphere

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "manifolds.npz"
MANIFOLDS = {"sphere": Sphere(3), "hyperbolic": Hyperbolic(3), "spd": SPD(3), "so3": SO3()}


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", MANIFOLDS)
def test_the_same_as_geomstats(name):
    manifold = MANIFOLDS[name]
    stored = np.load(GOLDEN)
    with jax.enable_x64(True):
        given = {
            key.partition("/")[2]: jnp.asarray(stored[key])
            for key in stored
            if key.startswith(f"{name}/")
        }
        x, y, u, v = (given[key] for key in "xyuv")
        found = {
            "log": manifold.log(x, y),
            "exp": manifold.exp(x, 0.5 * u),
            "inner": manifold.inner(x, u, v),
            "dist": manifold.dist(x, y),
            "transport": manifold.transport(x, y, u),
        }
        assert len(given) >= 8
        for key in found.keys() & given.keys():
            np.testing.assert_allclose(found[key], given[key], rtol=1e-7, atol=1e-9, err_msg=key)
