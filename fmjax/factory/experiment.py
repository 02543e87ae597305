"""The experiment: everything a configuration stands for, built and so checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray

from fmjax.conditions import ClassIds, nulls
from fmjax.config import ConfigDict
from fmjax.conventions import ApplyFn, Prediction, Span, Velocity, diagonal
from fmjax.data.codecs import Codec, vocabulary_of
from fmjax.data.points import space_of
from fmjax.data.snapshots import SnapshotSplits
from fmjax.data.token_codecs import Tokens
from fmjax.draws import LossArgs
from fmjax.errors import InputError
from fmjax.factory import registry
from fmjax.factory.architecture import Architecture, architecture
from fmjax.factory.data_spec import DataSpec, model_conditions
from fmjax.factory.draw import make_draw
from fmjax.factory.flow_map import (
    check_flow_map,
    divergence_scale,
    dyadic_levels,
    make_flow_map_loss,
    needs_derivative,
)
from fmjax.factory.lora import FROZEN, Lora, adapted, make_lora
from fmjax.factory.manifolds import (
    check_manifold,
    kappa_of,
    make_geodesic_path,
    make_source_on,
)
from fmjax.factory.model import make_model
from fmjax.factory.scale_input import among_labels, at_scale_one
from fmjax.factory.settings import (
    DataSettings,
    EvalSettings,
    TrainSettings,
    check_settings,
)
from fmjax.factory.snapshots import check_snapshots, snapshot_source
from fmjax.factory.tokens import check_tokens, make_token_path, token_network
from fmjax.intervals import on_intervals
from fmjax.losses import LossFn
from fmjax.manifolds import Manifold, in_ambient_space, in_tangent_space
from fmjax.models import adapters
from fmjax.models.flops import training_flops
from fmjax.names import matching
from fmjax.paths import Path, manifold_of, schedule_of
from fmjax.predictions import as_velocity
from fmjax.samplers import Solver
from fmjax.schedules import DiscreteVP, Linear, at_steps
from fmjax.sources import Source, StandardNormal
from fmjax.training.frozen import split
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
        snapshots: of a flow through snapshots: their states; None for any other.
        pairs: the folder of stored pairs that it trains on; None for the data set itself.
        source: where the flow starts.
        source_codec: what points to start from are in a user's file: the data that are the source,
            and states where the source is a distribution.
        path: from the source to the data.
        network: the name of the network.
        model: the network, a Linen module.
        architecture: what its parameters mean beyond their shapes.
        apply_fn: ``apply_fn(params, x, t, labels) -> velocity``, whatever the network predicts; of
            a network of two times its diagonal, which takes spans, too; of one that takes the scale
            of guidance, at w = 1; of tokens the logits of the data.
        scaled_fn: the same of a network that takes the scale, ``{"labels": labels, "guidance": w}``
            in the place of labels; None for any other.
        largest_scale: up to which a flow map learned the scale; None for any other.
        average_fn: of a network of two times all that it gives, at w = 1; None for any other.
        divergence_scale: what the average divergence of the network is divided by; None for a
            network without.
        two_times: whether the network knows two times.
        levels: of a network that learned jumps of 1, 1/2, ..., 2^(1 - levels) alone, each on the
            grid of its own length; None for any other.
        teacher: the run whose flow it learns, or None.
        attention: the kernel that was chosen; None for a network without attention.
        flops: operations of training on one example, or None where they are not known.
        sharding_rules: by which a mesh splits its parameters; see `fmjax.training.sharding`.
        init_params: ``init_params(key) -> params``.
        loss_fn: ``loss_fn(params, x0, x1, t, labels) -> scalar``, of two times with a span for t.
        draw: ``draw(key, batch) -> (x0, x1, t, labels)``; see `fmjax.factory.draw.make_draw`.
        couple: the coupling that the data pipeline computes, or None.
        independent: whether x0 is independent of x1: no coupling, no stored pairs.
        optimizer: the optax transformation.
        frozen: patterns of the parameters that are not trained.
        learning_rate: its schedule, by step.
        mesh: how many devices along each axis.
        train: how long to train, and how often to report.
        lora: the adapters that are trained, beside a network that is frozen; None for none. The
            parameters are then a pair, see `fmjax.training.lora.with_base`.
        adapted: of a run of LoRA that is opened, whose parameters are merged: the experiment that
            trained it; None for any other.
        evaluation: of what size the final evaluation is.
        conditions: what the labels of the model are, with their nulls and drop rates; None for an
            unconditional one.
        solver: how samples are drawn unless asked otherwise.
        guidance_scale: the scale w of samples with labels unless asked otherwise.
    """

    spec: DataSpec
    data: DataSettings
    snapshots: SnapshotSplits | None
    pairs: str | None
    source: Source
    source_codec: Codec
    path: Path
    network: str
    model: Any
    architecture: Architecture
    apply_fn: ApplyFn
    scaled_fn: ApplyFn | None
    largest_scale: float | None
    average_fn: ApplyFn | None
    divergence_scale: float | None
    two_times: bool
    levels: int | None
    teacher: str | None
    attention: str | None
    flops: int | None
    sharding_rules: Rules
    init_params: Callable[[PRNGKeyArray], Any]
    loss_fn: LossFn
    draw: Callable[..., LossArgs]
    couple: Callable | None
    independent: bool
    optimizer: optax.GradientTransformation
    frozen: tuple[str, ...]
    learning_rate: Callable[[Any], Any]
    mesh: MeshSizes
    train: TrainSettings
    lora: Lora | None
    evaluation: EvalSettings
    conditions: Any
    solver: Solver
    guidance_scale: float
    adapted: "Experiment | None" = None

    @property
    def classes(self) -> ClassIds | None:
        """The classes, where the labels of the model are one array of class ids."""
        return self.conditions if isinstance(self.conditions, ClassIds) else None

    @property
    def vocabulary(self) -> int | None:
        """How many tokens there are, of a flow of tokens; None for one of numbers."""
        return vocabulary_of(self.spec.codec)

    @property
    def manifold(self) -> Manifold | None:
        """Where the points are, of a flow on a manifold; None in flat space."""
        return space_of(self.spec.codec)

    @property
    def has_score(self) -> bool:
        """Whether the velocity tells the score: x0 is standard normal and independent of x1."""
        return isinstance(self.source, StandardNormal) and self.independent


def make_experiment(
    config: ConfigDict,
    spec: DataSpec,
    portable: bool = False,
    teacher: Velocity | None = None,
    snapshots: SnapshotSplits | None = None,
) -> Experiment:
    """Builds everything, and so checks everything, without computing anything on a device.

    Args:
        config: every key.
        spec: of the data.
        portable: as in `fmjax.factory.model.make_model`: for what is exported, or needs
            forward-mode derivatives.
        teacher: the velocity of ``flow_map.teacher``, as `fmjax.run.teacher` reads it; it is needed
            to train, and for nothing else.
        snapshots: of a flow through snapshots: their states, where they have been read; else they
            are read here.

    Raises:
        InputError: a name is unknown, or a value does not fit; each says what to write.
    """
    check_settings(config)
    _check_data(config, spec)
    conditions = model_conditions(config, spec)
    check_flow_map(config, conditions)
    check_snapshots(config, spec)
    check_tokens(config, spec)
    check_manifold(config, spec)
    if spec.timeline is not None and snapshots is None:
        snapshots = DataSettings(**config.data).load().snapshots
    path, source, source_codec = _ends(config, spec, snapshots)
    vocabulary = vocabulary_of(spec.codec)
    model = make_model(config, conditions, portable, vocabulary)
    lora = make_lora(config)
    if vocabulary is None:
        network, example = _network(config, model, spec, path)
    else:  # logits take the place of a velocity
        network, example = token_network(config, model, spec)
    network = adapted(network, lora)
    velocity = network if vocabulary else _velocity(network, path, config.loss.prediction)
    scaled = average = None
    if config.model.guidance_scale is not None:
        network = among_labels(network, config.model.guidance_scale)
        scaled = velocity = among_labels(velocity, 1.0)
    two_times = registry.is_flow_map(config)
    scale = divergence_scale(config, spec.shape)
    if two_times:
        smooth = _differentiable(config, conditions, model)
        average = _average(network, path, config.loss.prediction)
        loss_fn = make_flow_map_loss(
            config,
            average,
            smooth
            and _average(
                adapted(_network(config, smooth, spec, path)[0], lora),
                path,
                config.loss.prediction,
            ),
            path,
            conditions,
            teacher,
            scale,
        )
        velocity = diagonal(velocity)
        if config.flow_map.guidance_max is not None:
            scaled, velocity, average = velocity, *map(at_scale_one, (velocity, average))
    else:
        local = network if spec.timeline is None else on_intervals(network)
        curved = manifold_of(path)
        if curved is not None and config.loss.prediction == "velocity":
            local = in_tangent_space(local, curved)
        loss_fn = registry.make_configured_loss_fn(config, local, path)
    init_params = _make_init(config, model, example, conditions)
    init_params = init_params if lora is None else lora.init(init_params)
    abstract = jax.eval_shape(init_params, jax.random.key(0))  # the network accepts these shapes
    learning_rate, optimizer = _make_optimizer(config)
    return Experiment(
        spec=spec,
        data=DataSettings(**config.data),
        snapshots=snapshots,
        pairs=config.coupling.dir if config.coupling.name == "pairs" else None,
        source=source,
        source_codec=source_codec,
        path=path,
        network=config.model.name,
        model=model,
        architecture=architecture(config, model),
        apply_fn=velocity,
        scaled_fn=scaled,
        largest_scale=config.flow_map.guidance_max,
        average_fn=average,
        divergence_scale=scale,
        two_times=two_times,
        levels=dyadic_levels(config),
        teacher=config.flow_map.teacher,
        attention=getattr(model, "attention", None),
        flops=None if two_times else training_flops(model, example.shape),
        sharding_rules=getattr(model, "sharding_rules", ()),
        init_params=init_params,
        loss_fn=loss_fn,
        draw=make_draw(config, spec, conditions, source, loss_fn.noise),
        couple=registry.make_host_coupling(config, conditions, source),
        independent=config.coupling.name == "independent" and spec.timeline is None,
        optimizer=optimizer,
        frozen=_frozen(config, abstract),
        learning_rate=learning_rate,
        mesh=MeshSizes(**config.mesh),
        train=TrainSettings(**config.train),
        lora=lora,
        evaluation=EvalSettings(**config.eval),
        conditions=conditions,
        solver=_usual_solver(config, spec, path),
        guidance_scale=registry.usual_scale(config),
    )


def _ends(
    config: ConfigDict, spec: DataSpec, snapshots: SnapshotSplits | None
) -> tuple[Path, Source, Codec]:
    """The path, where it starts, and what points to start from are in a user's file."""
    vocabulary = vocabulary_of(spec.codec)
    if vocabulary is not None:
        tokens = make_token_path(config, vocabulary)
        return tokens, tokens.source, Tokens(spec.shape, tokens.states)
    registry.check_source_data(config)
    space = space_of(spec.codec)
    if space is not None:
        return make_geodesic_path(config, space), make_source_on(config, spec), spec.codec
    path = registry.make_path(config)
    if snapshots is not None:
        return path, snapshot_source(snapshots), spec.codec
    return path, registry.make_source(config, spec), registry.make_source_codec(config, spec)


def _network(
    config: ConfigDict, model: Any, spec: DataSpec, path: Path
) -> tuple[ApplyFn, jax.ShapeDtypeStruct]:
    """A network of numbers as one of states and times, and one example as the module takes it."""
    manifold, prediction = space_of(spec.codec), config.loss.prediction
    network = _at_steps(config, adapters.from_linen(model), path)
    if manifold is None:
        return network, jax.ShapeDtypeStruct(spec.shape, jnp.float32)
    if prediction in ("velocity", "x1"):  # of any other the loss says that there is none
        network = in_ambient_space(network, manifold, prediction)
    return network, jax.ShapeDtypeStruct(manifold.ambient_shape, jnp.float32)


def _at_steps(config: ConfigDict, network: ApplyFn, path: Path) -> ApplyFn:
    """The network as a function of times."""
    if not config.model.at_steps:
        return network
    schedule = schedule_of(path)
    if not isinstance(schedule, DiscreteVP) or registry.is_flow_map(config):
        raise InputError(
            "model.at_steps=True asks the network at the steps of a diffusion, and needs path.name="
            f"discrete_vp and flow_map.name=none; got path.name={config.path.name!r} and "
            f"flow_map.name={config.flow_map.name!r}."
        )
    return at_steps(network, schedule)


def _usual_solver(config: ConfigDict, spec: DataSpec, path: Path) -> Solver:
    curved = space_of(spec.codec) is not None
    solver = registry.make_usual_solver(config, vocabulary_of(spec.codec) is not None, curved)
    if curved:
        solver.on_path(path)  # refuses what steps in the signal-to-noise ratio
    return solver


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


def _make_init(
    config: ConfigDict, model: Any, example: jax.ShapeDtypeStruct, conditions: Any
) -> Callable[[PRNGKeyArray], Any]:
    def init_params(key: PRNGKeyArray) -> Any:
        labels = jax.tree.map(jnp.asarray, nulls(conditions, 1))
        if config.flow_map.guidance_max is not None:
            labels = {"labels": labels, "guidance": jnp.ones((1,))}
        if config.model.guidance_scale is not None:
            labels = {**labels, "guidance": jnp.ones((1,))}
        start = jnp.zeros((1,))
        t = Span(start, start) if registry.is_flow_map(config) else start
        x = jnp.zeros((1, *example.shape), example.dtype)
        return model.init(key, x, t, labels)["params"]

    return init_params


def _average(network: ApplyFn, path: Path, prediction: Prediction) -> ApplyFn:
    """The network as one that predicts average velocities, with all that it gives beside them."""
    if prediction != "velocity":
        return _velocity(network, path, prediction)
    manifold = manifold_of(path)
    return network if manifold is None else in_tangent_space(network, manifold)


def _differentiable(config: ConfigDict, conditions: Any, model: Any) -> Any:
    """The network in float32 and with a forward-mode derivative; None where it is so already."""
    if not needs_derivative(config):
        return None
    smooth = make_model(config, conditions, portable=True)
    if getattr(smooth, "dtype", None) is not None:
        smooth = smooth.clone(dtype=jnp.float32)
    return None if smooth == model else smooth


def _velocity(network: ApplyFn, path: Path, prediction: Prediction) -> ApplyFn:
    """The network as one that predicts velocities, of a part of what it gives."""
    manifold = manifold_of(path)
    if manifold is not None:
        return as_velocity(network, kappa_of(path) or Linear(), prediction, manifold=manifold)
    schedule = schedule_of(path)
    return as_velocity(network, Linear() if schedule is None else schedule, prediction)


def _frozen(config: ConfigDict, params: Any) -> tuple[str, ...]:
    """The patterns of ``train.frozen``, which match some parameters and leave some; or LoRA's."""
    if config.lora.rank:
        return FROZEN
    patterns = tuple(config.train.frozen.split(",")) if config.train.frozen else ()
    matching(patterns, params, "train.frozen")
    split(params, patterns)
    return patterns


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
