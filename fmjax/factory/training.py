"""From an experiment to what training compiles: the state before the first step, and the step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from fmjax.factory.experiment import Experiment
from fmjax.training.parallelism import Jit, Pmap
from fmjax.training.sharding import state_shardings
from fmjax.training.state import TrainState, init_state
from fmjax.training.step import Step, make_step


def train_step(experiment: Experiment, layout: Jit | Pmap) -> Step:
    """The step of an experiment, for its layout to compile."""
    return make_step(
        experiment.loss_fn,
        partial(experiment.draw, layout=layout),
        experiment.optimizer,
        ema=experiment.train.ema,
        accumulate=experiment.train.accumulate,
        axis_name=layout.axis_name,
        learning_rate=experiment.learning_rate,
        frozen=experiment.frozen,
    )


def make_init(experiment: Experiment) -> Callable[[PRNGKeyArray], TrainState]:
    """``init(key)``, the state before the first step."""
    return lambda key: init_state(
        experiment.init_params(key), experiment.optimizer, frozen=experiment.frozen
    )


def abstract_params(experiment: Experiment) -> Any:
    """Shapes and dtypes of the parameters, nothing allocated."""
    return jax.eval_shape(experiment.init_params, jax.random.key(0))


def abstract_state(experiment: Experiment, mesh: jax.sharding.Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state, nothing allocated."""
    abstract = jax.eval_shape(make_init(experiment), jax.random.key(0))
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        abstract,
        state_shardings(abstract, mesh, experiment.sharding_rules),
    )
