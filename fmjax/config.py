"""The configuration: every key with its default, its range and what it says.

`GROUPS` is the list of keys. `default_config` makes a configuration of it, files under ``configs/``
say what differs, and ``--config.KEY=VALUE`` on the command line has the last word. `fmjax.factory`
turns the strings into objects. ``train.py --help-config`` prints the list, and `check_config` holds
a configuration to it.
"""

from dataclasses import dataclass
from math import inf
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from fmjax.checks import check_at_least, check_between
from fmjax.errors import InputError


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Attributes:
        default: its value unless it is set; None where something else has a default for it.
        help: what it says.
        kind: the type of its values.
        low: the least value of a number, with ``bounds`` as in `fmjax.checks.check_between`.
        high: the largest.
        bounds: whether the ends belong to the range.
        unit: of a number.
    """

    default: Any
    help: str
    kind: type
    low: float = -inf
    high: float = inf
    bounds: str = "[]"
    unit: str = ""

    @property
    def range(self) -> str:
        """The range of a number in words; empty for any other key."""
        if self.kind not in (int, float):
            return ""
        ends = f"{self.bounds[0]}{self.low:.10g}, {self.high:.10g}{self.bounds[1]}"
        return f"{'whole, ' if self.kind is int else ''}in {ends}{self.unit and ' ' + self.unit}"

    def check(self, name: str, value: Any) -> None:
        """Checks a value of this key.

        Raises:
            InputError: it is no number of its range.
        """
        if value is None or self.kind not in (int, float):
            return
        advice = f"This key: {self.help}."
        if self.kind is int:
            check_at_least(name, value, int(self.low), advice=advice)
        check_between(name, value, self.low, self.high, self.bounds, advice=advice)


def text(default: str | None, help: str) -> Key:
    """A key of text."""
    return Key(default, help, str)


def switch(default: bool, help: str) -> Key:
    """A key that is True or False."""
    return Key(default, help, bool)


def whole(default: int | None, help: str, least: int = 1, most: int = 2**31 - 1, unit="") -> Key:
    """A key of whole numbers."""
    return Key(default, help, int, least, most, "[]", unit)


def number(
    default: float | None, help: str, low: float, high: float, bounds: str = "[]", unit: str = ""
) -> Key:
    """A key of finite numbers."""
    return Key(default, help, float, low, high, bounds, unit)


_EVERY = "steps from one to the next"
_SHARE = "the probability that training drops"

GROUPS: dict[str, dict[str, Key]] = {
    "data": {
        "name": text(
            "digits",
            "digits, toy/NAME, any prepared TFDS set, random/32x32x4/1000 to measure speed with, "
            "or my_module:function",
        ),
        "dir": text(None, "where the set lies; TFDS's own data directory, or TFDS_DATA_DIR"),
        "flip": switch(False, "random horizontal flips"),
        "dequantize": switch(False, "images: uniform noise of one level, for likelihoods"),
        "threads": whole(4, "threads that read ahead", most=1024),
    },
    "model": {
        "name": text("dit", "dit, mlp, a preset such as DiT-B/2, or my_module:build"),
        "width": whole(None, "features of a layer; the preset's", most=2**20),
        "depth": whole(None, "layers or blocks; the preset's", most=2**16),
        "heads": whole(None, "of attention; the preset's", most=2**16),
        "patch_size": whole(None, "side of a patch; the preset's", most=2**16, unit="pixels"),
        "time_scale": number(
            None, "what t is multiplied by before it is embedded; the network's", 0, 1e6, "(]"
        ),
        "dtype": text("float32", "of the matrix products: float32 or bfloat16"),
        "attention": text("auto", "xla, cudnn, or the one of them that fits"),
        "scan": switch(False, "blocks compiled once, as a loop: large models compile much faster"),
        "remat": text("none", "what blocks compute twice to save memory: none, dots or full"),
    },
    # Devices along each axis, their product all of them; one may be -1, for the rest.
    "mesh": {
        "data": whole(-1, "copies of the state; -1 for the rest of the devices", -1),
        "fsdp": whole(1, "parts of the state", -1),
        "tensor": whole(1, "parts of each matrix product", -1),
    },
    "source": {
        "name": text("normal", "where flows start: normal, uniform, data, or my_module:make"),
        "low": number(-1.0, "of uniform: the lower bound", -1e6, 1e6),
        "high": number(1.0, "of uniform: the upper bound", -1e6, 1e6),
        "data": text(None, "of data: the name of the data set that flows start from"),
        "dir": text(None, "of data: where it lies, as data.dir"),
        "size": whole(10_000, "of data: how many of its training examples, at most"),
    },
    "path": {
        "name": text(
            "linear", "linear, vp, linear_vp, cosine, polynomial, noisy, bridge, or my_module:make"
        ),
        "sigma_min": number(0.0, "of linear: the noise that is left at the data", 0, 1, "[)"),
        "beta_min": number(0.1, "of vp", 0, 1e3),
        "beta_max": number(20.0, "of vp", 0, 1e3, "(]"),
        "power": number(2.0, "of polynomial", 0, 100, "(]"),
        "sigma": number(0.1, "of noisy and bridge: how much noise", 0, 1e3, "(]", "of states"),
    },
    "coupling": {
        "name": text(
            "independent",
            "independent; ot, sinkhorn, schroedinger_bridge (with path.sigma), unbalanced, partial "
            "in the step; host_ot in the data threads; pairs for stored ones; or my_module:make",
        ),
        "groups": whole(1, "equal parts of the global batch, each paired by itself"),
        "by_label": switch(True, "pairs within a class only, where the model is conditional"),
        "epsilon": number(
            1.0, "of sinkhorn and unbalanced", 0, 1e9, "(]", "of the squared distance"
        ),
        "rounding": text("permutation", "of sinkhorn: permutation or sample"),
        "relax": number(
            10.0, "of unbalanced: pairs that cost much more are given up", 0, 1e9, "(]"
        ),
        "fraction": number(0.9, "of partial: the share that is paired", 0, 1, "(]"),
        "dir": text(None, "of pairs: a folder that reflow wrote"),
    },
    "time": {
        "name": text(
            "uniform",
            "uniform, logit_normal, log_normal, u_shaped, mode, cosmap, beta, or my_module:Law",
        ),
        "mean": number(None, "of logit_normal and log_normal", -100, 100),
        "std": number(None, "of logit_normal and log_normal", 0, 100, "(]"),
        "scale": number(None, "of mode", -10, 10),
        "a": number(None, "of u_shaped and beta", -1e3, 1e3),
        "b": number(None, "of beta", 0, 1e3, "(]"),
        "shift": number(1.0, "of SD3 and FLUX: above 1, more times near the noise", 0, 1e3, "(]"),
        "stratified": switch(False, "one t from each of batch_size equally likely intervals"),
        "importance": switch(False, "weights that keep the objective of uniform times"),
    },
    "loss": {
        "target": text("fm", "fm or rf"),
        "prediction": text("velocity", "velocity, x1, x0, score or v"),
        "distance": text("squared", "the path's own; or pseudo_huber, adaptive, my_module:make"),
        "c": number(None, "of pseudo_huber and adaptive", 0, 1e6, "(]"),
        "power": number(1.0, "of adaptive", 0, 1),
        "weight": text(
            "none",
            "none; velocity, by which another prediction's error counts as a velocity's; or "
            "my_module:weight",
        ),
    },
    "labels": {
        "conditional": switch(True, "whether the model knows the labels"),
        "drop_rate": number(0.1, f"{_SHARE} a condition that has no rate of its own", 0, 1),
        "drop_all": number(0.0, f"{_SHARE} all conditions of an example together", 0, 1),
        "null": whole(None, "of class ids, the one that stands for none; one past the last", 0),
        "only": text(None, "of several conditions, those that the model takes, e.g. age,sex"),
    },
    "optimizer": {
        "learning_rate": number(1e-3, "the highest learning rate", 0, 3e38, "(]"),
        "schedule": text("cosine", "cosine or constant, after a linear warm-up"),
        "warmup_steps": whole(
            100, "of the linear warm-up, fewer than train.steps", 0, unit="steps"
        ),
        "b1": number(0.9, "decay of the first moment", 0, 1, "[)"),
        "b2": number(0.99, "decay of the second moment", 0, 1, "[)"),
        "weight_decay": number(0.0, "decoupled weight decay", 0, 1e3),
        "clip_norm": number(1.0, "the largest norm of a gradient; 0 does not clip", 0, 1e9),
        "skip_above": number(
            0.0, "leaves out steps of so many times the usual norm, above 1; 0: none", 0, 1e9
        ),
    },
    "train": {
        "steps": whole(1000, "of training"),
        "batch_size": whole(128, "examples in a step, over all devices and processes"),
        "accumulate": whole(1, "parts into which a batch is split to save memory"),
        "steps_per_call": whole(
            1, "of the compiled program in one call: more where steps take under 10 ms"
        ),
        "ema": number(0.9999, "decay of the average of the parameters", 0, 1, "[)"),
        "seed": whole(0, "of the parameters, the order of the data and every draw", 0, 2**32 - 1),
        "log_every": whole(50, f"{_EVERY} line of the log"),
        "checkpoint_every": whole(500, f"{_EVERY} checkpoint"),
        "val_every": whole(0, f"{_EVERY} held-out loss; 0: at checkpoints only", 0),
        "sample_every": whole(500, f"{_EVERY} picture; 0: never", 0),
        "keep": whole(3, "newest checkpoints that stay, beside the best one"),
    },
    # How the samples of the pictures and of the evaluation are drawn.
    "sample": {
        "guidance": number(1.5, "the scale w", -1e3, 1e3),
        "solver": text("heun", "a solver of the ODE or of the SDE, or my_module:Solver"),
        "steps": whole(25, "of the solver"),
        "shift": number(1.0, "of SD3 and FLUX: above 1, more steps near the noise", 0, 1e3, "(]"),
    },
    "eval": {
        "num": whole(1000, "samples that are evaluated at the end, 2 or more; 0: none", 0),
        "reference": whole(5000, "real examples that they are compared with, at most", 4),
    },
}


def default_config() -> ConfigDict:
    """Every configuration key with its default."""
    config = ConfigDict()
    for group, keys in GROUPS.items():
        config[group] = ConfigDict(
            {
                name: placeholder(key.kind) if key.default is None else key.default
                for name, key in keys.items()
            }
        )
    return config.lock()


def check_config(config: ConfigDict) -> None:
    """Checks every number of a configuration, before anything is opened.

    Raises:
        InputError: one lies outside its range, or the warm-up is as long as the training.
    """
    for group, keys in GROUPS.items():
        for name, key in keys.items():
            key.check(f"{group}.{name}", config[group][name])
    if config.optimizer.warmup_steps >= config.train.steps:
        raise InputError(
            f"the warm-up must be shorter than training; got optimizer.warmup_steps="
            f"{config.optimizer.warmup_steps} of train.steps={config.train.steps}."
        )


def config_table() -> list[tuple[str, str, str, str]]:
    """Key, default, range and help of every key, in words."""
    return [
        (f"{group}.{name}", "" if key.default is None else str(key.default), key.range, key.help)
        for group, keys in GROUPS.items()
        for name, key in keys.items()
    ]


def describe_config() -> str:
    """What ``--help-config`` prints."""
    lines = []
    for name, default, numbers, help in config_table():
        lines.append(f"--config.{name}={default}" + (f"  ({numbers})" if numbers else ""))
        lines.append(f"    {help}")
    return "\n".join(lines)
