import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fmjax.models.dit as dit
from fmjax.conditions import ClassIds
from fmjax.errors import InputError
from fmjax.models.attention import choose_attention
from fmjax.models.dit import PRESETS, DiT, patchify, preset, unpatchify
from tests.conftest import rounding

B, CLASSES = 4, 3
X = np.random.default_rng(1).normal(size=(B, 4, 6, 2)).astype(np.float32)
T = np.array([0.0, 0.3, 0.5, 1.0], np.float32)
LABELS = np.array([0, 1, 2, CLASSES], np.int32)


def tiny(**fields):
    base = {"patch_size": 2, "width": 16, "depth": 1, "heads": 2, "conditions": ClassIds(CLASSES)}
    return DiT(**{**base, **fields})


@functools.cache
def trained(**fields):
    """Parameters with nothing left at zero, as after training."""
    init = functools.partial(tiny(**fields).init, jax.random.key(0))
    leaves, tree = jax.tree.flatten(jax.eval_shape(init, X, T, LABELS)["params"])
    rng = np.random.default_rng(0)
    noise = [rng.normal(0, 0.25, a.shape).astype(a.dtype) for a in leaves]
    return jax.tree.unflatten(tree, noise)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, x, t, labels=None):
    return model.apply({"params": params}, x, t, labels)


def dots(f, *args):
    """All matrix products of a function, as (dtype of the left operand, output shape)."""

    def walk(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "dot_general":
                yield eqn.invars[0].aval.dtype, eqn.outvars[0].aval.shape
            for value in eqn.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield from walk(inner)

    return list(walk(jax.make_jaxpr(f)(*args).jaxpr))


# Table 4 of arXiv:2212.09748, in millions.
PAPER = {
    "DiT-S/2": 33, "DiT-S/4": 33, "DiT-S/8": 33,
    "DiT-B/2": 130, "DiT-B/4": 130, "DiT-B/8": 131,
    "DiT-L/2": 458, "DiT-L/4": 458, "DiT-L/8": 459,
    "DiT-XL/2": 675, "DiT-XL/4": 675, "DiT-XL/8": 676,
}  # fmt: skip


def test_the_table_of_the_paper_is_complete():
    assert PAPER.keys() == {name for name in PRESETS if name.startswith("DiT")}


@pytest.mark.parametrize(
    "name", [n if n.endswith("/2") else pytest.param(n, marks=pytest.mark.slow) for n in PAPER]
)
def test_presets_have_the_parameter_counts_of_the_paper(name):
    model = preset(name, conditions=ClassIds(1000))
    x = jax.ShapeDtypeStruct((1, 32, 32, 4), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    labels = jax.ShapeDtypeStruct((1,), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), x, t, labels)
    count = sum(a.size for a in jax.tree.leaves(params))
    # The paper's output has a learned variance: as many channels again.
    learned_variance = (model.width + 1) * model.patch_size**2 * 4
    assert round((count + learned_variance) / 1e6) == PAPER[name]


def test_presets_have_the_head_sizes_of_the_paper():
    sizes = {
        name[4:-2]: fields["width"] / fields["heads"]
        for name, fields in PRESETS.items()
        if name.startswith("DiT")
    }
    assert sizes == {"S": 64, "B": 64, "L": 64, "XL": 72}


def test_preset_fields_can_be_changed():
    model = preset("DiT-B/4", conditions=ClassIds(10), dtype=jnp.bfloat16, depth=1)
    assert (model.patch_size, model.width, model.heads) == (4, 768, 12)
    assert (model.conditions, model.dtype, model.depth) == (ClassIds(10), jnp.bfloat16, 1)


@pytest.mark.parametrize("patch_size", [1, 2, 3])
def test_unpatchify_undoes_patchify(patch_size):
    x = jnp.arange(2.0 * 6 * 12 * 3).reshape(2, 6, 12, 3)
    patches = patchify(x, patch_size)
    assert patches.shape == (2, 6 * 12 // patch_size**2, 3 * patch_size**2)
    np.testing.assert_array_equal(unpatchify(patches, patch_size, x.shape), x)


def test_patches_are_squares_of_the_image_row_by_row():
    x = jnp.arange(4.0 * 6).reshape(1, 4, 6, 1)
    np.testing.assert_array_equal(patchify(x, 2)[0, 4], x[0, 2:4, 2:4, 0].ravel())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("conditions", "dtype"), [(None, jnp.float32), (ClassIds(CLASSES), jnp.bfloat16)]
)
def test_a_fresh_model_outputs_exactly_zero(conditions, dtype):
    model = tiny(conditions=conditions, dtype=dtype)
    labels = None if conditions is None else LABELS
    out, params = jax.jit(model.init_with_output)(jax.random.key(0), X, T, labels)
    assert out.shape == X.shape
    np.testing.assert_array_equal(out, 0.0)
    # and not because everything is zero
    assert np.abs(params["params"]["blocks"]["attention"]["out"]["kernel"]).max() > 0


def test_time_and_class_matter():
    x = np.broadcast_to(X[:1], X.shape)
    by_time = apply(tiny(), trained(), x, T, np.zeros(B, np.int32))
    by_class = apply(tiny(), trained(), x, np.full(B, 0.5, np.float32), LABELS)
    for out in (by_time, by_class):
        assert len(np.unique(np.asarray(out).reshape(B, -1), axis=0)) == B


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [{}, {"label_tokens": 2, "label_tokens_from": 1}])
def test_every_parameter_matters(tokens):
    model = tiny(depth=2, **tokens)

    def loss(params):
        return jnp.square(model.apply({"params": params}, X, T, LABELS) - X).sum()

    gradient = jax.jit(jax.grad(loss))(trained(depth=2, **tokens))
    dead = [
        jax.tree_util.keystr(path)
        for path, g in jax.tree_util.tree_leaves_with_path(gradient)
        if not np.abs(g).max() > 1e-6
    ]
    assert dead == []


def test_tokens_of_the_labels_stand_before_the_later_blocks_alone():
    model = tiny(depth=3, label_tokens=2, label_tokens_from=1)
    params = trained(depth=3, label_tokens=2, label_tokens_from=1)
    stacks = {name: p["attention"]["out"]["bias"] for name, p in params.items() if "blocks" in name}
    assert {name: len(bias) for name, bias in stacks.items()} == {"blocks": 1, "later_blocks": 2}
    shapes = dots(lambda p: model.apply({"params": p}, X, T, LABELS), params)
    tokens = {
        shape[0] // B for _, shape in shapes if shape[1:] == (3 * 16,)
    }  # of queries and so on
    assert tokens == {6, 8}  # patches, and these with two tokens in front


def test_the_guidance_scale_matters_where_it_is_an_input():
    model, w = tiny(guidance=True), np.array([0.0, 1.0, 1.5, 4.0], np.float32)
    same = np.broadcast_to(X[:1], X.shape), np.full(B, 0.5, np.float32)
    given = {"labels": np.zeros(B, np.int32), "guidance": w}
    shapes = jax.eval_shape(model.init, jax.random.key(0), *same, given)["params"]
    assert jax.tree.structure(shapes) != jax.tree.structure(trained())
    rng = np.random.default_rng(0)
    embed = jax.tree.map(
        lambda a: rng.normal(size=a.shape).astype(a.dtype), shapes["condition"]["guidance"]
    )
    params = trained() | {"condition": trained()["condition"] | {"guidance": embed}}
    out = apply(model, params, *same, given)
    assert len(np.unique(np.asarray(out).reshape(B, -1), axis=0)) == B


def test_examples_do_not_see_their_neighbours():
    one = apply(tiny(), trained(), X[1:2], T[1:2], LABELS[1:2])
    several = apply(tiny(), trained(), X, T, LABELS)[1:2]
    np.testing.assert_allclose(one, several, atol=rounding(several, 300))


def test_without_positions_patches_may_be_permuted(monkeypatch):
    permutation = np.random.default_rng(0).permutation(6)

    def permuted(x):
        return unpatchify(patchify(x, 2)[:, permutation], 2, x.shape)

    def gap():
        # A function of its own each time: `apply` would remember the positions.
        f = jax.jit(lambda x, t, labels: tiny().apply({"params": trained()}, x, t, labels))
        expected = permuted(f(X, T, LABELS))
        difference = np.abs(f(permuted(X), T, LABELS) - expected).max()
        return difference / rounding(expected, 300)

    assert gap() > 100
    monkeypatch.setattr(dit, "sincos_2d", lambda i, j, width: np.zeros((i * j, width), np.float32))
    assert gap() < 1


def test_patches_attend_to_one_another():
    corner = np.zeros_like(X)
    corner[:, :2, :2] = 1.0
    out = apply(tiny(), trained(), X, T, LABELS)
    other = apply(tiny(), trained(), X + corner, T, LABELS)
    assert np.abs(patchify(out - other, 2)).max(axis=(0, 2)).min() > 1e-4


def test_bfloat16_keeps_parameters_time_and_output_in_float32():
    model = tiny(dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(
        lambda k: model.init_with_output(k, X, T, LABELS, capture_intermediates=True),
        jax.random.key(0),
    )
    assert out.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(variables["params"])} == {jnp.dtype(jnp.float32)}
    _, state = jax.eval_shape(
        lambda p: model.apply({"params": p}, X, T, LABELS, capture_intermediates=True),
        variables["params"],
    )
    seen = state["intermediates"]
    float32 = (seen["condition"], seen["adaln"], seen["out"], seen["blocks"]["adaln"])
    assert {a.dtype for a in jax.tree.leaves(float32)} == {jnp.dtype(jnp.float32)}
    assert seen["blocks"]["__call__"][0][0].dtype == jnp.bfloat16


def test_bfloat16_does_the_large_products_in_bfloat16():
    model = tiny(dtype=jnp.bfloat16, depth=2)
    all_dots = dots(lambda p: model.apply({"params": p}, X, T, LABELS), trained(depth=2))
    half = [shape for dtype, shape in all_dots if dtype == jnp.bfloat16]
    # patches; in the block, which is traced once: qkv, two of attention, out, up, down.
    assert len(half) == 1 + 6


def test_bfloat16_is_close_to_float32():
    out = apply(tiny(), trained(), X, T, LABELS)
    half = apply(tiny(dtype=jnp.bfloat16), trained(), X, T, LABELS)
    # bfloat16 keeps 8 bits, 0.4 %; a handful of roundings add up.
    assert np.linalg.norm(half - out) < 0.02 * np.linalg.norm(out)
    assert np.abs(half - out).max() > 0


@pytest.mark.slow
def test_bfloat16_tells_1001_times_apart():
    times = np.linspace(0.0, 1.0, 1001, dtype=np.float32)
    x = np.broadcast_to(X[:1], (1001, *X.shape[1:]))
    model = tiny(dtype=jnp.bfloat16)
    out = apply(model, trained(), x, times, np.zeros(1001, np.int32))
    assert len(np.unique(np.asarray(out).reshape(1001, -1), axis=0)) == 1001


def test_jvp_is_the_finite_difference():
    with jax.enable_x64(True):
        model = tiny(dtype=jnp.float64)
        params, x, t = jax.tree.map(lambda a: a.astype(np.float64), (trained(), X, T))
        f = jax.jit(lambda x, t: model.apply({"params": params}, x, t, LABELS))
        dx, dt, h = np.cos(x), np.full_like(t, 1e-3), 1e-3
        out, tangent = jax.jit(lambda *args: jax.jvp(f, args, (dx, dt)))(x, t)
        difference = (f(x + h * dx, t + h * dt) - f(x - h * dx, t - h * dt)) / (2 * h)
        assert out.dtype == tangent.dtype == jnp.float64
        # The softmax is float32 even here: 1e-7 over h = 1e-3.
        np.testing.assert_allclose(tangent, difference, atol=5e-4, rtol=5e-4)


@pytest.mark.slow
def test_vjp_is_the_transpose_of_jvp():
    def f(x):
        return tiny().apply({"params": trained()}, x, T, LABELS)

    dx, g = np.cos(X), np.sin(3 * X)
    tangent = jax.jit(lambda x, dx: jax.jvp(f, (x,), (dx,))[1])(X, dx)
    cotangent = jax.jit(lambda x, g: jax.vjp(f, x)[1](g)[0])(X, g)
    np.testing.assert_allclose(np.vdot(g, tangent), np.vdot(cotangent, dx), rtol=1e-4)


def test_vmap_over_labels_is_two_calls():
    f = functools.partial(apply, tiny())
    stacked = np.stack([LABELS, np.full(B, CLASSES)])
    both = jax.vmap(f, in_axes=(None, None, None, 0))(trained(), X, T, stacked)
    for out, labels in zip(both, stacked, strict=True):
        alone = f(trained(), X, T, labels)
        np.testing.assert_allclose(out, alone, atol=rounding(alone, 300))


def test_vmap_over_labels_works_on_x_and_t_once():
    def f(labels):
        return tiny().apply({"params": trained()}, X, T, labels)

    stacked = np.stack([LABELS, np.full(B, CLASSES)])
    single, both = dots(f, LABELS), dots(jax.vmap(f), stacked)
    assert len(both) == len(single)
    # Two of the time embedding and one of the patches are not mapped.
    assert sum(a == b for a, b in zip(single, both, strict=True)) == 3


def test_rectangular_images_of_another_size_use_the_same_parameters():
    x = np.ones((B, 8, 2, 2), np.float32)
    assert apply(tiny(), trained(), x, T, LABELS).shape == x.shape


@pytest.mark.slow
def test_a_loop_and_what_is_computed_twice_change_no_value_and_no_gradient():
    def value_and_gradient(**how):
        model = tiny(depth=2, **how)

        @jax.jit
        def f(params):
            return jax.value_and_grad(
                lambda p: jnp.square(model.apply({"params": p}, X, T, LABELS)).sum()
            )(params)

        return f(trained(depth=2))

    plain = value_and_gradient()
    for how in ({"scan": True}, {"remat": "full"}, {"scan": True, "remat": "dots"}):
        for a, b in zip(*map(jax.tree.leaves, (plain, value_and_gradient(**how))), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4, err_msg=str(how))


def residuals(**how):
    """The shapes that the backward pass of a scanned model keeps for each of its blocks."""
    model = tiny(depth=3, scan=True, **how)
    _, vjp = jax.eval_shape(
        lambda p: jax.vjp(lambda p: model.apply({"params": p}, X, T, LABELS), p),
        trained(depth=3),
    )
    return [a.shape[1:] for a in jax.tree.leaves(vjp) if a.shape[:1] == (3,)]


def test_remat_keeps_what_its_name_says():
    def size(shapes):
        return sum(int(np.prod(shape)) for shape in shapes)

    everything, dots_only, inputs = (residuals(remat=name) for name in ("none", "dots", "full"))
    weights = (2, 2, 6, 6)  # of attention: batch, heads, tokens, tokens
    assert size(everything) > size(dots_only) > size(inputs)
    tokens, width = 6, 16
    assert (B * tokens, 3 * width) in dots_only  # out of the dense layer
    assert not any(shape[-2:] == weights[-2:] for shape in dots_only)
    assert any(shape[-2:] == weights[-2:] for shape in everything)
    assert (B, tokens, width) in inputs
    assert (B * tokens, 3 * width) not in inputs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_tokens": -1}, "label_tokens must be a whole number of at least 0"),
        ({"label_tokens": 2, "label_tokens_from": 1}, "_from=1 says before which of depth=1"),
        ({"label_tokens_from": 1, "depth": 2}, "the label_tokens=0 come in: give fewer than depth"),
        ({"label_tokens": 2, "conditions": None}, "no condition that is embedded as a vector"),
    ],
)
def test_tokens_of_the_labels_that_cannot_be_are_refused(fields, message):
    labels = None if "conditions" in fields else LABELS
    with pytest.raises(InputError, match=message):
        jax.eval_shape(tiny(**fields).init, jax.random.key(0), X, T, labels)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"remat": "some"}, "'some'.*Known: dots, full, none"),
        ({"attention": "flash"}, "'flash'.*Known: cudnn, xla"),
        ({"attention": "cudnn"}, "bfloat16 or float16.*float32.*attention='xla'"),
        ({"attention": "cudnn", "dtype": jnp.bfloat16, "heads": 4}, "multiple of 8.*are 4"),
    ],
)
def test_a_wrong_way_to_compute_is_refused(how, message):
    with pytest.raises(InputError, match=message):
        jax.eval_shape(tiny(**how).init, jax.random.key(0), X, T, LABELS)


@pytest.mark.parametrize(
    ("asked", "dtype", "head", "platform", "kernel"),
    [
        ("auto", jnp.bfloat16, 72, "gpu", "cudnn"),  # DiT-XL
        ("auto", jnp.float32, 64, "gpu", "xla"),
        ("auto", jnp.bfloat16, 36, "gpu", "xla"),
        ("auto", jnp.bfloat16, 64, "tpu", "xla"),
        ("auto", jnp.bfloat16, 64, "cpu", "xla"),
        ("xla", jnp.bfloat16, 64, "gpu", "xla"),
        ("cudnn", jnp.bfloat16, 64, "gpu", "cudnn"),
    ],
)
def test_the_fused_kernel_is_chosen_where_it_can_be_had(asked, dtype, head, platform, kernel):
    assert choose_attention(asked, dtype, head, platform) == kernel


@pytest.mark.parametrize(
    ("asked", "dtype", "platform", "message"),
    [
        ("cudnn", jnp.bfloat16, "cpu", "needs an NVIDIA GPU, and this is a cpu"),
        ("cudnn", jnp.float32, "gpu", "bfloat16 or float16"),
        ("flash", jnp.bfloat16, "gpu", "Known: auto, cudnn, xla"),
    ],
)
def test_a_kernel_that_cannot_be_had_is_named(asked, dtype, platform, message):
    with pytest.raises(InputError, match=message):
        choose_attention(asked, dtype, 64, platform)
