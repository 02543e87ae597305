"""The experiment: everything a configuration stands for, built and so checked."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fmjax.config import ConfigDict
from fmjax.conventions import ApplyFn
from fmjax.data import pixels
from fmjax.draws import Draw, LossArgs, example_keys
from fmjax.errors import InputError, unknown_name
from fmjax.factory import registry
from fmjax.losses import LossFn
from fmjax.models import adapters, dit, mlp
from fmjax.models.attention import choose_attention
from fmjax.models.flops import forward_flops, training_flops
from fmjax.paths import Path
from fmjax.predictions import as_velocity
from fmjax.samplers.ode import SolverSpec, solver_spec
from fmjax.training.mesh import row_shards
from fmjax.training.optimizer import learning_rate_schedule, make_optimizer

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


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


class Experiment(NamedTuple):
    """Everything a configuration stands for.

    Attributes:
        spec: the data it is for.
        path: from noise to data.
        apply_fn: ``apply_fn(params, x, t, labels) -> velocity``, whatever the network predicts.
        attention: the kernel that was chosen; None for a network without attention.
        flops: operations of training on one example, or None where they are not known.
        init_params: ``init_params(key) -> params``.
        loss_fn: ``loss_fn(params, x0, x1, t, labels) -> scalar``.
        draw: ``draw(key, batch) -> (x0, x1, t, labels)``; see `make_draw`.
        couple: the coupling that the data pipeline does, or None.
        optimizer: the optax transformation.
        learning_rate: its schedule, by step.
        num_classes: of the conditional model; None for an unconditional one.
        null_label: the class id that stands for no class; None for an unconditional model.
        solver: how samples are drawn unless asked otherwise.
    """

    spec: DataSpec
    path: Path
    apply_fn: ApplyFn
    attention: str | None
    flops: int | None
    init_params: Callable[[jax.Array], Any]
    loss_fn: LossFn
    draw: Callable[..., LossArgs]
    couple: Callable | None
    optimizer: optax.GradientTransformation
    learning_rate: Callable[[int], float]
    num_classes: int | None
    null_label: int | None
    solver: SolverSpec


def make_model(config: ConfigDict, num_classes: int | None, portable: bool = False) -> Any:
    """The Linen module of ``config.model``.

    Args:
        config: the configuration.
        num_classes: None for an unconditional model.
        portable: whether it must compile for any device and have every derivative, whatever
            attention the configuration asks.

    Raises:
        InputError: a name or the dtype is unknown, a field that the name needs is missing, or a
            field is set that it does not have.
    """
    c = config.model
    if c.dtype not in DTYPES:
        raise unknown_name("dtype", c.dtype, DTYPES)
    given = {k: c[k] for k in ("width", "depth", "heads", "patch_size") if c[k] is not None}
    if c.name == "mlp":
        unused = {"heads", "patch_size"} & given.keys()
        if unused or (c.dtype, c.attention, c.scan, c.remat) != ("float32", "auto", False, "none"):
            raise InputError(
                "the mlp is float32 and has no heads, patch_size, attention, scan or remat; "
                f"got {c.to_dict()}."
            )
        return mlp.MLP(**given, num_classes=num_classes)
    common = {
        "num_classes": num_classes,
        "dtype": DTYPES[c.dtype],
        "scan": c.scan,
        "remat": c.remat,
    }
    if c.name == "dit":
        missing = {"width", "depth", "heads", "patch_size"} - given.keys()
        if missing:
            raise InputError(
                f"model.name='dit' needs model.{', model.'.join(sorted(missing))}; "
                f"or take a preset: {', '.join(sorted(dit.PRESETS))}."
            )
        model = dit.DiT(**given, **common)
    elif c.name in dit.PRESETS:
        model = dit.preset(c.name, **given, **common)
    else:
        raise unknown_name("model", c.name, ["mlp", "dit", *dit.PRESETS])
    if portable:
        return model
    head = model.width // max(model.heads, 1)
    kernel = choose_attention(c.attention, model.dtype, head, jax.default_backend())
    return model.clone(attention=kernel)


def make_draw(config: ConfigDict, null_label: int | None, noisy: bool) -> Callable[..., LossArgs]:
    """``draw(key, batch, layout=None) -> (x0, x1, t, labels)`` for batches of the pipeline.

    Without a layout the batch is whole and on one device, as in validation.

    Raises:
        InputError: a name is unknown, or a value does not fit.
    """
    conditional = null_label is not None
    coupling = registry.make_coupling(config, conditional)
    draw = Draw(
        time_distribution=registry.make_time_law(config),
        null_labels=null_label,
        drop_rate=config.labels.drop_rate,
        noisy=noisy,
    )

    def draw_batch(key: jax.Array, batch: dict, layout: registry.Layout | None = None) -> LossArgs:
        index = batch["index"]
        devices = row_shards(layout.mesh) if layout and layout.axis_name else 1
        placed = dataclasses.replace(
            draw,
            coupling=registry.place_coupling(coupling, config.coupling.groups, len(index), layout),
            stratify=len(index) * devices if config.time.stratified else None,
        )
        labels = batch["labels"] if conditional else None
        x1 = batch["x1"]
        if config.data.dequantize and x1.dtype == jnp.uint8:  # stored pairs have no levels
            # `Draw` splits the same key into its first few children.
            x1 = pixels.dequantize(example_keys(jax.random.fold_in(key, 2**31), index), x1)
        return placed(key, index, pixels.to_unit(x1), labels, batch.get("x0"))

    return draw_batch


def _null_label(config: ConfigDict, spec: DataSpec) -> int | None:
    if not config.labels.conditional:
        return None
    if spec.num_classes is None:
        raise InputError(
            f"data.name={config.data.name!r} has no labels; write labels.conditional=False."
        )
    null = spec.num_classes if config.labels.null is None else config.labels.null
    if not 0 <= null <= spec.num_classes:
        raise InputError(
            f"labels.null must lie between 0 and the number of classes, {spec.num_classes}; "
            f"got {null}."
        )
    return null


def _velocity(network: ApplyFn, path: Path, prediction: str) -> ApplyFn:
    return network if path.stochastic else as_velocity(network, path.schedule, prediction)


def make_experiment(config: ConfigDict, spec: DataSpec, portable: bool = False) -> Experiment:
    """Builds everything, and so checks everything, without computing anything on a device.

    Args:
        config: every key.
        spec: of the data.
        portable: as in `make_model`: for what is exported, or needs forward-mode derivatives.

    Raises:
        InputError: a name is unknown, or a value does not fit; each says what to write.
    """
    if config.data.dequantize and not spec.is_image:
        raise InputError(
            f"data.name={config.data.name!r} has no pixels to dequantise; "
            "write data.dequantize=False."
        )
    null_label = _null_label(config, spec)
    num_classes = None if null_label is None else spec.num_classes
    model = make_model(config, num_classes, portable)
    network = adapters.from_linen(model)
    path = registry.make_path(config)

    def init_params(key: jax.Array) -> Any:
        x = jnp.zeros((1, *spec.shape))
        labels = None if null_label is None else jnp.zeros((1,), jnp.int32)
        return model.init(key, x, jnp.zeros((1,)), labels)["params"]

    jax.eval_shape(init_params, jax.random.key(0))  # the network accepts these shapes
    o, s = config.optimizer, config.sample
    learning_rate = learning_rate_schedule(
        o.learning_rate, config.train.steps, o.warmup_steps, o.schedule
    )
    experiment = Experiment(
        spec=spec,
        path=path,
        apply_fn=_velocity(network, path, config.loss.prediction),
        attention=getattr(model, "attention", None),
        flops=training_flops(forward_flops(model, spec.shape)),
        init_params=init_params,
        loss_fn=registry.make_loss_fn(config, network, path),
        draw=make_draw(config, null_label, path.stochastic),
        couple=registry.make_host_coupling(config, null_label is not None),
        optimizer=make_optimizer(
            learning_rate,
            b1=o.b1,
            b2=o.b2,
            weight_decay=o.weight_decay,
            clip_norm=o.clip_norm or None,
            skip_above=o.skip_above or None,
        ),
        learning_rate=learning_rate,
        num_classes=num_classes,
        null_label=null_label,
        solver=solver_spec(s.solver, s.steps, shift=s.shift),
    )
    check_guidance(s.guidance)
    return experiment


def check_guidance(w: float) -> None:
    """Checks that a guidance scale is a finite number.

    Raises:
        InputError: it is not.
    """
    if not math.isfinite(w):
        raise InputError(f"the guidance scale must be a finite number; got {w}.")
