"""Tiny weights under published names give the numbers that PyTorch gives with them.

The files are made by `tests/golden/make_pretrained.py`.
"""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fmjax.conditions import ClassIds
from fmjax.errors import InputError
from fmjax.models import pretrained
from fmjax.models.autoencoders import tiled
from fmjax.models.dit import DiT
from fmjax.predictions import as_velocity

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "pretrained"
OFFICIAL = GOLDEN / "dit_official.safetensors"
DIFFUSERS = GOLDEN / "diffusers_dit"


def tiny(**fields):
    """The network of the official golden file, whose heads cannot be read from its shapes."""
    base = {"patch_size": 2, "width": 16, "depth": 2, "heads": 2, "conditions": ClassIds(5)}
    return DiT(**{**base, "time_scale": 1.0, "variance": True, **fields})


NETWORKS = {
    "dit": ("dit_official", lambda **how: pretrained.load(OFFICIAL, "dit", model=tiny(), **how)),
    "sit": ("sit_official", lambda **how: pretrained.load(OFFICIAL, "sit", model=tiny(), **how)),
    "diffusers-dit": ("diffusers_dit", lambda **how: pretrained.load(DIFFUSERS, **how)),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def given(name):
    """The stored arrays, with the times of steps in the convention of fmjax."""
    arrays = dict(np.load(GOLDEN / f"{NETWORKS[name][0]}.npz"))
    if name != "sit":
        arrays["t"] = np.float32(1 - (arrays["t"] + 1) / 1000)
    return arrays


def relative(found, expected):
    return np.abs(np.asarray(found, np.float32) - expected).max() / np.abs(expected).max()


@pytest.mark.day_cases(1)
@pytest.mark.slow
@every_network
def test_outputs_and_gradients_are_those_of_pytorch(name):
    net, arrays = NETWORKS[name][1](), given(name)

    def squares(x):
        out = net.apply_fn(net.params, x, arrays["t"], arrays["labels"])
        return jnp.sum(out**2), out

    gradient, out = jax.jit(jax.grad(squares, has_aux=True))(arrays["x"])
    assert relative(out, arrays["out"]) < 1e-5
    assert relative(gradient, arrays["gradient"]) < 1e-5
    assert net.family == name
    assert net.shape == arrays["x"].shape[1:]


@every_network
def test_weights_that_go_out_again_are_the_same_bit_for_bit(name, tmp_path, float16):
    net = NETWORKS[name][1](dtype=jnp.float16)
    path = tmp_path / "saved.safetensors"
    pretrained.save(path, net.params, net.family, net.model, shape=net.shape)
    source = OFFICIAL if name != "diffusers-dit" else next(DIFFUSERS.glob("*.safetensors"))
    found, expected = load_file(path), load_file(source)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].tobytes() == value.tobytes(), key


@pytest.mark.quick_cases(1)
@every_network
def test_bfloat16_is_within_its_rounding(name):
    net, arrays = NETWORKS[name][1](dtype=jnp.bfloat16), given(name)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(net.params))
    out = jax.jit(net.apply_fn)(net.params, arrays["x"], arrays["t"], arrays["labels"])
    assert relative(out, arrays["out"]) < 2e-2


def test_the_velocity_of_a_dit_is_the_path_s_own_with_its_noise():
    net, arrays = NETWORKS["dit"][1](), given("dit")
    x, t, labels = (arrays[key][1:3] for key in ("x", "t", "labels"))
    noise, schedule = arrays["out"][1:3], net.path.schedule
    a, s, da, ds = (
        np.asarray(f(t), np.float64)[:, None, None, None]
        for f in (schedule.alpha, schedule.sigma, schedule.d_alpha, schedule.d_sigma)
    )
    expected = da * (x - s * noise) / a + ds * noise
    velocity = as_velocity(net.apply_fn, schedule, net.prediction, margin=1e-3)
    found = jax.jit(velocity)(net.params, x, t, labels)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_a_sit_is_a_velocity_of_the_straight_path():
    net = NETWORKS["sit"][1]()
    assert net.prediction == "velocity"
    assert float(net.path.schedule.alpha(jnp.float32(0.3))) == np.float32(0.3)


def test_the_report_names_every_tensor_once():
    report = NETWORKS["dit"][1]().report
    names = [*report.read, *report.left_out]
    assert sorted(names) == sorted(load_file(OFFICIAL))
    assert list(report.left_out) == ["pos_embed"]
    assert [report.missing, report.other_shape, report.unknown] == [{}, {}, ()]
    assert str(report).startswith(f"{len(report.read)} tensors read\nleft out pos_embed: fixed")
    assert pretrained.inspect(OFFICIAL, "dit", tiny()) == report


def test_an_official_file_of_pytorch_gives_the_same_parameters(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {key: torch.from_numpy(x) for key, x in load_file(OFFICIAL).items()}
    torch.save({"model": {}, "ema": tensors, "opt": {}}, tmp_path / "x.pt")
    found = pretrained.load(tmp_path / "x.pt", "dit", model=tiny()).params
    jax.tree.map(np.testing.assert_array_equal, found, NETWORKS["dit"][1]().params)


def test_a_network_without_a_variance_goes_out_and_in(tmp_path):
    net = NETWORKS["sit"][1]()
    half = {key: x[..., :16].reshape(*x.shape[:-1], 16) for key, x in net.params["out"].items()}
    model, path = tiny(variance=False), tmp_path / "x.safetensors"
    pretrained.save(path, {**net.params, "out": half}, "sit", model, shape=net.shape)
    assert load_file(path)["final_layer.linear.weight"].shape == (16, 16)
    assert pretrained.load(path, "sit", model=model).params["out"]["kernel"].shape == (16, 16)


def test_other_positions_are_saved_for_another_size_of_image(tmp_path):
    net = NETWORKS["dit"][1]()
    path = tmp_path / "wide.safetensors"
    pretrained.save(path, net.params, "dit", net.model, shape=(16, 16, 4))
    assert pretrained.load(path, "dit", model=tiny()).shape == (16, 16, 4)


# ---------------------------------------------------------------------------- autoencoders

AUTOENCODERS = {
    # folder: layout, scale, shift
    "taesd": ("taesd", 1.0, 0.0),
    "diffusers_taesd": ("diffusers-taesd", 1.0, 0.0),
    "diffusers_kl_quant": ("sd-vae", 0.18215, 0.0),
    "diffusers_kl": ("flux-vae", 0.3611, 0.1159),
}
every_autoencoder = pytest.mark.parametrize("folder", AUTOENCODERS)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@every_autoencoder
def test_an_autoencoder_encodes_and_decodes_as_pytorch_does(folder):
    found, arrays = pretrained.load(GOLDEN / folder), np.load(GOLDEN / f"{folder}.npz")
    assert (found.family, found.scale, found.shift) == AUTOENCODERS[folder]
    latent = found.encode(arrays["x"])
    assert relative(latent.mean, arrays["mean"]) < 1e-5
    assert relative(found.decode(arrays["z"]), arrays["out"]) < 1e-5
    assert (latent.logvar is None) == ("logvar" not in arrays)
    if "logvar" in arrays:
        assert relative(latent.logvar, arrays["logvar"]) < 1e-5


@pytest.mark.slow
def test_large_latents_are_decoded_by_tiles_as_diffusers_does():
    folder = "diffusers_kl_quant"
    found, arrays = pretrained.load(GOLDEN / folder), np.load(GOLDEN / f"{folder}.npz")
    assert relative(tiled(found.decode, arrays["large"], 4), arrays["tiled"]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("axes", [2, 4])
def test_older_names_of_the_attention_are_the_same_network(axes, tmp_path):
    folder = GOLDEN / "diffusers_kl_quant"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, x in load_file(folder / "diffusion_pytorch_model.safetensors").items():
        for new, old in names.items():
            if f".{new}." in name:
                name = name.replace(new, old)
                x = x[:, :, None, None] if x.ndim == 2 and axes == 4 else x
        tensors[name] = x
    shutil.copy(folder / "config.json", tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    found, expected = pretrained.load(tmp_path), pretrained.load(folder)
    assert found.family == {2: "sd-vae-old", 4: "sd-vae-oldest"}[axes]
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    saved = tmp_path / "saved.safetensors"
    pretrained.save(saved, found.params, found.family, found.model)
    assert {k: x.shape for k, x in load_file(saved).items()} == {
        k: x.shape for k, x in tensors.items()
    }


@pytest.mark.day_cases(1)
@pytest.mark.slow
@every_autoencoder
def test_an_autoencoder_goes_out_again_bit_for_bit(folder, tmp_path, float16):
    found = pretrained.load(GOLDEN / folder, dtype=jnp.float16)
    halves = folder == "taesd"
    target = tmp_path / ("saved" if halves else "saved.safetensors")
    pretrained.save(target, found.params, found.family, found.model)
    sources = sorted((GOLDEN / folder).glob("*.safetensors"))
    saved = sorted(target.iterdir()) if halves else [target]
    for one, other in zip(saved, sources, strict=True):
        tensors, expected = load_file(one), load_file(other)
        assert tensors.keys() == expected.keys()
        for key, value in expected.items():
            assert tensors[key].tobytes() == value.tobytes(), key
    if halves:
        assert [path.name for path in saved] == [path.name for path in sources]


def test_the_halves_are_found_by_their_common_name(tmp_path):
    for part in ("encoder", "decoder"):
        for name in ("a", "b"):
            shutil.copy(
                GOLDEN / "taesd" / f"taesd_{part}.safetensors",
                tmp_path / f"{name}_{part}.safetensors",
            )
    assert pretrained.load(tmp_path / "b").family == "taesd"
    with pytest.raises(InputError, match=r"holds several autoencoders: give .*a, say, for the one"):
        pretrained.load(tmp_path)


@pytest.mark.parametrize(
    ("folder", "key", "message"),
    [
        ("diffusers_taesd", "act_fn", "a tiny autoencoder with act_fn='mish' is not known"),
        ("diffusers_kl", "act_fn", "an AutoencoderKL with act_fn='mish' is not known"),
    ],
)
def test_another_activation_is_refused(folder, key, message, tmp_path):
    shutil.copytree(GOLDEN / folder, tmp_path / folder)
    config = tmp_path / folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {key: "mish"}))
    with pytest.raises(InputError, match=message):
        pretrained.load(tmp_path / folder)
