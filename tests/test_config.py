"""Every key of the configuration: declared with a range and help, and checked before all else."""

import json
import re

import pytest
from flax.traverse_util import flatten_dict

from fmjax.conditions import ClassIds
from fmjax.config import KEYS, check_config, default_config
from fmjax.couplings.entropic import ROUNDINGS
from fmjax.data.codecs import Vectors
from fmjax.errors import InputError
from fmjax.factory import DataSpec, flow_map, make_experiment, model, registry, tokens
from fmjax.factory.settings import check_settings
from fmjax.flow_maps import Jumps
from fmjax.keys import NAME, TEXT, walk
from fmjax.losses.regression import TARGETS
from fmjax.models import dit, flux, mmdit, token_transformer, unet
from fmjax.models.attention import KERNELS
from fmjax.models.transformer import FEED_FORWARDS, NORMS, REMAT
from fmjax.predictions import PREDICTIONS
from fmjax.run.cli import find_config
from fmjax.run.compile.programs import compile_training, record_of
from fmjax.run.train.setup import build
from fmjax.samplers import METHODS, SOLVERS
from fmjax.training.optimizer import SCHEDULES
from tests.conftest import ROOT

PRESETS = {
    **dit.PRESETS,
    **flux.PRESETS,
    **mmdit.PRESETS,
    **token_transformer.PRESETS,
    **unet.PRESETS,
}
DECLARED = dict(walk(KEYS))
TABLES = {
    "model.name": {name for name in model.MODELS if name not in PRESETS},
    "source.name": registry.SOURCES,
    "path.name": {*registry.PATHS, *registry.TOKEN_PATHS},
    "path.kappa": tokens.KAPPAS,
    "loss.tokens": tokens.LOSSES,
    "coupling.name": registry.COUPLINGS,
    "time.name": registry.TIMES,
    "loss.distance": registry.DISTANCES,
    "loss.weight": registry.WEIGHTS,
    "flow_map.name": {"none", *flow_map.IDENTITIES},
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


WORDS = {
    "model.dtype": model.COMPUTE_DTYPES,
    "model.attention": ("auto", *KERNELS),
    "model.remat": REMAT,
    "model.norm": NORMS,
    "model.mlp": FEED_FORWARDS,
    "loss.target": TARGETS,
    "loss.prediction": PREDICTIONS,
    "optimizer.schedule": SCHEDULES,
    "coupling.rounding": ROUNDINGS,
    "flow_map.span": flow_map.SPANS,
    "flow_map.derivative": ("jvp", "fd"),
}


def test_words_to_choose_from_are_those_that_are_known():
    declared = {name: key.range for name, key in DECLARED.items() if isinstance(key.range, tuple)}
    assert {name: set(words) for name, words in declared.items()} == {
        name: set(known) for name, known in WORDS.items()
    }
    names = {*SOLVERS, *METHODS, *registry.TOKEN_SOLVERS, "jumps"}
    config = default_config()
    assert registry.make_usual_solver(config).describe()["solver"] in names
    config.flow_map.name = "meanflow"
    assert registry.make_usual_solver(config) == Jumps(1)


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
    "model.norm": ["batch"],
    "model.mlp_ratio": [0.0],
    "model.bottleneck": [0],
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


BIG, SMALL = 3e38, 1e-30
ENDS = [
    ({"path.name": "vp"}, {"path.beta_min": [SMALL, 20.0], "path.beta_max": [0.1, BIG]}),
    ({"path.name": "linear"}, {"path.sigma_min": [0.0, 0.999]}),
    ({"path.name": "polynomial"}, {"path.power": [1.0, BIG]}),
    ({"path.name": "noisy"}, {"path.sigma": [SMALL, BIG]}),
    ({"path.name": "bridge"}, {"path.sigma": [SMALL, BIG]}),
    ({"source.name": "uniform"}, {"source.low": [-BIG, 0.999], "source.high": [-0.999, BIG]}),
    ({"coupling.name": "sinkhorn"}, {"coupling.epsilon": [SMALL, BIG]}),
    ({"coupling.name": "unbalanced"}, {"coupling.relax": [SMALL, BIG]}),
    ({"coupling.name": "partial"}, {"coupling.fraction": [SMALL, 1.0]}),
    ({"time.name": "logit_normal"}, {"time.mean": [-BIG, BIG], "time.std": [SMALL, BIG]}),
    ({"time.name": "log_normal"}, {"time.mean": [-BIG, BIG], "time.std": [SMALL, BIG]}),
    ({"time.name": "mode"}, {"time.scale": [-1.0, 1.7519]}),
    ({"time.name": "u_shaped"}, {"time.a": [SMALL, 100.0]}),
    ({"time.name": "step_starts"}, {"time.steps": [1, 2**31 - 1]}),
    ({"time.name": "beta"}, {"time.a": [SMALL, BIG], "time.b": [SMALL, BIG]}),
    ({"loss.distance": "pseudo_huber"}, {"loss.c": [SMALL, BIG]}),
    ({"loss.distance": "adaptive"}, {"loss.power": [0.0, 1.0], "loss.c": [SMALL, BIG]}),
    (
        {},
        {"time.shift": [SMALL, BIG], "sample.shift": [SMALL, BIG], "sample.steps": [1, 2**31 - 1]},
    ),
    ({}, {"labels.drop_rate": [0.0, 1.0], "labels.drop_all": [0.0, 1.0], "labels.null": [0, 3]}),
    ({}, {"optimizer.b1": [0.0, 0.999], "optimizer.weight_decay": [0.0, BIG]}),
    ({}, {"optimizer.clip_norm": [0.0, BIG], "optimizer.skip_above": [0.0, 1.001, BIG]}),
    ({}, {"optimizer.learning_rate": [SMALL, BIG], "sample.guidance": [-BIG, BIG]}),
    ({}, {"eval.num": [0, 2, 2**31 - 1], "model.time_scale": [SMALL, BIG]}),
]


@pytest.mark.quick_cases(8)
@pytest.mark.parametrize(("names", "ends"), ENDS)
def test_what_a_range_holds_is_taken_by_the_object_that_it_goes_to(names, ends):
    small = {"model.name": "mlp", "model.width": 8, "model.depth": 1}
    for dotted, values in ends.items():
        for value in values:
            config = default_config()
            config.update_from_flattened_dict(small | names | {dotted: value})
            make_experiment(config, DataSpec(Vectors(2), ClassIds(3)))


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
