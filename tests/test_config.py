"""Every key of the configuration: declared with a range and help, and checked before all else."""

import json
import re

import pytest
from flax.traverse_util import flatten_dict

from fmjax.config import KEYS, check_config, default_config
from fmjax.errors import InputError
from fmjax.factory import model, registry
from fmjax.factory.settings import check_settings
from fmjax.keys import NAME, TEXT, walk
from fmjax.models import dit
from fmjax.run.cli import find_config
from fmjax.run.compile.programs import compile_training, record_of
from fmjax.run.train.setup import build
from fmjax.samplers import METHODS, SOLVERS
from tests.conftest import ROOT

DECLARED = dict(walk(KEYS))
TABLES = {
    "model.name": set(model.MODELS) - set(dit.PRESETS),
    "source.name": registry.SOURCES,
    "path.name": registry.PATHS,
    "coupling.name": registry.COUPLINGS,
    "time.name": registry.TIMES,
    "loss.distance": registry.DISTANCES,
    "loss.weight": registry.WEIGHTS,
}
LOOKED_UP_ELSEWHERE = {"data.name", "source.data", "sample.solver"}


@pytest.mark.parametrize("dotted", DECLARED)
def test_every_key_has_help_and_a_range_or_choices(dotted):
    key = DECLARED[dotted]
    assert key.help
    assert "\n" not in key.help
    assert not key.help.endswith(".")
    assert "|" not in key.help + key.unit  # it goes into a table of Markdown
    if key.value_type is bool:
        assert key.range == ""
    elif key.value_type is str:
        assert key.range in (NAME, TEXT) or len(key.range) >= 2
        known_names = {*TABLES, *LOOKED_UP_ELSEWHERE}
        assert (key.range == NAME) == (dotted in known_names)
    else:
        for part in key.range.split(" or "):
            number = r"-?(inf|\d+(\.\d+)?)"
            assert re.fullmatch(rf"[\[(]{number}, {number}[\])]|{number}", part), part


@pytest.mark.parametrize("dotted", TABLES)
def test_the_help_of_a_name_lists_the_names_of_its_table(dotted):
    listed = set(re.findall(r"\w+", DECLARED[dotted].help))
    assert set(TABLES[dotted]) <= listed


def test_words_to_choose_from_are_those_that_the_factory_knows():
    assert set(DECLARED["model.dtype"].range) == set(model.COMPUTE_DTYPES)
    assert DECLARED["sample.solver"].default in {*SOLVERS, *METHODS}


def test_the_defaults_are_those_that_runs_were_made_with():
    """A default that changes makes stored runs others: change it here, and say so."""
    stored = json.loads((ROOT / "tests" / "golden" / "config_defaults.json").read_text())
    assert flatten_dict(default_config().to_dict(), sep=".") == stored


def test_the_defaults_lie_in_their_ranges():
    config = default_config()
    check_settings(config)
    assert {f"{group}.{key}" for group in config for key in config[group]} == set(DECLARED)
    config.model.width = 8  # of this configuration alone
    assert default_config().model.width is None


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs").glob("*.py")))
def test_the_configurations_that_come_with_fmjax_lie_in_their_ranges(name):
    content: dict = {}
    exec(find_config(name).read_text(), content)
    check_settings(content["get_config"]())


OUTSIDE = {
    "optimizer.learning_rate": [float("inf"), 0.0, -1e-3, float("nan")],
    "optimizer.b1": [1.0, -3.0],
    "optimizer.b2": [1.0, -1.0],
    "optimizer.weight_decay": [float("nan"), -0.1],
    "optimizer.clip_norm": [-1.0, float("inf")],
    "optimizer.skip_above": [0.5, 1.0],
    "optimizer.warmup_steps": [-1],
    "train.ema": [1.0, 1.5, -0.1],
    "train.seed": [-1, 2**32],
    "train.steps": [0, 2**31],
    "train.keep": [0],
    "labels.drop_rate": [-0.1, 1.1],
    "labels.drop_all": [2.0],
    "labels.null": [-1],
    "sample.guidance": [1e39, float("nan")],
    "sample.steps": [0],
    "sample.shift": [0.0],
    "path.sigma_min": [-0.1, 1.0],
    "path.beta_min": [0.0],
    "path.sigma": [0.0, 1e-50],
    "time.shift": [-1.0],
    "time.std": [0.0],
    "coupling.groups": [0],
    "coupling.epsilon": [0.0],
    "coupling.relax": [0.0],
    "coupling.fraction": [0.0, 1.1],
    "coupling.rounding": ["nearest"],
    "source.low": [float("-inf")],
    "source.size": [0],
    "data.threads": [0],
    "model.width": [0],
    "model.time_scale": [0.0],
    "model.dtype": ["float16"],
    "mesh.data": [0, -2],
    "eval.num": [1, -1],
    "eval.reference": [3],
    "loss.target": ["flow"],
}


@pytest.mark.parametrize("dotted", OUTSIDE)
def test_a_value_outside_its_range_is_refused_with_its_key(dotted):
    for value in OUTSIDE[dotted]:
        config = default_config()
        config.update_from_flattened_dict({dotted: value})
        with pytest.raises(InputError, match=rf"^{dotted} \(.*\) must be .*; got "):
            check_config(config)


TOGETHER = [
    ({"train.steps": 50}, ["optimizer.warmup_steps=100", "train.steps=50"]),
    ({"coupling.groups": 3}, ["coupling.groups", "train.batch_size=128", "got 3"]),
    ({"train.steps_per_call": 3}, ["train.steps", "train.steps_per_call"]),
    (
        {"train.steps_per_call": 50, "train.sample_every": 75},
        ["train.sample_every", "train.steps_per_call"],
    ),
    ({"path.beta_min": 30.0}, ["path.beta_min=30.0", "path.beta_max=20.0"]),
    ({"source.low": 2.0}, ["source.low=2.0", "source.high=1.0"]),
]


@pytest.mark.parametrize(("changes", "named"), TOGETHER)
def test_numbers_that_do_not_fit_one_another_are_refused_with_both_keys(changes, named):
    config = default_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError) as refused:
        check_settings(config)
    for part in named:
        assert part in str(refused.value)


@pytest.mark.parametrize(
    "start",
    [
        lambda config, folder: build(config, folder, "jit"),
        lambda config, folder: compile_training(config, "v5e:4x4"),
        lambda config, folder: record_of(config, None),
    ],
)
@pytest.mark.parametrize("changes", [{"optimizer.b1": 1.0}, {"train.steps": 50}])
def test_numbers_are_checked_before_the_data_are_opened(tmp_path, start, changes):
    config = default_config()
    config.update_from_flattened_dict({"data.name": "not_there"} | changes)
    (key,) = changes
    with pytest.raises(InputError, match=re.escape(key)):
        start(config, tmp_path / "run")
