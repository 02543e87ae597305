"""The state in shards: which, that every mesh computes the same, and what the compiler does."""

import json
import types

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from fmjax.models.dit import DiT
from fmjax.training.sharding import automatic, notes, partition_of

RULES = DiT.sharding_rules
MESH = types.SimpleNamespace(shape={"data": 2, "fsdp": 4, "tensor": 2})


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        ("params/blocks/attention/qkv/kernel", (28, 1152, 3456), P(None, "fsdp", "tensor")),
        ("ema_params/blocks/attention/out/kernel", (28, 1152, 1152), P(None, "tensor", "fsdp")),
        ("opt_state/1/0/mu/blocks/mlp/up/bias", (28, 4608), P(None, "tensor")),
        # The width does not divide by fsdp: that dimension stays whole, the other is split.
        ("params/blocks/mlp/up/kernel", (28, 1150, 4608), P(None, None, "tensor")),
        # No rule: the largest dimension that divides, never the depth of stacked blocks.
        ("params/condition/time/kernel", (256, 1152), P(None, "fsdp")),
        ("params/out/kernel", (1152, 16), P("fsdp", None)),
        ("params/blocks/adaln/dense/bias", (28, 6912), P(None, "fsdp")),
        ("params/blocks/other", (4096, 3, 30), P()),
        ("params/a", (127, 255), P()),  # nothing divides
        ("step", (), P()),
        ("params/small", (64, 64), P()),
    ],
)
def test_the_first_rule_that_fits_wins(path, shape, spec):
    assert partition_of(path, shape, MESH, RULES) == spec


def test_a_network_without_rules_is_split_by_the_automatic_one_alone():
    path, shape = "params/blocks/attention/out/kernel", (28, 1152, 1152)
    assert partition_of(path, shape, MESH, ()) == P(None, "fsdp", None)
    assert partition_of(path, shape, MESH, ((r"/kernel$", (None, None, "tensor")),)) == P(
        None, None, "tensor"
    )


def test_a_named_dimension_that_does_not_divide_leaves_the_choice_to_the_automatic_rule():
    # DiT-XL on 256 chips: 1152 is no multiple of 256, and 4608 is.
    mesh = types.SimpleNamespace(shape={"data": 1, "fsdp": 256, "tensor": 1})
    up = partition_of("params/blocks/mlp/up/kernel", (28, 1152, 4608), mesh, RULES)
    assert up == P(None, None, "fsdp")
    assert partition_of("params/blocks/attention/out/kernel", (28, 1152, 1152), mesh, RULES) == P()


def test_an_axis_that_splits_nothing_is_said():
    mesh = jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor"), (jax.sharding.AxisType.Auto,) * 3)
    params = {"w": jnp.ones((127, 255))}
    assert notes(params, mesh, ()) == []
    assert automatic("w", (127, 255), 4) == P()
    several = jax.sharding.AbstractMesh((1, 4, 2), ("data", "fsdp", "tensor"))
    text = notes(params, several, ())
    assert [line.split(" divides no")[0] for line in text] == ["mesh.fsdp=4", "mesh.tensor=2"]
    assert notes({"w": jnp.ones((128, 256))}, several, ()) == text[1:]


EIGHT = """
import json
from functools import partial
import jax, numpy as np
from fmjax.conditions import ClassIds
from fmjax.data.codecs import Pixels
from fmjax.factory import DataSpec, make_experiment
from fmjax.config import default_config
from fmjax.factory.training import make_init
from fmjax.roofline.collectives import collectives
from fmjax.roofline.hlo import read_program
from fmjax.training.mesh import MeshSizes
from fmjax.training.parallelism import make_layout
from fmjax.training.step import make_step

config = default_config()
config.model.update(dict(name="dit", patch_size=4, width=128, depth=2, heads=4, scan=True))
experiment = make_experiment(config, DataSpec(Pixels((8, 8, 1)), ClassIds(10)))
n, rules = 16, experiment.sharding_rules


def batch(k):
    rng = np.random.default_rng(k)
    return {
        "x1": rng.integers(0, 255, (n, 8, 8, 1)).astype(np.uint8),
        "labels": rng.integers(0, 10, n).astype(np.int32),
        "index": np.arange(n, dtype=np.int32),
    }


def run(name, sizes, devices, calls=1):
    layout = make_layout(name, jax.devices()[:devices], MeshSizes(*sizes), calls, rules)
    step = make_step(
        experiment.loss_fn, partial(experiment.draw, layout=layout), experiment.optimizer,
        axis_name=layout.axis_name,
    )
    state = layout.init(make_init(experiment), jax.random.key(0))
    held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    key = layout.init(lambda k: k, jax.random.key(1))
    rows = [batch(k) for k in range(4)]
    if calls > 1:
        rows = [{k: np.stack([row[k] for row in rows]) for k in rows[0]}]
    compiled = layout.compile(step).lower(state, key, layout.place(rows[0])).compile()
    losses = []
    for row in rows:
        state, metrics = compiled(state, key, layout.place(row))
        losses += np.atleast_1d(metrics["loss"]).tolist()
    moved = collectives(read_program(compiled.as_text())) if name == "jit" else {}
    return {
        "losses": losses,
        "held": held,
        "arguments": compiled.memory_analysis().argument_size_in_bytes,
        "moved": {kind: sums.bytes for kind, sums in moved.items()},
        "state": sum(x.nbytes for x in jax.tree.leaves(state)),
        "params": sum(x.nbytes for x in jax.tree.leaves(state.params)),
    }


print(json.dumps({
    "one": run("jit", (1, 1, 1), 1),
    "data": run("jit", (-1, 1, 1), 8),
    "fsdp": run("jit", (1, -1, 1), 8),
    "tensor": run("jit", (1, 1, 4), 4),
    "mixed": run("jit", (2, 2, 2), 8, calls=4),
    "pmap": run("pmap", (-1, 1, 1), 8, calls=4),
}))
"""


@pytest.mark.slow
def test_every_mesh_computes_what_one_device_does_and_holds_its_shards(run_python):
    found = json.loads(run_python(EIGHT, devices=8, timeout=600).splitlines()[-1])
    one = found["one"]
    for name, result in found.items():
        assert result["losses"] == pytest.approx(one["losses"], rel=1e-4), name
    assert len(set(one["losses"])) == 4
    # An eighth, but for the few small leaves that are whole everywhere.
    fsdp = found["fsdp"]
    assert fsdp["held"] < one["held"] / 8 * 1.2
    assert fsdp["arguments"] < one["arguments"] / 8 * 1.2
    assert found["data"]["held"] == found["data"]["state"]
    assert found["mixed"]["held"] < one["held"] * 0.4
    # Weights are gathered and gradients summed; data parallelism alone gathers nothing.
    assert fsdp["moved"]["all-gather"] > fsdp["params"] / 2
    assert found["data"]["moved"].get("all-gather", 0) < one["params"] / 10
    assert found["data"]["moved"]["all-reduce"] == pytest.approx(one["params"], rel=0.1)
