"""LightningDiT and the blocks of JiT, held to numpy under the official names of their tensors.

The reference is written from the papers (arXiv:2501.01423, arXiv:2511.13720) and the layouts: no
package has these networks.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import ClassIds
from fmjax.errors import InputError
from fmjax.models.dit import PRESETS, DiT, preset
from fmjax.models.embedders import sincos_2d
from fmjax.models.pretrained import jit, load, save
from fmjax.models.pretrained.filling import fill
from fmjax.models.pretrained.lightningdit import LIGHTNING
from fmjax.models.pretrained.rules import by_path, expected_shapes, origins
from fmjax.storage.weight_files import WeightFiles

safetensors = pytest.importorskip("safetensors.numpy")

SIDE, CHANNELS, HEADS, WIDTH = 4, 3, 2, 16
FIELDS = {
    "width": WIDTH,
    "depth": 2,
    "heads": HEADS,
    "mlp_ratio": 1.5,
    "conditions": ClassIds(5),
    "time_scale": 1.0,
    "norm": "rms",
    "mlp": "swiglu",
    "rope": True,
}
LIGHT = DiT(patch_size=1, **FIELDS)
JIT = DiT(patch_size=2, **FIELDS, qk_norm=True, bottleneck=5, label_tokens=3, label_tokens_from=1)
SHAPE = (SIDE, SIDE, CHANNELS)
X = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype(np.float32)
T = np.array([0.2, 0.9], np.float32)
LABELS = np.array([3, 5], np.int32)


def family_of(model):
    return jit.JIT if model.label_tokens else LIGHTNING


def weights(model):
    family = family_of(model)
    params = family.abstract_params(model, SHAPE)
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in expected_shapes(origins(family.rules(model), params)).items()
    }


def official(w, x, t, labels, patch):
    """The velocity, (B, H, W, C), in float64."""
    w = {name: a.astype(np.float64) for name, a in w.items()}

    def dense(x, name):
        weight = w[f"{name}.weight"]
        return x @ weight.reshape(len(weight), -1).T + w.get(f"{name}.bias", 0)

    def rms(x, name):
        return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6) * w[f"{name}.weight"]

    def silu(x):
        return x / (1 + np.exp(-x))

    def modulated(x, shift, scale):
        return x * (1 + scale[:, None]) + shift[:, None]

    B, H, W, C = x.shape
    rows, columns, p = H // patch, W // patch, patch
    tokens = x.reshape(B, rows, p, columns, p, C).transpose(0, 1, 3, 5, 2, 4)  # as a convolution
    h = tokens.reshape(B, rows * columns, -1)
    embedders = ("x_embedder.proj",)
    if "x_embedder.proj1.weight" in w:
        embedders = ("x_embedder.proj1", "x_embedder.proj2")
    for name in embedders:
        h = dense(h, name)
    h = h + sincos_2d(rows, columns, h.shape[-1])
    angles = t[:, None] * np.exp(-np.log(10_000) * np.arange(128) / 128)
    time = np.concatenate([np.cos(angles), np.sin(angles)], -1)
    c = dense(silu(dense(time, "t_embedder.mlp.0")), "t_embedder.mlp.2")
    y = w["y_embedder.embedding_table.weight"][labels]
    c = silu(c + y)

    size = WIDTH // HEADS
    half = 10_000.0 ** (-np.arange(0, size // 2, 2) / (size // 2))
    i, j = np.divmod(np.arange(rows * columns), columns)
    turn = np.exp(1j * np.concatenate([np.outer(i, half), np.outer(j, half)], 1))[:, None]

    def turned(x):
        pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
        return np.stack([pairs.real, pairs.imag], -1).reshape(x.shape)

    def attention(x, name):
        q, k, v = dense(x, f"{name}.qkv").reshape(B, -1, 3, HEADS, size).transpose(2, 0, 1, 3, 4)
        if f"{name}.q_norm.weight" in w:
            q, k = rms(q, f"{name}.q_norm"), rms(k, f"{name}.k_norm")
        scores = np.einsum("bqhd,bkhd->bhqk", turned(q), turned(k)) / np.sqrt(size)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        return dense(np.einsum("bhqk,bkhd->bqhd", scores, v).reshape(x.shape), f"{name}.proj")

    for n in range(2):
        if n == 1 and "in_context_posemb" in w:
            own = w["in_context_posemb"]
            h = np.concatenate([y[:, None] + own, h], 1)
            turn = np.concatenate([np.ones((own.shape[1], *turn.shape[1:])), turn])
        b = f"blocks.{n}"
        s1, m1, g1, s2, m2, g2 = np.split(dense(c, f"{b}.adaLN_modulation.1"), 6, -1)
        h = h + g1[:, None] * attention(modulated(rms(h, f"{b}.norm1"), s1, m1), f"{b}.attn")
        gate, up = np.split(dense(modulated(rms(h, f"{b}.norm2"), s2, m2), f"{b}.mlp.w12"), 2, -1)
        h = h + g2[:, None] * dense(silu(gate) * up, f"{b}.mlp.w3")
    h = h[:, -rows * columns :]
    shift, scale = np.split(dense(c, "final_layer.adaLN_modulation.1"), 2, -1)
    h = dense(modulated(rms(h, "final_layer.norm_final"), shift, scale), "final_layer.linear")
    return h.reshape(B, rows, columns, p, p, C).transpose(0, 1, 3, 2, 4, 5).reshape(x.shape)


def filled(model, tensors):
    """Parameters from tensors under official names."""
    shapes = {name: a.shape for name, a in tensors.items()}
    files = WeightFiles(Path("in memory"), shapes, {}, tensors.__getitem__)
    family = family_of(model)
    target = family.abstract_params(model, SHAPE)
    where = origins(family.rules(model), target)
    leaves = [fill(files, o, leaf) for o, leaf in zip(where, by_path(target).values(), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(target), leaves)


@pytest.mark.slow
@pytest.mark.parametrize("model", [LIGHT, JIT], ids=["LightningDiT", "JiT"])
def test_the_velocity_is_that_of_the_official_network(model):
    tensors = weights(model)
    ours = jax.jit(model.apply)({"params": filled(model, tensors)}, X, T, LABELS)
    theirs = official(tensors, X.astype(np.float64), T.astype(np.float64), LABELS, model.patch_size)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def saved(folder, model=LIGHT):
    path = folder / "light.safetensors"
    save(path, filled(model, weights(model)), family_of(model).name, model, shape=SHAPE)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("model", [LIGHT, JIT], ids=["LightningDiT", "JiT"])
def test_what_came_in_goes_out_bit_for_bit(tmp_path, model):
    path = saved(tmp_path, model)
    net = load(path, model=model)
    family, prediction = ("jit", "x1") if model is JIT else ("lightningdit", "velocity")
    assert (net.family, net.prediction, net.shape) == (family, prediction, SHAPE)
    rotations = [] if model is JIT else ["feat_rope.freqs_cos", "feat_rope.freqs_sin"]
    assert sorted(net.report.left_out) == [*rotations, "pos_embed"]
    again = tmp_path / "again.safetensors"
    save(again, net.params, net.family, net.model, shape=net.shape)
    assert path.read_bytes() == again.read_bytes()
    tensors, before = safetensors.load_file(path), weights(model)
    for name, values in before.items():
        np.testing.assert_array_equal(tensors[name], values)


@pytest.mark.parametrize(("model", "name"), [(LIGHT, "DiT"), (JIT, "JiT")])
def test_heads_of_a_size_that_was_not_published_are_asked_for(tmp_path, model, name):
    with pytest.raises(InputError, match=f"how many heads a {name} of depth 2 and width 16 has"):
        load(saved(tmp_path, model))


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("JiT")])
def test_a_published_jit_is_built_from_its_shapes(name):
    model = preset(name, conditions=ClassIds(1000), time_scale=1.0)
    side = 16 * model.patch_size
    params = jit.JIT.abstract_params(model, (side, side, 3))
    shapes = expected_shapes(origins(jit.JIT.rules(model), params))
    found = jit.JIT.build(shapes, {})
    assert found.clone(mlp_ratio=model.mlp_ratio) == model
    assert jit.JIT.abstract_params(found, (side, side, 3)) == params


def test_a_network_without_rotation_is_refused(tmp_path):
    with pytest.raises(InputError, match="LightningDiT has rope=True, and model has False"):
        load(saved(tmp_path), model=LIGHT.clone(rope=False))


def test_another_rotation_is_refused(tmp_path):
    path = saved(tmp_path)
    tensors = safetensors.load_file(path)
    tensors["feat_rope.freqs_sin"] = tensors["feat_rope.freqs_sin"][:, ::-1].copy()
    safetensors.save_file(tensors, path)
    with pytest.raises(InputError, match="freqs_sin is not the rotation by row and column"):
        load(path, model=LIGHT)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("how", [{"scan": True, "remat": "full"}, {"dtype": jnp.bfloat16}])
def test_how_it_is_computed_changes_little(how):
    params = filled(JIT, weights(JIT))
    plain = jax.jit(JIT.apply)({"params": params}, X, T, LABELS)
    other = jax.jit(JIT.clone(**how).apply)({"params": params}, X, T, LABELS)
    tolerance = 0.05 if "dtype" in how else 1e-5
    assert np.linalg.norm(other - plain) < tolerance * np.linalg.norm(plain)
