"""How samples are made from a trained flow: the solver, the noise, the guidance."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PRNGKeyArray, Real, Shaped

from fmjax.checks import check_at_least, check_between, check_finite_number
from fmjax.conditions import null_labels, nulls
from fmjax.conventions import Array, Labels, Times, Velocity, example_keys
from fmjax.discrete import predictor_free
from fmjax.errors import InputError, unknown_name
from fmjax.factory.experiment import Experiment
from fmjax.factory.registry import GUIDANCE_RULES, check_solver_fits, choose
from fmjax.guidance import (
    SCALE_SCHEDULES,
    GuidanceInterval,
    Guided,
    autoguidance,
    classifier_free,
    distilled,
    guide_each,
    guide_in_turn,
    network_calls,
)
from fmjax.guidance.rules import check_rule_on_manifold
from fmjax.samplers import Solution, Solver

_NOISE = 2**31  # what a sample's noise is keyed by, apart from its starting point


class Guidance(NamedTuple):
    """Which guidance: static, while the scales and labels are traced.

    Attributes:
        rule: a name of `fmjax.factory.registry.GUIDANCE_RULES`.
        schedule: a name of `fmjax.guidance.SCALE_SCHEDULES`.
        interval: (lo, hi) in t outside which the field is the conditional one, or None.
        zero_until: the velocity is 0 before.
        negative: a class to lead away from, in the place of no class.
        weak: guide by the parameters of a weaker network instead of the null condition.
        scales: of several conditions, a scale for each by name, in place of one for all.
        in_turn: whether each of these is added to those before it, as by
            `fmjax.guidance.guide_in_turn`, or all to none, as by `fmjax.guidance.guide_each`.
    """

    rule: str = "linear"
    schedule: str = "constant"
    interval: tuple[float, float] | None = None
    zero_until: float = 0.0
    negative: int | None = None
    weak: bool = False
    scales: tuple[tuple[str, float], ...] = ()
    in_turn: bool = False

    def network_calls(self, times: Times) -> int:
        """The network evaluations for one example of a solve that evaluates at these times."""
        branches = len(self.scales) + 1 if self.scales else 2
        return network_calls(
            times, branches=branches, interval=self.interval, zero_until=self.zero_until
        )

    def by_name(self, conditions: Any, labels: Labels) -> Any:
        """What a guided velocity takes in the place of labels, by the scales."""
        guide = guide_in_turn if self.in_turn else guide_each
        return guide(conditions, labels, dict(self.scales))


class Recipe(NamedTuple):
    """How samples are drawn; hashable, static under jit.

    Attributes:
        solver: from `solver_spec`, from `sde_spec`, or your own.
        guidance: which guidance; None takes the conditional field as it is.
        t0: where the flow starts.
        t1: where it ends.
    """

    solver: Solver
    guidance: Guidance | None = Guidance()
    t0: float = 0.0
    t1: float = 1.0


def fit_solver(solver: Solver, experiment: Experiment) -> Solver:
    """The solver for the flow of a model.

    Raises:
        InputError: the solver needs what the path does not have, a score that this velocity does
            not tell, a network of two times, or tokens where there are numbers, or the reverse.
    """
    check_solver_fits(
        solver,
        experiment.two_times,
        experiment.vocabulary is not None,
        experiment.manifold is not None,
    )
    if getattr(solver, "needs_span", False) and experiment.levels is not None:
        _check_dyadic(solver, experiment.levels)
    if getattr(solver, "needs_score", False) and not experiment.has_score:
        raise InputError(
            "sampling with noise needs the score, which the velocity tells only where x0 is "
            "standard normal and independent of x1; this model was trained from "
            f"{_source_of(experiment)}. Take an ODE solver such as heun."
        )
    if getattr(solver, "needs_normal_source", False) and not experiment.has_score:
        raise InputError(
            "renoise draws x0 anew, from a standard normal and independent of x1; this model was "
            f"trained from {_source_of(experiment)}. Write renoise=0."
        )
    return solver.on_path(experiment.path)


def _check_dyadic(solver: Solver, levels: int) -> None:
    """Checks that a network which knows jumps of 2^-k alone is asked for such."""
    nodes, most = np.asarray(solver.nodes()), 2 ** (levels - 1)
    starts, lengths = np.minimum(nodes[:-1], nodes[1:]), np.abs(np.diff(nodes))
    known = np.isin(lengths, 0.5 ** np.arange(levels)) & (starts % lengths == 0)
    if not known.all() or getattr(solver, "needs_normal_source", False):
        raise InputError(
            f"this run learned jumps of 1, 1/2, ..., 1/{most}, each on the grid of its own length, "
            f"and these are others; write --steps=1, 2, 4, ..., {most}, on the uniform grid and "
            "without renoise, or take --solver=heun."
        )


def _source_of(experiment: Experiment) -> str:
    coupled = "" if experiment.independent else ", coupled with the data"
    return f"{type(experiment.source).__name__} points{coupled}"


def check_choice(guidance: Guidance) -> None:
    """Checks a choice of guidance, whatever the model.

    Raises:
        InputError: a name is unknown, or a value lies outside its range.
    """
    choose("guidance rule", guidance.rule, GUIDANCE_RULES)
    if guidance.schedule not in SCALE_SCHEDULES:
        raise unknown_name("guidance schedule", guidance.schedule, SCALE_SCHEDULES)
    GuidanceInterval(guidance.interval, guidance.zero_until)
    if guidance.negative is not None:
        check_at_least("the negative class", guidance.negative, 0)
    for name, w in guidance.scales:
        check_finite_number(f"the scale of {name}", w)
    if guidance.in_turn and not guidance.scales:
        raise InputError("conditions in turn need a scale for each: write --scales=NAME=1.5,...")
    if guidance.scales and (guidance.weak or guidance.negative is not None):
        raise InputError("scales by name take no negative class and no weaker checkpoint.")


def check_guidance(guidance: Guidance, experiment: Experiment) -> None:
    """Checks a choice of guidance against the model, before any device work.

    Raises:
        InputError: as `check_choice`, or the model has no labels to guide by.
    """
    check_choice(guidance)
    if experiment.scaled_fn is not None and guidance != Guidance():
        raise InputError(
            "this network takes the scale as an input, and no guidance by two evaluations beside "
            "it: leave its rule, schedule, interval, negative, zero_until and weak out."
        )
    if experiment.vocabulary is not None:
        _check_token_guidance(guidance)
    rule = GUIDANCE_RULES[guidance.rule](experiment.path)
    if experiment.manifold is not None:
        check_rule_on_manifold(rule, experiment.manifold)
    if experiment.conditions is None and not guidance.weak:
        raise InputError(
            "this model is unconditional: there is nothing to guide. Leave the guidance out, or "
            "guide by a weaker checkpoint (--weak)."
        )
    if guidance.scales:
        guidance.by_name(experiment.conditions, nulls(experiment.conditions, 1))
    if guidance.weak and (guidance.negative is not None or guidance.zero_until):
        raise InputError("guidance by a weaker checkpoint takes no negative and no zero_until.")
    if guidance.negative is not None:
        if experiment.classes is None:
            raise InputError(
                "a negative class needs labels that are one array of class ids; leave it out."
            )
        last = experiment.classes.num_classes - 1
        check_between("the negative class", guidance.negative, 0, last)


def _check_token_guidance(guidance: Guidance) -> None:
    usual = Guidance()
    other = ("rule", "zero_until", "weak", "scales", "in_turn")
    if given := [name for name in other if getattr(guidance, name) != getattr(usual, name)]:
        raise InputError(
            f"{given[0]} is of guided velocities, and this run is of tokens, whose rates are "
            "guided by --guidance, --schedule, --interval and --negative: leave it out."
        )


def check_scales(scales: Sequence[float], experiment: Experiment) -> None:
    """Checks scales against those that a network which takes them learned, or that tokens take.

    Raises:
        InputError: one lies outside.
    """
    if experiment.vocabulary is not None and min(scales) < 0:
        raise InputError(
            f"tokens take scales of guidance of at least 0; got {min(scales):g}. To lead away from "
            "a class write --negative."
        )
    largest = experiment.largest_scale
    if largest is not None and not all(1 <= w <= largest for w in scales):
        raise InputError(
            f"this network learned scales of guidance from 1 to {largest:g}; got "
            f"{', '.join(f'{w:g}' for w in scales)}."
        )


def make_sampler(experiment: Experiment, recipe: Recipe) -> Callable[..., Solution]:
    """The pure function from noise to samples.

    Args:
        experiment: what the configuration stands for.
        recipe: how to sample.

    Returns:
        ``sampler(params, x0, key, index, labels, w, save_at=None) -> Solution``: x0 (batch, ...),
        one key for all, index int32 (batch,), labels built as the conditions of the model or None,
        w float32 (batch,); under weak guidance params is the pair (params, weak params).
    """
    solver = fit_solver(recipe.solver, experiment)

    def sampler(
        params: Any,
        x0: Shaped[Array, "batch ..."],
        key: PRNGKeyArray,
        index: Int[Array, " batch"],
        labels: Labels,
        w: Real[Array, " batch"],
        save_at: Times | None = None,
    ) -> Solution:
        velocity, conditions = guided_velocity(experiment, recipe.guidance, params, labels, w)
        keys = example_keys(jax.random.fold_in(key, _NOISE), index)  # dropped where not used
        ends = {"t0": recipe.t0, "t1": recipe.t1}
        return solver.solve(velocity, x0, conditions, keys=keys, save_at=save_at, **ends)

    return sampler


def guided_velocity(
    experiment: Experiment,
    guidance: Guidance | None,
    params: Any,
    labels: Labels,
    w: Real[Array, " batch"],
) -> tuple[Velocity, Any]:
    """The velocity that a recipe solves, and the conditions it takes in the place of labels.

    Args:
        experiment: what the configuration stands for.
        guidance: which guidance, or None.
        params: the parameters; under weak guidance the pair (params, weak params).
        labels: built as the conditions of the model; None for an unconditional one.
        w: guidance scales (batch,).
    """
    if guidance is None:
        return partial(experiment.apply_fn, params), labels
    if experiment.vocabulary is not None:
        denoiser = predictor_free(
            partial(experiment.apply_fn, params),
            null_labels(experiment.conditions),
            schedule=guidance.schedule,
            interval=guidance.interval,
        )
        return denoiser, Guided(labels, w, _negative(guidance, labels))
    if experiment.scaled_fn is not None:
        return distilled(partial(experiment.scaled_fn, params)), Guided(labels, w)
    how: dict[str, Any] = {
        "rule": GUIDANCE_RULES[guidance.rule](experiment.path),
        "schedule": guidance.schedule,
        "interval": guidance.interval,
        "manifold": experiment.manifold,
    }
    if guidance.weak:
        strong, weak = (partial(experiment.apply_fn, p) for p in params)
        return autoguidance(strong, weak, **how), Guided(labels, w)
    velocity = classifier_free(
        partial(experiment.apply_fn, params),
        null_labels(experiment.conditions),
        zero_until=guidance.zero_until,
        **how,
    )
    if guidance.scales:
        return velocity, guidance.by_name(experiment.conditions, labels)
    return velocity, Guided(labels, w, _negative(guidance, labels))


def _negative(guidance: Guidance, labels: Labels) -> Labels:
    return None if guidance.negative is None else jnp.full_like(labels, guidance.negative)
