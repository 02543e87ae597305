"""The fingerprint of a tree sees every bit and every change of place."""

import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.storage.fingerprint import fingerprint


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8])
def test_the_fingerprint_sees_every_bit(dtype):
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (6, jnp.dtype(dtype).itemsize), np.uint8)
    whole = int(fingerprint([jnp.asarray(raw.view(dtype))]))
    for byte in range(raw.size):
        for bit in range(8):
            changed = raw.copy()
            changed.reshape(-1)[byte] ^= 1 << bit
            assert int(fingerprint([jnp.asarray(changed.view(dtype))])) != whole


def test_the_fingerprint_sees_values_and_leaves_change_places():
    a, b = jnp.arange(1.0, 7.0), jnp.arange(2.0, 8.0)
    assert int(fingerprint([a, b])) != int(fingerprint([b, a]))
    assert int(fingerprint([a, b])) != int(fingerprint([a[::-1], b]))
