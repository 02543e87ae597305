"""The U-Net by itself; `test_unet_goldens` holds its numbers to PyTorch's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from fmjax.conditions import ClassIds, ImageCondition
from fmjax.errors import InputError
from fmjax.models.unet import PRESETS, UNet, preset
from fmjax.training.sharding import state_shardings
from tests.conftest import rounding

B, CLASSES = 3, 3
X = np.random.default_rng(1).normal(size=(B, 4, 8, 2)).astype(np.float32)
T = np.array([0.0, 0.3, 1.0], np.float32)
LABELS = np.array([0, 1, CLASSES], np.int32)
SIZES = {"width": 8, "depth": 1, "channel_mult": (1, 2), "groups": 4}


def tiny(**fields):
    heads = {} if "head_size" in fields else {"heads": 2}
    return UNet(**{**SIZES, **heads, "conditions": ClassIds(CLASSES), **fields})


@functools.cache
def trained(model):
    """Parameters with nothing left at zero, as after training."""
    init = functools.partial(model.init, jax.random.key(0))
    leaves, tree = jax.tree.flatten(jax.eval_shape(init, X, T, LABELS)["params"])
    rng = np.random.default_rng(0)
    noise = [rng.normal(0, 0.25, a.shape).astype(a.dtype) for a in leaves]
    return jax.tree.unflatten(tree, noise)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, x, t, labels=None):
    return model.apply({"params": params}, x, t, labels)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_fresh_model_outputs_exactly_zero(dtype):
    model = tiny(dtype=dtype)
    out, params = jax.jit(model.init_with_output)(jax.random.key(0), X, T, LABELS)
    assert out.shape == X.shape
    np.testing.assert_array_equal(out, 0.0)
    # and not because everything is zero
    assert np.abs(params["params"]["up_0"]["residual"]["conv_0"]["kernel"]).max() > 0


@pytest.mark.slow
def test_time_and_class_matter_and_neighbours_do_not():
    x, model = np.broadcast_to(X[:1], X.shape), tiny()
    params = trained(model)
    by_time = apply(model, params, x, T, np.zeros(B, np.int32))
    by_class = apply(model, params, x, np.full(B, 0.5, np.float32), LABELS)
    for out in (by_time, by_class):
        assert len(np.unique(np.asarray(out).reshape(B, -1), axis=0)) == B
    several = apply(model, params, X, T, LABELS)
    one = apply(model, params, X[1:2], T[1:2], LABELS[1:2])
    np.testing.assert_allclose(one, several[1:2], atol=rounding(several, 300))


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {"scale_shift": False},
        {"resampling": "pool", "head_size": 4},
        {"resampling": "residual", "attention_factors": (1,)},
    ],
)
def test_every_parameter_matters(how):
    model = tiny(**how)

    @jax.jit
    @jax.grad
    def gradient(params):
        return jnp.square(model.apply({"params": params}, X, T, LABELS) - X).sum()

    dead = [
        jax.tree_util.keystr(path)
        for path, g in jax.tree_util.tree_leaves_with_path(gradient(trained(model)))
        if not np.abs(g).max() > 1e-6
    ]
    assert dead == []


def test_bfloat16_keeps_parameters_time_and_output_in_float32():
    model = tiny(dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(
        lambda k: model.init_with_output(k, X, T, LABELS, capture_intermediates=True),
        jax.random.key(0),
    )
    assert out.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(variables["params"])} == {jnp.dtype(jnp.float32)}
    seen = variables["intermediates"]
    float32 = (seen["condition"], seen["out"], seen["norm"], seen["up_0"]["residual"]["condition"])
    assert {a.dtype for a in jax.tree.leaves(float32)} == {jnp.dtype(jnp.float32)}
    names = ("down_1", "down_2", "middle_0", "up_0", "up_1")
    stages = [seen[name]["__call__"][0] for name in names]
    assert {a.dtype for a in stages} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.slow
def test_jvp_is_the_finite_difference():
    with jax.enable_x64(True):
        model = tiny(dtype=jnp.float64)
        params, x, t = jax.tree.map(lambda a: a.astype(np.float64), (trained(tiny()), X, T))
        f = jax.jit(lambda x, t: model.apply({"params": params}, x, t, LABELS))
        dx, dt, h = np.cos(x), np.full_like(t, 1e-3), 1e-3
        out, tangent = jax.jit(lambda *args: jax.jvp(f, args, (dx, dt)))(x, t)
        difference = (f(x + h * dx, t + h * dt) - f(x - h * dx, t - h * dt)) / (2 * h)
        assert out.dtype == tangent.dtype == jnp.float64
        # The softmax is float32 even here: 1e-7 over h = 1e-3.
        np.testing.assert_allclose(tangent, difference, atol=5e-4, rtol=5e-4)


@functools.cache
def gradient(remat):
    model = tiny(remat=remat)

    def loss(params):
        out = model.apply({"params": params}, X, T, LABELS)
        return jnp.square(out).sum()

    return jax.jit(jax.grad(loss))(trained(tiny()))


@pytest.mark.day_cases(1)
@pytest.mark.parametrize("remat", ["full", pytest.param("dots", marks=pytest.mark.slow)])
def test_what_is_computed_twice_is_the_same(remat):
    """The output to the bit; the compiler fuses the two backward passes in two ways."""
    args = trained(tiny()), X, T, LABELS
    np.testing.assert_array_equal(apply(tiny(remat=remat), *args), apply(tiny(), *args))
    found, plain = (gradient(name) for name in (remat, "none"))
    for a, b in zip(*map(jax.tree.leaves, (found, plain)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


@pytest.mark.slow
def test_remat_keeps_what_its_name_says():
    def kept(remat):
        model = tiny(remat=remat)
        _, vjp = jax.eval_shape(
            lambda p: jax.vjp(lambda p: model.apply({"params": p}, X, T, LABELS), p),
            trained(tiny()),
        )
        return [a.shape for a in jax.tree.leaves(vjp)]

    def size(shapes):
        return sum(int(np.prod(shape)) for shape in shapes)

    everything, products, inputs = (kept(remat) for remat in ("none", "dots", "full"))
    assert size(everything) > size(products) > size(inputs)
    weights, qkv = (B, 8, 2, 8), (B * 8, 3 * 16)  # of attention at half the sides
    assert weights in everything
    assert weights not in products
    assert qkv in products
    assert qkv not in inputs
    convolved = (B, 4, 8, 8)
    assert everything.count(convolved) > products.count(convolved) > inputs.count(convolved)


def test_presets_can_be_changed():
    model = preset("UNet-CIFAR10/torchcfm", conditions=ClassIds(10), depth=1, heads=8)
    assert (model.width, model.depth, model.heads, model.head_size) == (128, 1, 8, None)
    assert model.head_sizes() == {32}
    with pytest.raises(InputError, match="unknown UNet preset 'UNet'"):
        preset("UNet")
    with pytest.raises(InputError, match="unknown field of UNet 'dropout'"):
        preset("UNet-ImageNet64", dropout=0.1)


@pytest.mark.parametrize("name", PRESETS)
def test_heads_of_presets_are_those_of_their_authors(name):
    """4 heads of 64 where there is attention; one of 256; heads of 64 at every width."""
    sizes = {"torchcfm": {64}, "flow_matching": {256}, "UNet-ImageNet64": {64}}
    assert preset(name).head_sizes() == sizes[name.rpartition("/")[2]]


def test_the_rules_split_the_large_kernels_over_both_axes():
    model = preset("UNet-CIFAR10/torchcfm")
    x, t = (
        jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32),
        jax.ShapeDtypeStruct((1,), jnp.float32),
    )
    params = jax.eval_shape(model.init, jax.random.key(0), x, t)["params"]
    mesh = jax.sharding.AbstractMesh((1, 2, 2), ("data", "fsdp", "tensor"))
    specs = jax.tree.map(lambda s: s.spec, state_shardings(params, mesh, model.sharding_rules))
    residual, attention = specs["up_0"]["residual"], specs["middle_0"]["attention"]["attention"]
    assert residual["conv_0"]["kernel"] == P(None, None, "fsdp", "tensor")
    assert residual["conv_0"]["bias"] == P("tensor")
    assert residual["conv_1"]["kernel"] == P(None, None, "tensor", "fsdp")
    assert attention["qkv"]["kernel"] == P("fsdp", "tensor")
    assert attention["out"]["kernel"] == P("tensor", "fsdp")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0}, "width must be a whole number of at least 1; got 0"),
        ({"depth": 1.5}, "depth must be a whole number of at least 1; got 1.5"),
        ({"groups": 0}, "groups must be a whole number of at least 1; got 0"),
        ({"width": 9, "groups": 3}, "width=9: expected an even number.*e.g. 10"),
        ({"groups": 3}, "1 times width=8 channels does not divide into groups=3.*multiple of 3"),
        ({"channel_mult": (1, 1.3)}, "1.3 times width=8 channels does not divide into groups=4"),
        ({"channel_mult": ()}, r"channel_mult=\(\): expected a tuple of positive numbers"),
        ({"channel_mult": 2}, "channel_mult=2: expected a tuple"),
        ({"channel_mult": (1, -2)}, r"channel_mult=\(1, -2\): expected a tuple of positive"),
        ({"attention_factors": (4,)}, r"attention_factors=\(4,\): .*levels of .*\(1, 2\).* 1, 2;"),
        ({"attention_factors": 2}, "attention_factors=2: expected a tuple"),
        ({"heads": None}, "heads=None and head_size=None: give one of the two"),
        ({"heads": 2, "head_size": 4}, "heads=2 and head_size=4: give one of the two"),
        ({"heads": 0}, "heads must be a whole number of at least 1; got 0"),
        ({"heads": 3}, "heads=3 does not divide the 16 channels of level 1"),
        ({"head_size": 5}, "head_size=5 does not divide the 16 channels of level 1"),
        ({"heads": 16, "attention_factors": (1,)}, "heads=16 does not divide the 8 channels"),
        ({"time_scale": -1.0}, "time_scale must be a positive number"),
        ({"dtype": jnp.int32}, "expected a floating dtype"),
        ({"resampling": "linear"}, "unknown way of resampling 'linear'.*Known: conv, pool, resid"),
        ({"remat": "some"}, "unknown remat policy 'some'.*Known: dots, full, none"),
        ({"attention": "flash"}, "'flash'.*Known: cudnn, xla"),
        ({"attention": "cudnn"}, "bfloat16 or float16.*float32.*attention='xla'"),
        ({"parts": ("divergence",)}, "build it with span=True"),
        ({"channel_mult": (1, 1, 1, 1)}, "images of 4x8 cannot be halved 3 times.*multiples of 8"),
        ({"x": X[0]}, r"x has shape \(4, 8, 2\), expected \(batch, height, width, channels\)"),
        ({"t": T[:2]}, r"t has shape \(2,\), expected one time per example"),
        ({"labels": None}, "came to a model with labels"),
        (
            {"conditions": ImageCondition((4, 4, 1)), "labels": np.zeros((B, 4, 4, 1), np.float32)},
            "images labels are of 4x4 and x of 4x8",
        ),
    ],
)
def test_what_does_not_fit_is_refused_while_tracing(fields, message):
    given = {"x": X, "t": T, "labels": LABELS}
    args = [fields.get(name, value) for name, value in given.items()]
    model = tiny(**{name: value for name, value in fields.items() if name not in given})
    with pytest.raises(InputError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), *args)
