"""From a configuration to objects: the only place where a string becomes an object.

The two halves of the library meet here: the mathematics, which sees velocity functions, and the
machinery, which sees arrays and pytrees.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fmjax.config import ConfigDict
from fmjax.conventions import ApplyFn
from fmjax.couplings import Coupling, independent
from fmjax.data import pixels
from fmjax.draws import Draw, LossArgs
from fmjax.errors import InputError, unknown_name
from fmjax.losses import LossFn, make_loss_fn
from fmjax.models import adapters, dit, mlp
from fmjax.paths import AffinePath
from fmjax.samplers.ode import SolverSpec, solver_spec
from fmjax.schedules import Linear
from fmjax.times import LogitNormal, TimeLaw, Uniform
from fmjax.training.optimizer import learning_rate_schedule, make_optimizer

PATHS = {"linear": lambda c: AffinePath(Linear(c.sigma_min))}
COUPLINGS = {"independent": lambda c: independent}
TIMES = {
    "uniform": lambda c: Uniform(),
    "logit_normal": lambda c: LogitNormal(c.mean, c.std),
}
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
        apply_fn: the network, ``apply_fn(params, x, t, labels)``.
        init_params: ``init_params(key) -> params``.
        loss_fn: ``loss_fn(params, x0, x1, t, labels) -> scalar``.
        draw: ``draw(key, batch) -> (x0, x1, t, labels)``.
        optimizer: the optax transformation.
        learning_rate: its schedule, by step.
        num_classes: of the conditional model; None for an unconditional one.
        null_label: the class id that stands for no class; None for an unconditional model.
        solver: how samples are drawn unless asked otherwise.
    """

    spec: DataSpec
    apply_fn: ApplyFn
    init_params: Callable[[jax.Array], Any]
    loss_fn: LossFn
    draw: Callable[[jax.Array, dict], LossArgs]
    optimizer: optax.GradientTransformation
    learning_rate: Callable[[int], float]
    num_classes: int | None
    null_label: int | None
    solver: SolverSpec


def _choose(kind: str, config: ConfigDict, table: dict) -> Any:
    """The object that the table makes of ``config.name``."""
    if config.name not in table:
        raise unknown_name(kind, config.name, table)
    return table[config.name](config)


def make_path(config: ConfigDict) -> AffinePath:
    """The path of ``config.path``."""
    return _choose("path", config.path, PATHS)


def make_coupling(config: ConfigDict) -> Coupling:
    """The coupling of ``config.coupling``."""
    return _choose("coupling", config.coupling, COUPLINGS)


def make_time_law(config: ConfigDict) -> TimeLaw:
    """The law of t of ``config.time``."""
    return _choose("time law", config.time, TIMES)


def make_model(config: ConfigDict, num_classes: int | None) -> Any:
    """The Linen module of ``config.model``.

    Raises:
        InputError: the name or the dtype is unknown, or a field that the name needs is missing.
    """
    c = config.model
    if c.dtype not in DTYPES:
        raise unknown_name("dtype", c.dtype, DTYPES)
    given = {k: c[k] for k in ("width", "depth", "heads", "patch_size") if c[k] is not None}
    if c.name == "mlp":
        unused = sorted({"heads", "patch_size"} & given.keys())
        if unused or c.dtype != "float32":
            raise InputError(
                f"the mlp is float32 and has no heads or patch_size; got {c.to_dict()}."
            )
        return mlp.MLP(**given, num_classes=num_classes)
    common = {"num_classes": num_classes, "dtype": DTYPES[c.dtype]}
    if c.name == "dit":
        missing = {"width", "depth", "heads", "patch_size"} - given.keys()
        if missing:
            raise InputError(
                f"model.name='dit' needs model.{', model.'.join(sorted(missing))}; "
                f"or take a preset: {', '.join(sorted(dit.PRESETS))}."
            )
        return dit.DiT(**given, **common)
    if c.name in dit.PRESETS:
        return dit.preset(c.name, **given, **common)
    raise unknown_name("model", c.name, ["mlp", "dit", *dit.PRESETS])


def make_draw(config: ConfigDict, null_label: int | None) -> Callable[[jax.Array, dict], LossArgs]:
    """``draw(key, batch) -> (x0, x1, t, labels)`` for batches as the pipeline makes them."""
    rate = config.labels.drop_rate
    if not 0 <= rate <= 1:
        raise InputError(f"labels.drop_rate must lie in [0, 1]; got {rate}.")
    draw = Draw(make_coupling(config), make_time_law(config), null_label, rate)

    def draw_batch(key: jax.Array, batch: dict) -> LossArgs:
        labels = None if null_label is None else batch["labels"]
        return draw(key, batch["index"], pixels.to_unit(batch["x1"]), labels)

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


def make_experiment(config: ConfigDict, spec: DataSpec) -> Experiment:
    """Builds everything, and so checks everything, without touching a device.

    Raises:
        InputError: a name is unknown, or a value does not fit; each says what to write.
    """
    null_label = _null_label(config, spec)
    num_classes = None if null_label is None else spec.num_classes
    model = make_model(config, num_classes)
    apply_fn = adapters.from_linen(model)

    def init_params(key: jax.Array) -> Any:
        x = jnp.zeros((1, *spec.shape))
        labels = None if null_label is None else jnp.zeros((1,), jnp.int32)
        return model.init(key, x, jnp.zeros((1,)), labels)["params"]

    o, s = config.optimizer, config.sample
    learning_rate = learning_rate_schedule(
        o.learning_rate, config.train.steps, o.warmup_steps, o.schedule
    )
    experiment = Experiment(
        spec=spec,
        apply_fn=apply_fn,
        init_params=init_params,
        loss_fn=make_loss_fn(apply_fn, make_path(config), config.loss.target),
        draw=make_draw(config, null_label),
        optimizer=make_optimizer(
            learning_rate,
            b1=o.b1,
            b2=o.b2,
            weight_decay=o.weight_decay,
            clip_norm=o.clip_norm or None,
        ),
        learning_rate=learning_rate,
        num_classes=num_classes,
        null_label=null_label,
        solver=solver_spec(s.solver, s.steps),
    )
    check_guidance(s.guidance)
    jax.eval_shape(init_params, jax.random.key(0))  # the network accepts these shapes
    return experiment


def check_guidance(w: float) -> None:
    """Checks that a guidance scale is a finite number.

    Raises:
        InputError: it is not.
    """
    if not math.isfinite(w):
        raise InputError(f"the guidance scale must be a finite number; got {w}.")
