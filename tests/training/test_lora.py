"""Adapters begin as the network, are trained alone, and merge into the same outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from safetensors.numpy import save_file

from fmjax import Draw, InputError, make_loss_fn
from fmjax.models import mlp
from fmjax.models.adapters import from_linen
from fmjax.names import named_leaves
from fmjax.training import fit, lora
from tests.models.pretrained.test_goldens import tiny
from tests.training.test_fit import points


class Mixed(nn.Module):
    """A dense layer, attention and a convolution of Flax itself."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8, name="dense")(x)
        x = nn.Conv(8, (3, 3), name="conv")(x)
        x = x.reshape(x.shape[0], -1, 8)
        return nn.MultiHeadDotProductAttention(2, name="attention")(x)


MIXED, X = Mixed(), jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
DIT = tiny()
IMAGES = jax.random.normal(jax.random.key(1), (2, 8, 8, 4))
T, LABELS = jnp.array([0.2, 0.7]), jnp.array([0, 5])


def noisy(params, key=3):
    """Parameters none of which is zero, as those of a fresh network are."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(key), len(leaves))
    made = [0.2 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, made)


@pytest.fixture(scope="module")
def base():
    shapes = jax.eval_shape(DIT.init, jax.random.key(0), IMAGES, T, LABELS)["params"]
    return noisy(shapes)


def trained(params, patterns=("*",), rank=2, alpha=None):
    """Adapters as if trained: neither of the pair is zero."""
    return noisy(lora.init(jax.random.key(0), params, patterns, rank, alpha), key=4)


@pytest.mark.slow
def test_the_network_begins_as_it_was(base):
    adapters = lora.init(jax.random.key(0), base, rank=2)
    for name, leaf in named_leaves(lora.merge(base, adapters)).items():
        np.testing.assert_array_equal(leaf, named_leaves(base)[name], err_msg=name)
    asked = jax.jit(lora.with_adapters(from_linen(DIT), base))(adapters, IMAGES, T, LABELS)
    expected = jax.jit(from_linen(DIT))(base, IMAGES, T, LABELS)
    np.testing.assert_allclose(asked, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_merged_weights_give_the_same_and_the_derivative_is_there(base):
    adapters = trained(base, alpha=3.0)
    merged = jax.jit(lora.merge)(base, adapters)
    plain, both = from_linen(DIT), {"base": base, "adapters": adapters}
    tangents = (jnp.ones_like(T),)
    found = [
        jax.jit(lambda t, f=f, p=p: jax.jvp(lambda t: f(p, IMAGES, t, LABELS), (t,), tangents))(T)
        for f, p in (
            (plain, merged),
            (lora.with_base(plain), both),
            (lora.with_adapters(plain, base), adapters),
        )
    ]
    begun = jax.jit(plain)(base, IMAGES, T, LABELS)
    assert np.abs(found[0][0] - begun).max() > 0.1 * np.abs(begun).max()
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_allclose(two, one, atol=1e-5 * np.abs(one).max())


@pytest.mark.slow
def test_each_block_has_a_product_of_its_own(base):
    adapters = trained(base, ("blocks/mlp/up/*",), rank=3, alpha=6.0)
    pair = adapters.kernels["blocks"]["mlp"]["up"]["kernel"]
    assert adapters.rank == 3
    assert (pair["a"].shape, pair["b"].shape) == ((2, 16, 3), (2, 3, 64))
    merged = lora.merge(base, adapters)["blocks"]["mlp"]["up"]["kernel"]
    for k in range(2):
        change = merged[k] - base["blocks"]["mlp"]["up"]["kernel"][k]
        np.testing.assert_allclose(change, 2.0 * pair["a"][k] @ pair["b"][k], atol=1e-5)


@pytest.mark.slow
def test_kernels_of_flax_are_split_where_their_inputs_end():
    params = noisy(jax.eval_shape(MIXED.init, jax.random.key(0), X)["params"])
    adapters = trained(params, rank=2, alpha=2.0)
    shapes = {
        name: leaf.shape for name, leaf in named_leaves(adapters.kernels).items() if name[-1] == "a"
    }
    assert shapes == {
        "dense/kernel/a": (3, 2),
        "conv/kernel/a": (3, 3, 8, 2),
        "attention/query/kernel/a": (8, 2),
        "attention/key/kernel/a": (8, 2),
        "attention/value/kernel/a": (8, 2),
        "attention/out/kernel/a": (2, 4, 2),
    }
    merged = lora.merge(params, adapters)
    pair, kernel = adapters.kernels["conv"]["kernel"], params["conv"]["kernel"]
    x = jax.random.normal(jax.random.key(5), (1, 4, 4, 8))

    def convolve(x, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=names)

    # A convolution to `rank` channels and one of 1 x 1 after it, beside the first.
    np.testing.assert_allclose(
        convolve(x, merged["conv"]["kernel"]),
        convolve(x, kernel) + jnp.einsum("nhwr,ro->nhwo", convolve(x, pair["a"]), pair["b"]),
        rtol=1e-4,
        atol=1e-4,
    )
    pair = adapters.kernels["attention"]["out"]["kernel"]
    change = merged["attention"]["out"]["kernel"] - params["attention"]["out"]["kernel"]
    expected = jnp.einsum("hsr,ro->hso", pair["a"], pair["b"])
    np.testing.assert_allclose(change, expected, atol=1e-5)


MLP = mlp.MLP(width=16, depth=1)
LORA = {"draw": Draw(), "optimizer": None, "batch_size": 32, "steps": 4, "frozen": ("base/*",)}


def moons(parallel="jit", **more):
    x = {"x": points()["x"]}
    shapes = jax.eval_shape(MLP.init, jax.random.key(0), jnp.ones((1, 2)), jnp.ones(1), None)
    params = noisy(shapes["params"])
    apply_fn = lora.with_base(from_linen(MLP))
    given = {"base": params, "adapters": lora.init(jax.random.key(1), params, rank=2, alpha=4.0)}
    how = {**LORA, "optimizer": optax.adam(1e-2), "loss_fn": make_loss_fn(apply_fn), **more}
    return params, given, fit(apply_fn, given, x, parallel=parallel, **how)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_adapters_are_trained_alone(parallel):
    params, given, state = moons(parallel)
    for found in (state.params, state.ema_params):
        for name, leaf in named_leaves(found["base"]).items():
            np.testing.assert_array_equal(leaf, named_leaves(params)[name], err_msg=name)
        assert found["adapters"].alpha == 4.0
        for name, leaf in named_leaves(found["adapters"]).items():
            assert np.any(leaf != named_leaves(given["adapters"])[name]), name
    moments = named_leaves(state.opt_state[0].mu)
    assert moments.keys() == {f"adapters/{name}" for name in named_leaves(given["adapters"])}


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_bit(tmp_path):
    moons(steps=2, workdir=tmp_path / "run")
    found, expected = moons(workdir=tmp_path / "run")[2], moons()[2]
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_adapters_come_back_from_their_file_to_the_bit(base, tmp_path):
    adapters = trained(base, ("blocks/*", "out/*"), alpha=0.1)
    lora.save(tmp_path / "a" / "x.safetensors", adapters)
    found = lora.load(tmp_path / "a" / "x.safetensors")
    assert jax.tree.structure(found) == jax.tree.structure(adapters)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(adapters), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_file_without_adapters_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    for tensors, metadata in (
        ({"out.kernel": np.zeros((2, 2))}, {"alpha": "1.0"}),
        ({"out.kernel.a": np.zeros((2, 2)), "out.kernel.b": np.zeros((2, 2))}, None),
        ({"out.kernel.a": np.zeros((2, 2)), "out.kernel.b": np.zeros((2, 2))}, {"alpha": "nan"}),
    ):
        save_file(tensors, path, metadata)
        with pytest.raises(InputError, match="holds no adapters of fmjax"):
            lora.load(path)


WRONG = {
    # arguments of init, and the message
    "a pattern of biases": (
        {"patterns": ("out/bias",)},
        r"the patterns of LoRA: no parameter matches 'out/bias'; there are .*kernel",
    ),
    "no rank": ({"rank": 0}, "rank must be a whole number of at least 1; got 0"),
    "a rank too large": ({"rank": 17, "patterns": ("blocks/mlp/*",)}, r"rank=17 is more than .*16"),
    "no alpha": ({"alpha": 0.0}, "alpha must be a positive number"),
    "no kernels": ({"params": {"w": np.zeros((2, 2))}}, "called kernel, as those of Flax are"),
    "axes unknown": (
        {"params": {"own": {"kernel": np.zeros((4, 4, 4))}}},
        r"own/kernel of shape \[4, 4, 4\] is no kernel of a dense layer, .* leave it out",
    ),
    "a bias called kernel": (
        {"params": {"own": {"kernel": np.zeros(4)}}, "rank": 1},
        r"own/kernel of shape \[4\] is no kernel",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_adapted_is_said(name, base):
    changes, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        lora.init(jax.random.key(0), **{"params": base, "rank": 2, **changes})


def test_adapters_of_another_network_are_refused(base):
    adapters = trained(base, ("out/*",))
    with pytest.raises(InputError, match="of another network: it has out/kernel, and params has"):
        lora.merge({"in": base["out"]}, adapters)
    other = {"out": {"kernel": jnp.zeros((3, 4))}}
    with pytest.raises(
        InputError, match=r"of another network: a \[16, 2\] and b \[2, 32\] make no"
    ):
        lora.merge(other, adapters)


@pytest.mark.nightly
def test_adapters_train_on_a_mesh_that_splits_the_base(run_python):
    out = run_python(
        """
        import jax, jax.numpy as jnp, numpy as np, optax
        from fmjax import Draw, make_loss_fn
        from fmjax.models.adapters import from_linen
        from fmjax.models.dit import DiT
        from fmjax.training import fit, lora
        from fmjax.training.mesh import MeshSizes

        model = DiT(patch_size=2, width=64, depth=2, heads=4)
        x = np.random.default_rng(0).normal(size=(32, 8, 8, 4)).astype("float32")
        params = jax.jit(model.init)(jax.random.key(0), x[:1], jnp.ones(1))["params"]
        params["out"]["kernel"] = jnp.ones_like(params["out"]["kernel"]) / 64
        adapters = lora.init(jax.random.key(1), params, ("blocks/*",), rank=4)
        apply_fn = lora.with_base(from_linen(model))
        given = {"base": params, "adapters": adapters}
        how = dict(loss_fn=make_loss_fn(apply_fn), draw=Draw(), optimizer=optax.sgd(0.1), steps=3,
                   batch_size=16, frozen=("base/*",), rules=model.sharding_rules)
        one = fit(apply_fn, given, x, mesh=MeshSizes(data=4), **how)
        two = fit(apply_fn, given, x, mesh=MeshSizes(data=1, fsdp=2, tensor=2), **how)
        kernel = two.params["base"]["blocks"]["mlp"]["up"]["kernel"]
        print(kernel.addressable_shards[0].data.shape)
        gaps = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()),
                            one.params["adapters"], two.params["adapters"])
        print(max(jax.tree.leaves(gaps)) < 1e-4)
        """,
        devices=4,
    )
    assert out.split("\n")[:2] == ["(2, 32, 128)", "True"]
