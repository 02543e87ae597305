"""The state of an experiment is split by the rules that its network brings."""

import jax
import pytest
from jax.sharding import PartitionSpec as P

from fmjax.conditions import ClassIds
from fmjax.config import default_config
from fmjax.data.codecs import Pixels
from fmjax.factory import DataSpec, make_experiment
from fmjax.factory.training import abstract_state
from fmjax.models.dit import DiT
from fmjax.run.train.setup import build

MESH = jax.sharding.AbstractMesh((1, 2, 2), ("data", "fsdp", "tensor"))


def config(**model):
    changed = default_config()
    changed.model.update(model)
    return changed


@pytest.mark.parametrize(
    ("model", "rules"),
    [
        ({"name": "mlp"}, ()),
        ({"name": "DiT-S/8", "depth": 1}, DiT.sharding_rules),
    ],
)
def test_an_experiment_has_the_rules_of_its_network(model, rules, tmp_path):
    assert (
        make_experiment(config(**model), DataSpec(Pixels((8, 8, 1)), ClassIds(10))).sharding_rules
        == rules
    )
    assert build(config(**model), tmp_path, "jit").layout.rules == rules


def test_parameters_averages_and_moments_are_split_by_the_rules():
    experiment = make_experiment(
        config(name="DiT-S/8", depth=1), DataSpec(Pixels((8, 8, 1)), ClassIds(10))
    )
    state = abstract_state(experiment, MESH)
    kernels = [
        leaf.sharding.spec
        for keys, leaf in jax.tree_util.tree_leaves_with_path(state)
        if "blocks/attention/out/kernel" in jax.tree_util.keystr(keys, simple=True, separator="/")
    ]
    assert kernels == [P(None, "tensor", "fsdp")] * 4  # parameters, average, two moments
