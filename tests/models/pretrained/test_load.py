"""Wrong weights are one sentence before a number is read; right ones land on their devices."""

import json
import shutil
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fmjax.conditions import ClassIds
from fmjax.errors import InputError
from fmjax.models import pretrained
from fmjax.models.mlp import MLP
from fmjax.models.pretrained import loading
from fmjax.models.pretrained.families import FAMILIES
from fmjax.models.pretrained.rules import by_path, expected_shapes, origins
from tests.models.pretrained.test_goldens import DIFFUSERS, OFFICIAL, tiny


def changed(folder, change, source=OFFICIAL):
    """A file whose tensors are changed first."""
    tensors = load_file(source)
    change(tensors)
    save_file(tensors, folder / "x.safetensors")
    return folder / "x.safetensors"


def without(name):
    return lambda tensors: tensors.pop(name)


def with_one(name, shape):
    return lambda tensors: tensors.update({name: np.zeros(shape, np.float32)})


QKV = "blocks.1.attn.qkv.weight"
EARLY = {
    # what is loaded from a folder: arguments of load, and the message
    "two layouts": (lambda d: {"layout": None}, r"'dit' \(an official DiT\) or layout='sit'"),
    "an unknown layout": (lambda d: {"layout": "dti"}, r"unknown layout 'dti'\. Did you mean 'dit"),
    "another layout": (
        lambda d: {"layout": "diffusers-dit"},
        "is no diffusers-dit: its names are those of an official DiT and of an official SiT",
    ),
    "no known layout": (
        lambda d: {"path": changed(d, without("x_embedder.proj.weight")), "layout": None},
        r"its names \(.*, \.\.\.\) are of no known layout; known are .*dit",
    ),
    "heads unknown": (lambda d: {"model": None}, r"depth 2 and width 16 .* give model=DiT\("),
    "heads unknown in diffusers": (
        lambda d: {"path": next(DIFFUSERS.glob("*.safetensors")), "layout": None, "model": None},
        r"give the folder with its config\.json, or model=DiT",
    ),
    "no path": (lambda d: {"path": 3}, r"path must be that of a file or folder, .*; got 3"),
    "another depth": (
        lambda d: {"model": tiny(depth=3)},
        r"lacks blocks\.2\..* \(and 9 more such\), and is not whole as an official DiT",
    ),
    "another width": (
        lambda d: {"model": tiny(width=32)},
        r"holds .* of shape .*, and the network takes .*leave model out to get the network of the",
    ),
    "another number of classes": (
        lambda d: {"model": tiny(conditions=ClassIds(9))},
        r"table.weight of shape \[6, 16\], and the network takes \[10, 16\]: leave model out .*, "
        r"or write fresh=\('condition/label/table',\) .* how to fine-tune on other classes",
    ),
    "another class": (
        lambda d: {"model": MLP(width=4, depth=1)},
        "an official DiT is a DiT; got model of type MLP",
    ),
    "another scale of time": (
        lambda d: {"model": tiny(time_scale=1000.0)},
        "an official DiT has time_scale=1.0, and model has 1000.0, .*: write time_scale=1.0",
    ),
    "two times": (lambda d: {"model": tiny(span=True)}, "has span=False, and model has True"),
    "numbers of diffusers": (
        lambda d: {"path": DIFFUSERS, "layout": None},
        r"a DiT of diffusers has max_period=10752\..*, and model has 10000.0",
    ),
    "a missing tensor": (lambda d: {"path": changed(d, without(QKV))}, f"lacks {QKV} of shape"),
    "a tensor too many": (
        lambda d: {"path": changed(d, with_one("blocks.0.norm1.weight", (16,)))},
        r"holds blocks\.0\.norm1\.weight, which an official DiT has no place for",
    ),
    "another shape": (
        lambda d: {"path": changed(d, with_one(QKV, (48, 8)))},
        r"qkv.weight of shape \[48, 8\], and the network takes \[48, 16\]",
    ),
    "learned positions": (
        lambda d: {"path": changed(d, with_one("pos_embed", (1, 16, 16)))},
        r"pos_embed of shape \[1, 16, 16\] is not the fixed sines and cosines",
    ),
    "positions of another shape": (
        lambda d: {"path": changed(d, with_one("pos_embed", (1, 15, 16)))},
        r"pos_embed of shape \[1, 15, 16\] is not the fixed sines and cosines",
    ),
    "whole numbers": (lambda d: {"dtype": "int32"}, "expected a floating dtype"),
    "a pattern of nothing": (
        lambda d: {"fresh": ("label/*",)},
        r"fresh: no parameter matches 'label/\*'; there are adaln/dense/bias, .* in all",
    ),
    "a pattern alone": (lambda d: {"fresh": "out/*"}, r"fresh must be a tuple .*; got 'out/\*'"),
    "no dtype": (lambda d: {"dtype": "half?"}, "expected a floating dtype"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EARLY)
def test_what_does_not_fit_is_said_before_a_number_is_read(name, tmp_path, monkeypatch):
    def fill(*_):
        raise AssertionError("a parameter was read")

    monkeypatch.setattr(loading, "fill", fill)
    arguments, message = EARLY[name]
    right = {"path": OFFICIAL, "layout": "dit", "model": tiny()}
    with pytest.raises(InputError, match=message) as error:
        pretrained.load(**(right | arguments(tmp_path)))
    assert "\n" not in str(error.value)


def test_not_a_number_is_found(tmp_path):
    def spoil(tensors):
        tensors[QKV][3, 4] = np.nan

    with pytest.raises(InputError, match=r"blocks\.1\.attn\.qkv\.weight holds NaN"):
        pretrained.load(changed(tmp_path, spoil), "dit", model=tiny())


def test_numbers_beyond_the_dtype_are_found(tmp_path):
    def enlarge(tensors):
        tensors[QKV] = tensors[QKV].astype(np.float32) + 1e6

    path = changed(tmp_path, enlarge)
    with pytest.raises(InputError, match=r"too large for float16: the weights are .* wider"):
        pretrained.load(path, "dit", model=tiny(), dtype=jnp.float16)


@pytest.mark.slow
def test_the_host_holds_little_more_than_the_parameters(tmp_path):
    model = tiny(width=128, depth=8)
    family = next(f for f in FAMILIES if f.name == "sit")
    target = family.abstract_params(model, (8, 8, 4))
    shapes = expected_shapes(origins(family.rules(model), target))
    save_file({k: np.ones(s, np.float32) for k, s in shapes.items()}, tmp_path / "x.safetensors")
    leaves = [leaf.size * 2 for leaf in jax.tree.leaves(target)]
    tracemalloc.start()
    try:
        pretrained.load(tmp_path / "x.safetensors", "sit", model=model, dtype=jnp.bfloat16)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The file is twice the parameters; beside them there is one stack and one of its tensors.
    assert peak < sum(leaves) + 1.6 * max(leaves)


def test_copies_that_differ_are_refused(tmp_path):
    name = "transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.bias"

    def spoil(tensors):
        tensors[name][0] += 1

    folder = tmp_path / "dit"
    shutil.copytree(DIFFUSERS, folder)
    changed(folder, spoil, DIFFUSERS / "diffusion_pytorch_model.safetensors").rename(
        folder / "diffusion_pytorch_model.safetensors"
    )
    with pytest.raises(InputError, match=rf"{name} differs from transformer_blocks\.0\."):
        pretrained.load(folder)


def test_another_class_in_the_configuration_is_another_network(tmp_path):
    folder = tmp_path / "dit"
    shutil.copytree(DIFFUSERS, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_class_name": "PixArt"}))
    with pytest.raises(InputError, match="no known layout"):
        pretrained.load(folder)


def test_inspect_says_everything_and_raises_nothing(tmp_path):
    def change(tensors):
        tensors.pop(QKV)
        tensors["more"] = np.zeros(3)
        tensors["x_embedder.proj.bias"] = np.zeros(3)

    report = pretrained.inspect(changed(tmp_path, change), "sit", tiny())
    assert report.missing == {QKV: (48, 16)}
    assert report.unknown == ("more",)
    assert report.other_shape["x_embedder.proj.bias"][:2] == ((3,), (16,))
    for line in ("missing blocks.1", "unknown more", "x_embedder.proj.bias has shape [3] and not"):
        assert line in str(report)


@pytest.mark.slow
def test_other_classes_begin_anew_and_all_else_is_read():
    whole = pretrained.load(OFFICIAL, "sit", model=tiny())
    model, fresh = tiny(conditions=ClassIds(9)), ("condition/label/*",)
    net = pretrained.load(OFFICIAL, "sit", model=model, fresh=fresh, seed=3)
    name = "condition/label/table"
    expected, found = by_path(whole.params), by_path(net.params)
    x, t = jnp.zeros((1, 8, 8, 4)), jnp.zeros(1)
    made = jax.jit(model.init)(jax.random.key(3), x, t, jnp.zeros(1, jnp.int32))["params"]
    assert list(found) == list(expected)
    for path, leaf in found.items():
        like = by_path(made)[path] if path == name else expected[path]
        np.testing.assert_array_equal(leaf, like, err_msg=path)
    assert found[name].shape == (10, 16)
    unread = {"y_embedder.embedding_table.weight": "its parameter begins anew"}
    assert unread.items() <= net.report.left_out.items()
    assert pretrained.inspect(OFFICIAL, "sit", model, fresh) == net.report
    out = jax.eval_shape(net.apply_fn, net.params, x, t, jnp.asarray([9]))
    assert out.shape == x.shape


def test_what_begins_anew_may_be_missing_from_the_file(tmp_path):
    path = changed(tmp_path, without("final_layer.linear.bias"))
    net = pretrained.load(path, "sit", model=tiny(), fresh=("out/bias",), dtype=jnp.bfloat16)
    assert net.params["out"]["bias"].dtype == jnp.bfloat16
    assert not np.any(net.params["out"]["bias"])  # as init makes it


WRONG_SAVE = {
    "an unknown layout": ({"layout": "st"}, "unknown layout 'st'"),
    "no shape": ({"shape": ()}, r"shape=\(\): an official SiT is saved for examples of one shape"),
    "no size": ({"shape": (None, None, 4)}, r"stores positions for one size of image"),
    "another network": ({"model": tiny(width=32)}, "not those of the model: adaln/dense/bias is"),
    "another depth": ({"model": tiny(depth=1)}, "give the model that they belong to"),
    "another scale of time": ({"model": tiny(time_scale=9.0)}, "has time_scale=1.0, and model"),
    "a dtype": ({"dtype": "float8"}, "dtype='float8': expected one of float32, bfloat16, or None"),
}


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("name", WRONG_SAVE)
def test_what_cannot_be_saved_is_said_and_leaves_nothing(name, tmp_path):
    net = pretrained.load(OFFICIAL, "sit", model=tiny())
    changes, message = WRONG_SAVE[name]
    right = {"layout": "sit", "model": net.model, "shape": net.shape}
    with pytest.raises(InputError, match=message):
        pretrained.save(tmp_path / "a" / "x.safetensors", net.params, **{**right, **changes})
    assert not any(tmp_path.iterdir())


def test_save_makes_the_folder_and_takes_a_dtype(tmp_path):
    net = pretrained.load(OFFICIAL, "sit", model=tiny())
    path = tmp_path / "a" / "x.safetensors"
    pretrained.save(path, net.params, "sit", net.model, shape=net.shape, dtype="bfloat16")
    assert pretrained.load(path, "sit", model=tiny()).report == net.report


@pytest.mark.slow
def test_each_device_holds_its_part_and_the_whole_is_the_same(run_python):
    out = run_python(
        f"""
        import jax, numpy as np
        from fmjax.models import pretrained
        from fmjax.training.mesh import MeshSizes, make_mesh
        from fmjax.conditions import ClassIds
        from fmjax.models.dit import DiT

        model = DiT(
            patch_size=2, width=16, depth=2, heads=2, conditions=ClassIds(5), variance=True,
            time_scale=1.0
        )
        one = pretrained.load({str(OFFICIAL)!r}, "sit", model=model)
        mesh = make_mesh(sizes=MeshSizes(data=1, fsdp=2, tensor=2))
        many = pretrained.load({str(OFFICIAL)!r}, "sit", model=model, mesh=mesh)
        jax.tree.map(np.testing.assert_array_equal, one.params, many.params)
        up = many.params["blocks"]["mlp"]["up"]["kernel"]
        print(up.shape, {{shard.data.shape for shard in up.addressable_shards}})
        """,
        devices=4,
    )
    assert out.strip() == "(2, 16, 64) {(2, 8, 32)}"
