"""The second point of a loss between consistency and flow matching."""

import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.flow_maps import ECTSteps


@pytest.mark.parametrize("step", [0, 9_999, 10_000, 35_000, 10**7, None])
def test_the_noise_level_of_easy_consistency_tuning_is_its_formula(step):
    s = np.linspace(0.05, 1, 20)
    stage = 8 if step is None else min(step // 10_000, 8)
    sigma = (1 - s) / s
    r = sigma * np.maximum(1 - 2.0 ** -(stage + 1) * (1 + 8 / (1 + np.exp(sigma))), 0)
    later = np.asarray(ECTSteps()(jnp.asarray(s, jnp.float32), step))
    np.testing.assert_allclose(later, 1 / (1 + r), rtol=1e-5)
    assert np.all((later >= s * (1 - 1e-6)) & (later <= 1))
    assert ECTSteps()(jnp.zeros(1), step) == 0  # all noise stays all noise
