"""The frames of an animation."""

import numpy as np
import pytest

from fmjax.factory import Recipe
from fmjax.run.sample.trajectory import _times
from fmjax.samplers import solver_spec


@pytest.mark.parametrize(("steps", "frames"), [(3, 4), (39, 40), (40, 41), (41, 41), (500, 41)])
def test_an_animation_shows_every_node_or_41_of_them(steps, frames):
    recipe = Recipe(solver_spec("euler", steps), None)
    times = _times(recipe)
    assert (len(times), times[0], times[-1]) == (frames, 0, 1)
    assert set(times) <= set(np.linspace(0, 1, steps + 1))
    assert np.all(np.diff(times) < 2.0 / (frames - 1))


def test_an_animation_of_adaptive_steps_shows_equal_times():
    recipe = Recipe(solver_spec("heun", rtol=1e-3), None, 0.25, 0.75)
    np.testing.assert_allclose(_times(recipe), np.linspace(0.25, 0.75, 41))
