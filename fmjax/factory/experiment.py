"""The experiment: everything a configuration stands for, built and so checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fmjax.conditions import ClassIds, nulls
from fmjax.config import ConfigDict
from fmjax.conventions import ApplyFn
from fmjax.draws import LossArgs
from fmjax.errors import InputError
from fmjax.factory import registry
from fmjax.factory.architecture import Architecture, architecture
from fmjax.factory.data_spec import DataSpec, model_conditions
from fmjax.factory.draw import make_draw
from fmjax.factory.model import make_model
from fmjax.factory.settings import (
    DataSettings,
    EvalSettings,
    TrainSettings,
    check_settings,
)
from fmjax.losses import LossFn
from fmjax.models import adapters
from fmjax.models.flops import training_flops
from fmjax.paths import Path, schedule_of
from fmjax.predictions import as_velocity
from fmjax.samplers import Solver
from fmjax.schedules import Linear
from fmjax.sources import Source, StandardNormal
from fmjax.training.mesh import MeshSizes
from fmjax.training.optimizer import learning_rate_schedule, make_optimizer
from fmjax.training.sharding import Rules


@dataclass(frozen=True, eq=False)
class Experiment:
    """Everything a configuration stands for, so that nobody asks the configuration again.

    Two of them are never equal, so that one can be a key of compiled programs.

    Attributes:
        spec: the data it is for.
        data: which data set, and how it is read.
        pairs: the folder of stored pairs that it trains on; None for the data set itself.
        source: where the flow starts.
        path: from the source to the data.
        network: the name of the network.
        architecture: what its parameters mean beyond their shapes.
        apply_fn: ``apply_fn(params, x, t, labels) -> velocity``, whatever the network predicts.
        attention: the kernel that was chosen; None for a network without attention.
        flops: operations of training on one example, or None where they are not known.
        sharding_rules: by which a mesh splits its parameters; see `fmjax.training.sharding`.
        init_params: ``init_params(key) -> params``.
        loss_fn: ``loss_fn(params, x0, x1, t, labels) -> scalar``.
        draw: ``draw(key, batch) -> (x0, x1, t, labels)``; see `fmjax.factory.draw.make_draw`.
        couple: the coupling that the data pipeline computes, or None.
        independent: whether x0 is independent of x1: no coupling, no stored pairs.
        optimizer: the optax transformation.
        learning_rate: its schedule, by step.
        mesh: how many devices along each axis.
        train: how long to train, and how often to report.
        evaluation: of what size the final evaluation is.
        conditions: what the labels of the model are, with their nulls and drop rates; None for an
            unconditional one.
        solver: how samples are drawn unless asked otherwise.
        guidance_scale: the scale w of samples with labels unless asked otherwise.
    """

    spec: DataSpec
    data: DataSettings
    pairs: str | None
    source: Source
    path: Path
    network: str
    architecture: Architecture
    apply_fn: ApplyFn
    attention: str | None
    flops: int | None
    sharding_rules: Rules
    init_params: Callable[[jax.Array], Any]
    loss_fn: LossFn
    draw: Callable[..., LossArgs]
    couple: Callable | None
    independent: bool
    optimizer: optax.GradientTransformation
    learning_rate: Callable[[int], float]
    mesh: MeshSizes
    train: TrainSettings
    evaluation: EvalSettings
    conditions: Any
    solver: Solver
    guidance_scale: float

    @property
    def classes(self) -> ClassIds | None:
        """The classes, where the labels of the model are one array of class ids."""
        return self.conditions if isinstance(self.conditions, ClassIds) else None

    @property
    def has_score(self) -> bool:
        """Whether the velocity tells the score: x0 is standard normal and independent of x1."""
        return isinstance(self.source, StandardNormal) and self.independent


def make_experiment(config: ConfigDict, spec: DataSpec, portable: bool = False) -> Experiment:
    """Builds everything, and so checks everything, without computing anything on a device.

    Args:
        config: every key.
        spec: of the data.
        portable: as in `fmjax.factory.model.make_model`: for what is exported, or needs
            forward-mode derivatives.

    Raises:
        InputError: a name is unknown, or a value does not fit; each says what to write.
    """
    check_settings(config)
    _check_data(config, spec)
    conditions = model_conditions(config, spec)
    source, path = registry.make_source(config, spec), registry.make_path(config)
    model = make_model(config, conditions, portable)
    network = adapters.from_linen(model)
    loss_fn = registry.make_configured_loss_fn(config, network, path)
    init_params = _make_init(model, spec, conditions)
    jax.eval_shape(init_params, jax.random.key(0))  # the network accepts these shapes
    learning_rate, optimizer = _make_optimizer(config)
    s = config.sample
    return Experiment(
        spec=spec,
        data=DataSettings(**config.data),
        pairs=config.coupling.dir if config.coupling.name == "pairs" else None,
        source=source,
        path=path,
        network=config.model.name,
        architecture=architecture(config, model),
        apply_fn=_velocity(network, path, config.loss.prediction),
        attention=getattr(model, "attention", None),
        flops=training_flops(model, spec.shape),
        sharding_rules=getattr(model, "sharding_rules", ()),
        init_params=init_params,
        loss_fn=loss_fn,
        draw=make_draw(config, spec, conditions, source, loss_fn.noise),
        couple=registry.make_host_coupling(config, conditions, source),
        independent=config.coupling.name == "independent",
        optimizer=optimizer,
        learning_rate=learning_rate,
        mesh=MeshSizes(**config.mesh),
        train=TrainSettings(**config.train),
        evaluation=EvalSettings(**config.eval),
        conditions=conditions,
        solver=registry.make_solver(s.solver, s.steps, shift=s.shift),
        guidance_scale=s.guidance,
    )


def _check_data(config: ConfigDict, spec: DataSpec) -> None:
    if config.data.dequantize and spec.codec.bin_width is None:
        raise InputError(
            f"data.name={config.data.name!r} has no pixels to dequantise; "
            "write data.dequantize=False."
        )
    if config.coupling.name == "pairs" and config.data.flip:
        raise InputError(
            "stored pairs cannot be flipped, half of each alone; data.flip must be off."
        )


def _make_init(model: Any, spec: DataSpec, conditions: Any) -> Callable[[jax.Array], Any]:
    def init_params(key: jax.Array) -> Any:
        labels = jax.tree.map(jnp.asarray, nulls(conditions, 1))
        return model.init(key, jnp.zeros((1, *spec.shape)), jnp.zeros((1,)), labels)["params"]

    return init_params


def _velocity(network: ApplyFn, path: Path, prediction: str) -> ApplyFn:
    """The network as one that predicts velocities, of a part of what it gives."""
    schedule = schedule_of(path)
    return as_velocity(network, Linear() if schedule is None else schedule, prediction)


def _make_optimizer(config: ConfigDict) -> tuple[Callable, optax.GradientTransformation]:
    """The schedule of the learning rate, and the optimiser that follows it."""
    o = config.optimizer
    learning_rate = learning_rate_schedule(
        o.learning_rate, config.train.steps, o.warmup_steps, o.schedule
    )
    return learning_rate, make_optimizer(
        learning_rate,
        b1=o.b1,
        b2=o.b2,
        weight_decay=o.weight_decay,
        clip_norm=o.clip_norm or None,
        skip_above=o.skip_above or None,
    )
