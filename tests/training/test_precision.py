"""The policy of 16 bits: what a bfloat16 model keeps in float32, from the draw to the state."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import ClassIds
from fmjax.config import default_config
from fmjax.data.codecs import Pixels
from fmjax.factory import DataSpec, make_experiment
from fmjax.factory.training import make_init, train_step
from fmjax.training.parallelism import make_layout


@pytest.fixture(scope="module")
def experiment_and_config():
    config = default_config()
    config.model.update(
        {"name": "dit", "patch_size": 4, "width": 32, "depth": 2, "heads": 2, "dtype": "bfloat16"}
    )
    return make_experiment(config, DataSpec(Pixels((8, 8, 1)), ClassIds(10))), config


BATCH = {
    "x1": np.zeros((4, 8, 8, 1), np.uint8),
    "labels": np.zeros(4, np.int32),
    "index": np.arange(4, dtype=np.int32),
}


def floating(tree):
    return {x.dtype for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)}


@pytest.mark.slow
def test_state_data_loss_and_gradients_are_float32(experiment_and_config):
    experiment, _ = experiment_and_config
    state = jax.eval_shape(make_init(experiment), jax.random.key(0))
    step = train_step(experiment, make_layout("jit"))
    new, metrics = jax.eval_shape(step, state, jax.random.key(1), BATCH)
    for name in ("params", "ema_params", "opt_state"):
        assert floating(getattr(new, name)) == {jnp.dtype(jnp.float32)}, name
    assert floating(metrics) == {jnp.dtype(jnp.float32)}
    args = jax.eval_shape(experiment.draw, jax.random.key(0), BATCH)
    assert floating(args) == {jnp.dtype(jnp.float32)}  # x0, x1 and t
    gradients = jax.eval_shape(jax.grad(experiment.loss_fn), state.params, *args)
    assert floating(gradients) == {jnp.dtype(jnp.float32)}


def test_the_velocity_and_the_state_of_a_solver_are_float32(experiment_and_config):
    from fmjax.samplers import solve, solver_spec

    experiment, _ = experiment_and_config
    params = jax.eval_shape(experiment.init_params, jax.random.key(0))
    x0, labels = jnp.zeros((4, 8, 8, 1)), jnp.zeros(4, jnp.int32)
    seen = []

    def watched(params, x, t, labels):
        velocity = experiment.apply_fn(params, x, t, labels)
        seen.extend([x.dtype, t.dtype, velocity.dtype])
        return velocity

    solution = jax.eval_shape(
        lambda p: solve(partial(watched, p), x0, labels, solver_spec("heun", 2)), params
    )
    assert set(seen) == {jnp.dtype(jnp.float32)}
    assert solution.x1.dtype == jnp.float32
