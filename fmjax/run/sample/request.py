"""What to draw: how many samples, of which classes, at which guidance scales, from which seed."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Int32, Shaped

from fmjax.array_checks import check_class_ids
from fmjax.checks import check_at_least, check_between, check_finite_number, check_seed
from fmjax.conditions import check_labels, nulls
from fmjax.conventions import Labels
from fmjax.errors import InputError
from fmjax.factory import Experiment, Guidance, Recipe
from fmjax.factory.data_spec import chosen_labels
from fmjax.factory.generation import check_guidance, check_scales, fit_solver
from fmjax.factory.snapshots import snapshot_source
from fmjax.run.sample.own_arrays import check_rows, read_conditions, read_points

_USUAL = 100  # samples
_HELD_OUT = 1000  # examples whose conditions are sampled under, at most


class Request(NamedTuple):
    """Which samples to draw.

    Attributes:
        num: how many; None for one for each row of the files, or 100; with several guidance scales
            as many of each scale as there are labels.
        labels: class ids that repeat in turn; ``()`` for all classes in turn, or, of a model with
            other conditions, for those of the data's held-out examples in turn; the path of a file
            of conditions, see `fmjax.run.sample.own_arrays`; None for samples under no condition.
            Once resolved, conditions other than class ids are numpy arrays (n, ...) built as the
            conditions of the model.
        w: guidance scales, each with every label: all labels at the first scale, then at the
            second, and so on in turn; one number for all is ``(w,)``; None for the scale of the
            run's configuration, or 1 without labels.
        seed: sample i is a function of the seed and of i alone.
        x0: the path of a file of points to start from, in the place of draws from the source; once
            resolved, states (n, ...). Sample i then starts from row i.
        start: of a flow through snapshots the time, in the data's own unit, at which samples
            start, from the points of x0 or of the snapshot at that time; the first one if None.
        end: the time at which they end; that of the last snapshot if None.
    """

    num: int | None
    labels: Any = ()
    w: tuple[float, ...] | None = None
    seed: int = 0
    x0: Any = None
    start: float | None = None
    end: float | None = None

    @property
    def number(self) -> int:
        """How many samples a resolved request is for."""
        assert self.num is not None, "resolve says how many"
        return self.num

    @property
    def scales(self) -> tuple[float, ...]:
        """The guidance scales of a resolved request."""
        assert self.w is not None, "resolve says which"
        return self.w

    @property
    def period(self) -> int:
        """How many samples come before the next guidance scale: one for each label."""
        if self.labels is None:
            return 1
        return len(
            self.labels if isinstance(self.labels, tuple) else jax.tree.leaves(self.labels)[0]
        )

    @property
    def columns(self) -> int:
        """Of a picture: one for each class that repeats, at most 20."""
        return min(len(self.labels), 20) if isinstance(self.labels, tuple) and self.labels else 10

    def points(self, start: int, count: int) -> tuple[Shaped[np.ndarray, "{count} ..."], ...]:
        """The points that the samples from `start` on start from, or nothing for the source's."""
        if self.x0 is None:
            return ()
        return (self.x0[np.arange(start, start + count) % len(self.x0)],)

    def rows(
        self, conditions: Any, start: int, count: int
    ) -> tuple[Int32[np.ndarray, " {count}"], Labels, Float32[np.ndarray, " {count}"]]:
        """The numbers, the labels and the scales of the samples from `start` on, each (count, ...).

        Args:
            conditions: of the model, whose nulls are the labels of samples under no condition.
            start: the number of the first sample.
            count: how many.
        """
        index = np.arange(start, start + count, dtype=np.int32)
        scales = np.array(self.scales, np.float32)[index // self.period % len(self.scales)]
        if self.labels is None:
            return index, nulls(conditions, count), scales
        asked = np.array(self.labels, np.int32) if isinstance(self.labels, tuple) else self.labels
        return index, jax.tree.map(lambda leaf: leaf[index % len(leaf)], asked), scales


def resolve(
    experiment: Experiment, request: Request, recipe: Recipe, weak: bool = False
) -> tuple[Request, Recipe]:
    """Checks a request and its recipe against a model, and fills in what they leave open.

    Args:
        experiment: of the model.
        request: which samples.
        recipe: how to draw them.
        weak: whether a weaker checkpoint is at hand to guide by, in the place of no condition.

    Returns:
        The request with its labels and scales written out; the recipe with its solver on the
        model's path, and without guidance where w = 1 everywhere, which is the conditional field.

    Raises:
        InputError: something does not fit, in one sentence, before any device work.
    """
    guidance = (recipe.guidance or Guidance())._replace(weak=weak)
    request = _with_files(request, experiment)
    if isinstance(request.labels, tuple) and not request.labels:
        each = -(-request.number // len(request.w or (1,)))
        request = request._replace(labels=_all_labels(experiment, each))
    if request.w is None:
        unscaled = request.labels is None or guidance.scales
        w = 1.0 if unscaled else experiment.guidance_scale
        request = request._replace(w=(w,))
    check_request(request)
    _check_labels(request, experiment)
    _check_product(request)
    scaled = any(w != 1 for w in request.scales)
    able = request.labels is not None or weak
    if scaled and not able:
        raise InputError(
            f"guidance ({request.scales[0]:g}) needs labels to guide by, and there are none here: "
            "leave it out, or ask for labels of a conditional model."
        )
    if scaled and guidance.scales:
        raise InputError("scales by name stand in the place of one for all: leave --guidance out.")
    needed = able and (scaled or guidance.zero_until > 0 or guidance.scales != ())
    if needed or guidance != Guidance():
        check_guidance(guidance, experiment)
    check_scales(request.scales, experiment)
    solver = fit_solver(recipe.solver, experiment)
    request, ends = _between(request, experiment)
    recipe = recipe._replace(solver=solver, guidance=guidance if needed else None, **ends)
    return request, recipe


def _between(request: Request, experiment: Experiment) -> tuple[Request, dict[str, float]]:
    """The request with the points it starts from, and the ends in the flow's unit of time."""
    timeline, asked = experiment.spec.timeline, (request.start, request.end)
    if timeline is None:
        if asked != (None, None):
            raise InputError(
                "this flow leads from its source to the data, not through snapshots: leave --from "
                "and --to out."
            )
        return request, {}
    start = timeline.times[0] if request.start is None else request.start
    end = timeline.times[-1] if request.end is None else request.end
    if start == end:
        raise InputError(f"--from and --to must be two times; got {start:g} for both.")
    ends = {"t0": timeline.scaled(start), "t1": timeline.scaled(end)}
    if request.start is not None and request.x0 is None:
        assert experiment.snapshots is not None, "a timeline comes with its snapshots"
        points = np.asarray(snapshot_source(experiment.snapshots, start).points)
        request = request._replace(x0=points)
    return request, ends


def _with_files(request: Request, experiment: Experiment) -> Request:
    """The request with what its files hold, and with the number of samples."""
    rows, scales = {}, len(request.w or (1,))
    if isinstance(request.labels, Path):
        labels = read_conditions(request.labels, experiment.conditions)
        count = len(jax.tree.leaves(labels)[0])
        at = f", at {scales} guidance scales," if scales > 1 else ""
        rows[f"the conditions of {request.labels}{at}"] = count * scales if count > 1 else 1
        request = request._replace(labels=labels)
    if isinstance(request.x0, Path):
        codec = experiment.source_codec
        points = read_points(request.x0, codec)
        rows[f"the points of {request.x0}"] = len(points)
        request = request._replace(x0=codec.encode(points))
    if request.num is None:
        most = max(rows.values(), default=1)
        request = request._replace(num=most if most > 1 else _usual(request, experiment))
    for what, count in rows.items():
        check_rows(what, count, request.number)
    return request


def _usual(request: Request, experiment: Experiment) -> int:
    """The number of samples where nothing says it: one of each label at each of several scales."""
    scales, labels = len(request.w or (1,)), request.labels
    if scales == 1 or not isinstance(labels, tuple) or experiment.classes is None:
        return _USUAL
    return scales * (len(labels) or experiment.classes.num_classes)


def check_request(request: Request) -> None:
    """Checks the numbers of a request, whatever the model.

    Raises:
        InputError: one lies outside its range.
    """
    if request.num is not None:
        check_at_least("the number of samples", request.num)
        check_between("the number of samples", request.num, 1, 2**31 - 1)
    check_seed(request.seed)
    for w in request.w or ():
        check_finite_number("the guidance scale", w)


def _check_product(request: Request) -> None:
    """Checks that every guidance scale gets a sample."""
    least = (len(request.scales) - 1) * request.period + 1
    if request.number < least:
        raise InputError(
            f"{len(request.scales)} guidance scales, each with {request.period} labels, need at "
            f"least {least} samples; got --num={request.num}. Give more, or fewer labels."
        )


def _check_labels(request: Request, experiment: Experiment) -> None:
    if request.labels is None:
        return
    if experiment.conditions is None:
        raise InputError("this model is unconditional: it has no labels; write --labels=none.")
    if not isinstance(request.labels, tuple):
        check_labels(request.labels, experiment.conditions, len(jax.tree.leaves(request.labels)[0]))
    elif experiment.classes is None:
        raise InputError(
            "the labels of this model are not one array of class ids; write --labels=all for those "
            "of the data, or --labels=none."
        )
    else:
        num_classes = experiment.classes.num_classes
        check_class_ids("labels", request.labels, num_classes=num_classes)


def _all_labels(experiment: Experiment, num: int) -> Any:
    """All classes; of other conditions, those of the held-out examples of the data."""
    if experiment.conditions is None:
        return None
    if experiment.classes is not None:
        return tuple(range(experiment.classes.num_classes))
    labels = experiment.data.load().arrays("test", min(num, _HELD_OUT))[1]
    return chosen_labels(labels, experiment.conditions)
