import jax
import jax.numpy as jnp
import numpy as np

from fmjax.models.rope import axial_rotation, grid_positions, rotate

RNG = np.random.default_rng(0)
SIZES = (2, 4, 6)


def turned(x, positions):
    return np.asarray(rotate(jnp.asarray(x), axial_rotation(positions, SIZES)))


def test_pairs_are_turned_by_position_and_frequency():
    x = RNG.normal(size=(2, 3, 1, 12)).astype(np.float32)
    positions = np.array([[0, 0, 0], [1, 5, 2], [7, 3, 40]])
    pairs = x[..., 0::2] + 1j * x[..., 1::2]
    angles = [p * 10_000.0 ** (-2 * k / n) for p, n in zip(positions.T, SIZES, strict=True)
              for k in range(n // 2)]  # fmt: skip
    expected = pairs * np.exp(1j * np.array(angles)).T[None, :, None, :]
    out = turned(x, positions)
    np.testing.assert_allclose(out[..., 0::2] + 1j * out[..., 1::2], expected, atol=1e-6)


def test_products_depend_on_differences_of_positions():
    q, k = RNG.normal(size=(2, 1, 5, 2, 12)).astype(np.float32)
    positions = RNG.integers(0, 9, (5, 3))

    def products(shift):
        return np.einsum("bqhd,bkhd->bhqk", *(turned(a, positions + shift) for a in (q, k)))

    np.testing.assert_allclose(products([11, 3, 20]), products(0), atol=1e-4)
    assert np.abs(products([11, 3, 20]) - np.einsum("bqhd,bkhd->bhqk", q, k)).max() > 0.1


def test_the_dtype_stays_and_the_products_are_float32():
    x = jnp.asarray(RNG.normal(size=(1, 2, 1, 12)), jnp.bfloat16)
    rotation = axial_rotation(np.ones((2, 3)), SIZES)
    assert rotate(x, rotation).dtype == jnp.bfloat16
    assert "f32[1,2,1,6]" in str(jax.make_jaxpr(lambda x: rotate(x, rotation))(x))


def test_the_grid_goes_row_by_row():
    assert grid_positions(2, 3).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
