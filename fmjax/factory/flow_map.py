"""What ``config.flow_map`` names: the identity, the distribution of two times, and their loss."""

import math
from collections.abc import Callable
from typing import Any

from jaxtyping import Float

from fmjax import flow_maps, times
from fmjax.config import ConfigDict, default_config
from fmjax.conventions import ApplyFn, Array, Labels, Velocity
from fmjax.errors import InputError
from fmjax.factory.registry import DISTANCES, choose, is_flow_map, make_time_distribution
from fmjax.flow_maps.identities import Identity
from fmjax.flow_maps.target_guidance import TargetGuidance
from fmjax.losses import LossFn
from fmjax.paths import Path
from fmjax.times import SpanDistribution

IDENTITIES: dict[str, Callable[[ConfigDict], Identity]] = {
    "meanflow": lambda c: flow_maps.MeanFlow(derivative=c.flow_map.derivative),
    "improved_meanflow": lambda c: flow_maps.MeanFlow("network", c.flow_map.derivative),
    "lagrangian": lambda c: flow_maps.Lagrangian(c.flow_map.derivative),
    "semigroup": lambda c: flow_maps.Semigroup(split=None),
    "shortcut": lambda c: flow_maps.Semigroup(split=0.5, finest=_shortest(c)),
    "consistency": lambda c: flow_maps.Consistency(),
    "alpha_flow": lambda c: flow_maps.AlphaFlow(
        flow_maps.SigmoidDecay(0, c.train.steps), c.flow_map.derivative
    ),
}
SPANS: dict[str, Callable[[ConfigDict], SpanDistribution]] = {
    "sorted": lambda c: times.SortedPair(make_time_distribution(c)),
    "any": lambda c: times.AnyPair(make_time_distribution(c)),
    "dyadic": lambda c: times.DyadicGrid(c.flow_map.levels),
    "to_data": lambda c: times.ToData(make_time_distribution(c)),
}
_OWN_SPANS = {"shortcut": "dyadic", "consistency": "to_data"}  # else sorted
_OF_FLOW_MAPS = ("teacher", "guidance", "guidance_max", "from_source", "second_head", "divergence")
"""Keys that say nothing without a flow map."""
_DIFFERENTIATED = {"meanflow", "improved_meanflow", "lagrangian", "alpha_flow"}


def _shortest(c: ConfigDict) -> float:
    return 2.0 ** (1 - c.flow_map.levels)


def needs_derivative(config: ConfigDict) -> bool:
    """Whether the loss takes the network's exact derivative in time."""
    c = config.flow_map
    return c.derivative == "jvp" and (c.name in _DIFFERENTIATED or ":" in c.name)


def make_span_distribution(config: ConfigDict) -> SpanDistribution:
    """The distribution of (s, t) of ``config.flow_map``, its times those of ``config.time``.

    Raises:
        InputError: a name is unknown, or the identity takes others.
    """
    c = config.flow_map
    own = _OWN_SPANS.get(c.name)
    if own is not None and c.span not in (None, own):
        raise InputError(
            f"flow_map.name={c.name!r} takes spans of flow_map.span={own!r}; got {c.span!r}. Leave "
            "flow_map.span out."
        )
    spans = SPANS[c.span or own or "sorted"](config)
    if c.from_source:
        spans = times.FromSource(spans, c.from_source)
    return times.WithDiagonal(spans, c.diagonal, make_time_distribution(config))


def divergence_scale(config: ConfigDict, shape: tuple[int, ...]) -> float | None:
    """What the average divergence is divided by: the number of features; None where it has none."""
    return float(math.prod(shape)) if config.flow_map.divergence else None


def output_parts(config: ConfigDict) -> tuple[str, ...]:
    """The outputs of the network beside its velocity; see `fmjax.models.parts`."""
    c = config.flow_map
    asked = {"divergence": c.divergence, "diagonal": c.second_head}
    return tuple(name for name, given in asked.items() if given)


def dyadic_levels(config: ConfigDict) -> int | None:
    """How many lengths of jumps there are, where they are those of `fmjax.times.DyadicGrid`."""
    c = config.flow_map
    dyadic = (c.span or _OWN_SPANS.get(c.name)) == "dyadic"
    return c.levels if dyadic and is_flow_map(config) else None


def check_flow_map(config: ConfigDict, conditions: Any) -> None:
    """Checks the keys of a flow map against the others.

    Args:
        config: the configuration.
        conditions: of the model.

    Raises:
        InputError: some are set that say nothing without it, or nothing beside it.
    """
    c = config.flow_map
    if c.name == "none":
        usual = default_config().flow_map
        if given := [f"flow_map.{key}" for key in _OF_FLOW_MAPS if c[key] != usual[key]]:
            raise InputError(
                f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} of a flow map; write "
                "flow_map.name=lagrangian, say, or leave that out."
            )
        return
    if c.guidance_max is not None and (c.guidance != 1 or conditions is None):
        raise InputError(
            "flow_map.guidance_max makes the scale an input of a network with labels: it goes with "
            f"flow_map.guidance=1 and a conditional model; got flow_map.guidance={c.guidance:g}, "
            f"and the model is {'un' if conditions is None else ''}conditional."
        )
    if c.divergence and c.span != "any":
        raise InputError(
            "flow_map.divergence is learned on spans that run backwards, too; write "
            f"flow_map.span=any; got {c.span!r}."
        )
    if output_parts(config) and config.loss.prediction != "velocity":
        raise InputError(
            "flow_map.second_head and flow_map.divergence are of networks that predict velocities; "
            f"write loss.prediction=velocity; got {config.loss.prediction!r}."
        )
    if c.from_source and dyadic_levels(config) is not None:
        raise InputError(
            "flow_map.from_source takes spans of any length, and those of flow_map.span=dyadic "
            "are of 2^-k; leave it out."
        )
    if c.guidance != 1 and conditions is None:
        raise InputError(
            f"flow_map.guidance={c.guidance:g} needs labels to guide by, and this model is "
            "unconditional; write flow_map.guidance=1."
        )
    unused = {
        "time.stratified": (config.time.stratified, False),
        "time.importance": (config.time.importance, False),
        "loss.weight": (config.loss.weight, "none"),
        "loss.target": (config.loss.target, "fm"),
    }
    if given := [f"{key}={value!r}" for key, (value, usual) in unused.items() if value != usual]:
        raise InputError(
            f"the loss of a flow map (flow_map.name={c.name!r}) takes no {', '.join(given)}; leave "
            "that out."
        )


def make_flow_map_loss(
    config: ConfigDict,
    average: ApplyFn,
    smooth: ApplyFn | None,
    path: Path,
    conditions: Any,
    teacher: Velocity | None,
    scale: float | None = None,
) -> LossFn:
    """``loss_fn(params, x0, x1, Span(s, t), labels) -> scalar`` of ``config.flow_map``.

    Args:
        config: the configuration.
        average: the network, as one that gives average velocities.
        smooth: the same where it is differentiated; None for itself.
        path: from the source to the data.
        conditions: of the model.
        teacher: the velocity of ``flow_map.teacher``, guided already. None where it is not at hand:
            a run that is only sampled from does without, and the loss says so when it is called.
        scale: of the divergence, as `divergence_scale` gives it.

    Raises:
        InputError: a name is unknown, or something does not fit.
    """
    c = config.flow_map
    guidance: TargetGuidance | None = None
    if c.teacher is not None:
        teacher = _absent if teacher is None else teacher
    if c.guidance_max is not None:
        scales = flow_maps.PowerLaw(1.0, c.guidance_max)
        guidance = flow_maps.GuidanceInput(conditions, scales)
    elif c.guidance != 1 and c.teacher is None:
        guidance = flow_maps.FixedGuidance.at_scale(conditions, c.guidance, c.kappa)
    return flow_maps.make_flow_map_loss_fn(
        average,
        choose("flow map", c.name, IDENTITIES)(config),
        path,
        teacher=teacher,
        guidance=guidance,
        averaged=c.averaged,
        divergence=None if scale is None else flow_maps.DivergenceHead(scale),
        distance=choose("distance", config.loss.distance, DISTANCES)(config.loss),
        derivative_fn=smooth,
    )


def _absent(x: Any, t: Float[Array, " batch"], labels: Labels) -> Any:
    raise InputError(
        "the teacher of this flow map (flow_map.teacher) was not read, so that it can be sampled "
        "and not trained; python -m fmjax train reads it."
    )
