"""The experiment: everything a configuration stands for, built and so checked."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fmjax.checks import check_between, check_finite_number
from fmjax.conditions import ClassIds, nulls
from fmjax.config import ConfigDict
from fmjax.conventions import ApplyFn
from fmjax.data.dataset import Dataset
from fmjax.draws import LossArgs
from fmjax.errors import InputError
from fmjax.factory import registry
from fmjax.factory.draw import make_draw
from fmjax.factory.model import make_model
from fmjax.factory.settings import (
    DataSettings,
    EvalSettings,
    TrainSettings,
    data_settings,
    eval_settings,
    train_settings,
)
from fmjax.losses import LossFn
from fmjax.models import adapters
from fmjax.models.flops import training_flops
from fmjax.paths import Path
from fmjax.predictions import as_velocity
from fmjax.samplers.ode import SolverSpec, solver_spec
from fmjax.training.mesh import MeshSizes
from fmjax.training.optimizer import learning_rate_schedule, make_optimizer
from fmjax.training.sharding import Rules


class DataSpec(NamedTuple):
    """What a model has to know of its data.

    Attributes:
        shape: the shape of one example: (H, W, C) for images, (D,) for points.
        num_classes: how many classes the labels have, or None.
        class_names: their names, or None.
    """

    shape: tuple[int, ...]
    num_classes: int | None
    class_names: tuple[str, ...] | None = None

    @property
    def is_image(self) -> bool:
        """Whether examples are uint8 images rather than float points."""
        return len(self.shape) == 3


def spec_of(dataset: Dataset) -> DataSpec:
    """What a model has to know of a data set."""
    return DataSpec(dataset.shape, dataset.num_classes, dataset.class_names)


class Experiment(NamedTuple):
    """Everything a configuration stands for, so that nobody asks the configuration again.

    Attributes:
        spec: the data it is for.
        data: which data set, and how it is read.
        pairs: the folder of stored pairs that it trains on; None for the data set itself.
        path: from noise to data.
        network: the name of the network.
        apply_fn: ``apply_fn(params, x, t, labels) -> velocity``, whatever the network predicts.
        attention: the kernel that was chosen; None for a network without attention.
        flops: operations of training on one example, or None where they are not known.
        sharding_rules: by which a mesh splits its parameters; see `fmjax.training.sharding`.
        init_params: ``init_params(key) -> params``.
        loss_fn: ``loss_fn(params, x0, x1, t, labels) -> scalar``.
        draw: ``draw(key, batch) -> (x0, x1, t, labels)``; see `fmjax.factory.draw.make_draw`.
        couple: the coupling that the data pipeline computes, or None.
        optimizer: the optax transformation.
        learning_rate: its schedule, by step.
        mesh: how many devices along each axis.
        train: how long to train, and how often to report.
        evaluation: of what size the final evaluation is.
        num_classes: of the conditional model; None for an unconditional one.
        null_label: the class id that stands for no class; None for an unconditional model.
        solver: how samples are drawn unless asked otherwise.
        guidance_scale: the scale w of samples with labels unless asked otherwise.
    """

    spec: DataSpec
    data: DataSettings
    pairs: str | None
    path: Path
    network: str
    apply_fn: ApplyFn
    attention: str | None
    flops: int | None
    sharding_rules: Rules
    init_params: Callable[[jax.Array], Any]
    loss_fn: LossFn
    draw: Callable[..., LossArgs]
    couple: Callable | None
    optimizer: optax.GradientTransformation
    learning_rate: Callable[[int], float]
    mesh: MeshSizes
    train: TrainSettings
    evaluation: EvalSettings
    num_classes: int | None
    null_label: int | None
    solver: SolverSpec
    guidance_scale: float


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
    _check_data(config, spec)
    train, evaluation = train_settings(config), eval_settings(config)
    null_label = _null_label(config, spec)
    num_classes = None if null_label is None else spec.num_classes
    conditions = _conditions(config, num_classes, null_label)
    model = make_model(config, conditions, portable)
    network, path = adapters.from_linen(model), registry.make_path(config)
    init_params = _make_init(model, spec, conditions)
    jax.eval_shape(init_params, jax.random.key(0))  # the network accepts these shapes
    learning_rate, optimizer = _make_optimizer(config)
    s = config.sample
    check_finite_number("the guidance scale", s.guidance)
    return Experiment(
        spec=spec,
        data=data_settings(config),
        pairs=config.coupling.dir if config.coupling.name == "pairs" else None,
        path=path,
        network=config.model.name,
        apply_fn=_velocity(network, path, config.loss.prediction),
        attention=getattr(model, "attention", None),
        flops=training_flops(model, spec.shape),
        sharding_rules=getattr(model, "sharding_rules", ()),
        init_params=init_params,
        loss_fn=registry.make_configured_loss_fn(config, network, path),
        draw=make_draw(config, null_label, path.stochastic),
        couple=registry.make_host_coupling(config, null_label is not None),
        optimizer=optimizer,
        learning_rate=learning_rate,
        mesh=MeshSizes(**config.mesh),
        train=train,
        evaluation=evaluation,
        num_classes=num_classes,
        null_label=null_label,
        solver=solver_spec(s.solver, s.steps, shift=s.shift),
        guidance_scale=s.guidance,
    )


def _check_data(config: ConfigDict, spec: DataSpec) -> None:
    if config.data.dequantize and not spec.is_image:
        raise InputError(
            f"data.name={config.data.name!r} has no pixels to dequantise; "
            "write data.dequantize=False."
        )
    if config.coupling.name == "pairs" and config.data.flip:
        raise InputError(
            "stored pairs cannot be flipped, half of each alone; data.flip must be off."
        )


def _null_label(config: ConfigDict, spec: DataSpec) -> int | None:
    if not config.labels.conditional:
        return None
    if spec.num_classes is None:
        raise InputError(
            f"data.name={config.data.name!r} has no labels; write labels.conditional=False."
        )
    null = spec.num_classes if config.labels.null is None else config.labels.null
    check_between("labels.null, a class or the number of classes,", null, 0, spec.num_classes)
    return null


def _conditions(
    config: ConfigDict, num_classes: int | None, null_label: int | None
) -> ClassIds | None:
    """What the labels of the model are; None for an unconditional one."""
    if num_classes is None:
        return None
    return ClassIds(num_classes, null=null_label, drop_rate=config.labels.drop_rate)


def _make_init(model: Any, spec: DataSpec, conditions: Any) -> Callable[[jax.Array], Any]:
    def init_params(key: jax.Array) -> Any:
        x = jnp.zeros((1, *spec.shape))
        return model.init(key, x, jnp.zeros((1,)), nulls(conditions, 1))["params"]

    return init_params


def _velocity(network: ApplyFn, path: Path, prediction: str) -> ApplyFn:
    return network if path.stochastic else as_velocity(network, path.schedule, prediction)


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
