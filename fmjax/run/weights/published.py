"""Published weights in: what a run begins with that another program trained."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from fmjax.config import default_config
from fmjax.errors import InputError
from fmjax.factory import Experiment
from fmjax.factory.registry import PATHS
from fmjax.models import pretrained
from fmjax.run import workdir as folder
from fmjax.storage.torch_file import SUFFIXES

_FILES = (".safetensors", ".json", *SUFFIXES)
_HOW = {
    *("dtype", "attention", "scan", "remat", "name", "parent"),
    *("conditions", "heads", "head_size", "channels", "spacing", "text_length"),
}
"""Fields that do not decide the function, or that shapes, or the sizes of heads, tell better."""
_OF_TWO_TIMES = {"span": False, "guidance": False, "parts": ()}


def is_published(source: Path, layout: str | None = None) -> bool:
    """Whether a file or folder is of another program, not of a run.

    Args:
        source: of the parameters.
        layout: the name of a published layout, if the user gave one.
    """
    if source.is_dir():
        own = (source / folder.RECORD).exists() or (source / folder.CHECKPOINTS).exists()
        return not own and any(path.suffix in _FILES for path in source.iterdir())
    if source.suffix != ".safetensors" or not source.exists():
        return source.exists()
    return layout is not None or bool(pretrained.layouts_of(source))


def check_published(
    source: Path, layout: str | None, fresh: tuple[str, ...], experiment: Experiment
) -> None:
    """Checks that a model can begin with published weights; reads none of the numbers.

    Args:
        source: of the weights, as `fmjax.models.pretrained.load` takes it.
        layout: as there; None to recognise it.
        fresh: patterns of the parameters that begin anew.
        experiment: of the model.

    Raises:
        InputError: they are of no known layout or of several, of another network than the run's, or
            their output means something else.
    """
    layout, model = _layout(source, layout), _of_one_time(experiment.model)
    network = pretrained.outline(source, layout, model)
    _check_meaning(source, network, experiment)
    _check_fields(source, layout, model)
    _check_channels(source, network, experiment)
    report = pretrained.inspect(source, layout, model, fresh)
    for name, other in report.other_shape.items():
        raise InputError(
            f"{source} holds {name} of shape {list(other.found)}, and the network of this run "
            f"takes {list(other.expected)}: give the model.* keys and the classes of the file, or "
            f"--init_fresh={other.parameter} to begin that parameter anew and keep all others."
        )
    for name in report.missing:
        raise InputError(
            f"{source} lacks {name}, which the network of this run takes: give the model.* keys of "
            "the file, or a whole one."
        )
    for name in report.unknown:
        raise InputError(
            f"{source} holds {name}, for which the network of this run has no place: give the "
            "model.* keys of the file."
        )


def published_params(
    source: Path,
    layout: str | None,
    fresh: tuple[str, ...],
    experiment: Experiment,
    mesh: jax.sharding.Mesh,
) -> Any:
    """Published weights as parameters, each device its own part.

    Args:
        source: as in `check_published`, which has passed.
        layout: as there.
        fresh: as there.
        experiment: of the model.
        mesh: of all devices.

    Raises:
        InputError: a number is NaN.
    """
    model, seed = _of_one_time(experiment.model), experiment.train.seed
    layout = _layout(source, layout)
    how = {"mesh": mesh, "model": model, "fresh": fresh, "seed": seed}
    return pretrained.load(source, layout, **how).params


def _layout(source: Path, layout: str | None) -> str | None:
    """The name of the layout, where there is one."""
    known = pretrained.layouts_of(source) if layout is None else (layout,)
    if len(known) > 1:
        names = " or ".join(f"--init_layout={name} ({_what(name)})" for name in known)
        raise InputError(
            f"{source} has the names of more than one kind of network, which use them differently: "
            f"write {names}."
        )
    return known[0] if known else None


def _what(layout: str) -> str:
    return pretrained.LAYOUTS[layout]


def _of_one_time(model: Any) -> Any:
    """The network without what a network of two times has beside one of one time."""
    if not getattr(model, "span", False):
        return model
    fields = {field.name for field in dataclasses.fields(model)}
    return model.clone(**{k: v for k, v in _OF_TWO_TIMES.items() if k in fields})


def is_meant_as(network: pretrained.Network, experiment: Experiment) -> bool:
    """Whether a published network gives what a run learns, asked as the run asks its own.

    Args:
        network: as `fmjax.models.pretrained.outline` gives it.
        experiment: of the run.
    """
    meaning = dict(experiment.architecture)
    # Stored pairs are learned along a path of their own, beginning with the flow that made them.
    same_path = network.path == experiment.path or experiment.pairs is not None
    same_time = str(network.at_steps) == meaning["model.at_steps"]
    return network.prediction == meaning["loss.prediction"] and same_path and same_time


def _check_meaning(source: Path, network: pretrained.Network, experiment: Experiment) -> None:
    """Checks that the network gives what this run learns, asked as this run asks its own."""
    if is_meant_as(network, experiment):
        return
    raise InputError(
        f"{source} is {_what(network.family)}, which predicts {network.prediction} on "
        f"{network.path}, and this run {meaning_of(experiment)}: write {_keys_of(network)}."
    )


def meaning_of(experiment: Experiment) -> str:
    """What the network of a run gives, as a sentence that follows its name."""
    meaning = dict(experiment.architecture)
    asked = "the step that t lies at" if meaning["model.at_steps"] == "True" else "t"
    return f"predicts {meaning['loss.prediction']} on {experiment.path}, asked at {asked}"


def _keys_of(network: pretrained.Network) -> str:
    """The keys of the configuration of a run that means the same as a published network."""
    defaults = default_config().path
    path = next(name for name, make in PATHS.items() if make(defaults) == network.path)
    return (
        f"loss.prediction={network.prediction}, path.name={path} and model.at_steps="
        f"{network.at_steps}, with the other keys of path as they are by default"
    )


def _check_fields(source: Path, layout: str | None, model: Any) -> None:
    """Checks the fields of the network, where the file tells them."""
    try:
        theirs = pretrained.outline(source, layout).model
    except InputError:  # its heads are those of no published size, and nothing tells them
        return
    pairs = {
        field.name: (getattr(theirs, field.name), getattr(model, field.name))
        for field in dataclasses.fields(theirs)
        if field.name not in _HOW
    }
    pairs["channels of a head"] = theirs.head_sizes(), model.head_sizes()
    told = [f"{name}={a!r} (here: {b!r})" for name, (a, b) in pairs.items() if a != b]
    if told:
        raise InputError(
            f"{source} is of another network than this run's, with {', '.join(told)}: give the "
            "model.* keys of the file."
        )


def _check_channels(source: Path, network: pretrained.Network, experiment: Experiment) -> None:
    """Checks that the examples have the channels that the network takes."""
    theirs, ours = network.shape[-1], experiment.spec.shape[-1]
    if theirs != ours:
        raise InputError(
            f"{source} takes examples of {theirs} channels, and the data "
            f"{experiment.data.name!r} have {ours}: give data of {theirs} channels, as its "
            "autoencoder encodes them."
        )
