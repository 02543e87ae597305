"""Sequences and images as conditions, in every network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import ClassIds, ImageCondition, Mask, Sequence, Vector, nulls
from fmjax.conventions import Span
from fmjax.errors import InputError
from fmjax.guidance import Guided, classifier_free
from fmjax.models.adapters import extend_params
from fmjax.models.context import Context, SequenceEmbed, pooled
from fmjax.models.dit import DiT
from fmjax.models.mlp import MLP
from fmjax.models.transformer import CrossAttention
from fmjax.models.unet import UNet

B, L, K, SHAPE = 5, 6, 3, (4, 6, 2)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, *SHAPE)).astype(np.float32)
T = np.linspace(0, 1, B, dtype=np.float32)
TEXT = {"text": Sequence(L, K), "text_mask": Mask(L, of="text")}
IMAGES = {"edges": ImageCondition((4, 6, 1)), "photo": ImageCondition((4, 6, 3))}
BASE = {"labels": ClassIds(3), "age": Vector(2)}
ALL = BASE | TEXT | IMAGES
LABELS = {
    "labels": np.arange(B, dtype=np.int32) % 3,
    "age": RNG.normal(size=(B, 2)).astype(np.float32),
    "text": RNG.normal(size=(B, L, K)).astype(np.float32),
    "text_mask": np.arange(L) < np.array([1, 2, 3, 4, 6])[:, None],
    "edges": RNG.normal(size=(B, 4, 6, 1)).astype(np.float32),
    "photo": RNG.normal(size=(B, 4, 6, 3)).astype(np.float32),
}
DIT = functools.partial(DiT, patch_size=2, width=16, depth=2, heads=2)
UNET = functools.partial(UNet, width=8, depth=1, channel_mult=(1, 2), heads=2, groups=4)
NETWORKS = [
    pytest.param(functools.partial(MLP, width=15, depth=2), id="mlp"),
    pytest.param(DIT, id="dit"),
    pytest.param(functools.partial(DIT, dtype=jnp.bfloat16), id="dit, bfloat16"),
    pytest.param(UNET, id="unet"),
]
EXACT = [NETWORKS[0], NETWORKS[1], NETWORKS[3]]


def of(conditions):
    return {name: LABELS[name] for name in conditions}


def randomised(params, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.normal(0, 0.25, a.shape).astype(a.dtype), params)


@functools.cache
def trained(model):
    """Parameters with nothing left at zero, as after training."""
    names = dict(model.conditions)
    return randomised(jax.eval_shape(model.init, jax.random.key(0), X, T, of(names))["params"])


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, x, t, labels):
    return model.apply({"params": params}, x, t, labels)


def out_of(make, **changes):
    """What a trained network of all conditions gives where some labels are changed."""
    model = make(conditions=ALL)
    return np.asarray(apply(model, trained(model), X, T, LABELS | changes))


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("make", NETWORKS)
def test_new_conditions_leave_the_parameters_that_were_there_to_the_bit(make):
    before = make(conditions=BASE).init(jax.random.key(0), X, T, of(BASE))["params"]
    after = make(conditions=ALL).init(jax.random.key(0), X, T, LABELS)["params"]
    kept = extend_params(after, before)
    jax.tree.map(np.testing.assert_array_equal, kept, after)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("make", NETWORKS)
def test_a_trained_network_that_gains_images_begins_as_it_was_to_the_bit(make):
    conditions = BASE | IMAGES | ({} if make.func is MLP else TEXT)
    one, more = make(conditions=BASE), make(conditions=conditions)
    fresh = more.init(jax.random.key(0), X, T, of(conditions))["params"]
    params = extend_params(fresh, trained(one))
    expected = np.asarray(apply(one, trained(one), X, T, of(BASE)))
    np.testing.assert_array_equal(apply(more, params, X, T, of(conditions)), expected)
    assert np.abs(expected).max() > 0.1


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("make", EXACT)
@pytest.mark.parametrize("name", ["text", "edges", "photo"])
def test_each_condition_matters_to_its_own_example_alone(make, name):
    first = LABELS[name].copy()
    first[0] += 1
    before, after = out_of(make), out_of(make, **{name: first})
    assert np.abs(after[0] - before[0]).max() > 1e-3
    np.testing.assert_allclose(after[1:], before[1:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", EXACT)
def test_what_the_mask_leaves_out_does_not_matter(make):
    mask = LABELS["text_mask"][..., None]
    other = np.where(mask, LABELS["text"], 100.0).astype(np.float32)
    np.testing.assert_allclose(out_of(make, text=other), out_of(make), rtol=1e-5, atol=1e-5)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("make", EXACT)
def test_nothing_is_attended_of_an_empty_sequence_and_the_output_is_finite(make):
    empty = np.zeros((B, L), bool)
    a, b = (out_of(make, text=LABELS["text"] * s, text_mask=empty) for s in (1, -3))
    np.testing.assert_array_equal(a, b)
    assert np.isfinite(a).all()
    model = make(conditions=ALL)
    labels = LABELS | {"text_mask": empty}

    def total(text):
        return jnp.sum(apply(model, trained(model), X, T, labels | {"text": text}))

    np.testing.assert_array_equal(jax.grad(total)(LABELS["text"]), 0)


@pytest.mark.parametrize("make", EXACT)
def test_the_order_of_a_sequence_matters(make):
    full = np.ones((B, L), bool)
    turned = out_of(make, text=LABELS["text"][:, ::-1], text_mask=full)
    assert np.abs(turned - out_of(make, text_mask=full)).max() > 1e-3


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("make", EXACT)
def test_a_sequence_without_a_mask_counts_at_every_place(make):
    conditions = {"text": TEXT["text"]}
    model, masked = make(conditions=conditions), make(conditions=TEXT)
    found = apply(model, trained(model), X, T, of(conditions))
    full = of(TEXT) | {"text_mask": np.ones((B, L), bool)}
    np.testing.assert_allclose(found, apply(masked, trained(model), X, T, full), rtol=1e-5)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("make", EXACT)
def test_every_parameter_matters(make):
    model = make(conditions=ALL, guidance=True, span=True)
    labels = {"labels": LABELS, "guidance": T}
    shapes = jax.eval_shape(model.init, jax.random.key(0), X, Span(T, T), labels)["params"]

    @jax.jit
    @jax.grad
    def gradient(params):
        return jnp.sum(model.apply({"params": params}, X, Span(T, T + 0.1), labels) ** 2)

    for keys, g in jax.tree_util.tree_leaves_with_path(gradient(randomised(shapes))):
        path = jax.tree_util.keystr(keys)
        if "kv" in path and "bias" in path:
            g = np.asarray(g).reshape(-1, 2, 2, 4)[:, :, 1]  # of keys a softmax takes no notice
        elif "qkv" in path and "bias" in path:
            g = np.asarray(g).reshape(-1, 2, 3, 8)[:, :, ::2]
        assert np.abs(g).max() > 0, path


@pytest.mark.slow
def test_the_blocks_of_a_loop_and_what_is_computed_twice_change_nothing():
    def value_and_gradient(**how):
        model = DIT(conditions=ALL, **how)

        def loss(p):
            return jnp.sum(jnp.sin(model.apply({"params": p}, X, T, LABELS)))

        return jax.jit(jax.value_and_grad(loss))(trained(DIT(conditions=ALL)))

    plain = value_and_gradient()
    for how in ({"scan": True}, {"scan": True, "remat": "full"}, {"remat": "dots"}):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-4),
            value_and_gradient(**how),
            plain,
        )


def test_bfloat16_is_close_to_float32():
    params = trained(DIT(conditions=ALL))
    half, whole = (
        np.asarray(apply(DIT(conditions=ALL, dtype=d), params, X, T, LABELS))
        for d in (jnp.bfloat16, jnp.float32)
    )
    assert half.dtype == np.float32
    assert np.linalg.norm(half - whole) < 0.05 * np.linalg.norm(whole)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("make", EXACT)
def test_the_derivative_forwards_is_the_finite_difference(make):
    model = make(conditions=ALL, time_scale=1.0)
    params, h = trained(model), 0.01

    def f(t):
        return apply(model, params, X, t, LABELS)

    _, slope = jax.jvp(f, (T,), (np.ones(B, np.float32),))
    expected = (f(T + h) - f(T - h)) / (2 * h)
    assert np.linalg.norm(slope - expected) < 0.01 * np.linalg.norm(expected)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("make", EXACT)
def test_guidance_evaluates_every_branch_in_one_call(make):
    model = make(conditions=ALL)
    params = trained(model)

    def velocity(x, t, labels):
        return model.apply({"params": params}, x, t, labels)

    null = jax.tree.map(lambda a: a[0], nulls(ALL, 1))
    guided = jax.jit(classifier_free(velocity, null))(X, T, Guided(LABELS, 3.0))
    u, u_null = velocity(X, T, LABELS), velocity(X, T, nulls(ALL, B))
    np.testing.assert_allclose(guided, u_null + 3 * (u - u_null), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_cross_attention_is_its_formula():
    heads, D = 2, 8
    rng = np.random.default_rng(0)
    h, tokens = (rng.normal(size=(3, n, D)).astype(np.float32) for n in (5, 4))
    attended = np.array([[1, 0, 0, 0], [1, 1, 0, 1], [1, 1, 1, 1]], bool)
    sizes = {"q": D, "kv": 2 * D, "out": D}
    weights = {name: rng.normal(size=(D, n)).astype(np.float32) for name, n in sizes.items()}
    params = {
        name: {"kernel": w, "bias": np.zeros(w.shape[1], np.float32)} for name, w in weights.items()
    }
    module = CrossAttention(heads, jnp.float32)
    ours = module.apply({"params": params}, h, Context(tokens, attended))
    direct = []
    for of_q, of_kv in zip(
        np.split(weights["q"], heads, 1), np.split(weights["kv"], heads, 1), strict=True
    ):
        q, (k, v) = h @ of_q, np.split(tokens @ of_kv, 2, axis=-1)
        scores = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(D // heads)) * attended[:, None]
        direct.append(scores @ v / scores.sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(ours, np.concatenate(direct, -1) @ weights["out"], 1e-3, 1e-3)


@pytest.mark.slow
def test_the_mean_of_a_sequence_counts_the_learned_token_and_what_the_mask_says():
    module = SequenceEmbed(L, K, 8)
    (context, _) = module.init_with_output(jax.random.key(0), LABELS["text"], LABELS["text_mask"])
    tokens, mask = np.asarray(context.tokens), LABELS["text_mask"]
    for i in range(B):
        expected = np.concatenate([tokens[i, :1], tokens[i, 1:][mask[i]]]).mean(axis=0)
        np.testing.assert_allclose(pooled(context)[i], expected, rtol=1e-5, atol=1e-6)


def test_images_of_other_sides_are_refused_by_name():
    conditions = {"photo": ImageCondition((8, 6, 3))}
    with pytest.raises(InputError, match="images photo are of 8x6 and x of 4x6"):
        DIT(conditions=conditions).init(jax.random.key(0), X, T, nulls(conditions, B))


def test_an_mlp_takes_images_of_any_shape():
    conditions = {"photo": ImageCondition((8, 6, 3))}
    model = MLP(width=8, depth=1, conditions=conditions)
    out = apply(model, trained_of(model, conditions), X, T, nulls(conditions, B))
    assert out.shape == X.shape


def trained_of(model, conditions):
    shapes = jax.eval_shape(model.init, jax.random.key(0), X, T, nulls(conditions, B))
    return randomised(shapes["params"])


def test_a_mask_without_its_sequence_is_refused():
    conditions = {"text_mask": TEXT["text_mask"]}
    with pytest.raises(InputError, match="mask text_mask is of a sequence 'text'"):
        DIT(conditions=conditions).init(jax.random.key(0), X, T, of(conditions))
