"""What to draw: how many samples, of which classes, at which guidance scales, from which seed."""

from typing import NamedTuple

import numpy as np

from fmjax.array_checks import check_class_ids
from fmjax.checks import check_at_least, check_finite_number, check_seed
from fmjax.errors import InputError
from fmjax.factory import Experiment, Guidance, Recipe
from fmjax.factory.generation import check_guidance


class Request(NamedTuple):
    """Which samples to draw.

    Attributes:
        num: how many.
        labels: class ids that repeat in turn; ``()`` for all classes in turn, where the model has
            classes; None for samples without a class.
        w: guidance scales that repeat in turn; one number for all is ``(w,)``; None for the scale
            of the run's configuration, or 1 without labels.
        seed: sample i is a function of the seed and of i alone.
    """

    num: int
    labels: tuple[int, ...] | None = ()
    w: tuple[float, ...] | None = None
    seed: int = 0

    @property
    def columns(self) -> int:
        """Of a picture: one for each label that repeats, at most 20."""
        return min(len(self.labels or ()) or 10, 20)

    def rows(
        self, null_label: int | None, start: int, count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The numbers, the labels and the scales of the samples from `start` on, each (count,)."""
        labels = np.array([null_label or 0] if self.labels is None else self.labels, np.int32)
        scales = np.array(self.w, np.float32)
        index = np.arange(start, start + count, dtype=np.int32)
        return index, labels[index % len(labels)], scales[index % len(scales)]


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
    if request.labels == ():
        classes = experiment.num_classes
        request = request._replace(labels=None if classes is None else tuple(range(classes)))
    if request.w is None:
        w = 1.0 if request.labels is None else experiment.guidance_scale
        request = request._replace(w=(w,))
    _check_request(request, experiment)
    scaled = any(w != 1 for w in request.w)
    able = request.labels is not None or weak
    if scaled and not able:
        raise InputError(
            f"guidance ({request.w[0]:g}) needs labels to guide by, and there are none here: "
            "leave it out, or ask for labels of a conditional model."
        )
    needed = able and (scaled or guidance.zero_until > 0)
    if needed or guidance != Guidance():
        check_guidance(guidance, experiment)
    solver = recipe.solver.on_path(experiment.path)
    return request, Recipe(solver, guidance if needed else None)


def _check_request(request: Request, experiment: Experiment) -> None:
    check_at_least("the number of samples", request.num)
    check_seed(request.seed)
    for w in request.w:
        check_finite_number("the guidance scale", w)
    if request.labels is None:
        return
    if experiment.num_classes is None:
        raise InputError("this model is unconditional: it has no labels; write --labels=none.")
    check_class_ids("labels", request.labels, num_classes=experiment.num_classes)
