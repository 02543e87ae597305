"""Every refusal of the DiT, which uses all the checks; each is raised while tracing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import ClassIds, Vector
from fmjax.conventions import Span
from fmjax.errors import InputError
from fmjax.models.dit import DiT, preset

X = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
T = jax.ShapeDtypeStruct((4,), jnp.float32)
LABELS = jax.ShapeDtypeStruct((4,), jnp.int32)


def trace(x=X, t=T, labels=LABELS, **fields):
    """Nothing is computed here: an error that waited for a value would not come."""
    base = {"patch_size": 2, "width": 8, "depth": 1, "heads": 2, "conditions": ClassIds(10)}
    return jax.eval_shape(DiT(**{**base, **fields}).init, jax.random.key(0), x, t, labels)


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


TWO = {"class": ClassIds(10), "age": Vector(2)}


def guided(labels, w=T):
    return {"labels": labels, "guidance": w}


def test_the_base_case_passes():
    trace()
    trace(labels=None, conditions=None)
    trace(t=shaped(4, dtype=jnp.float32), labels=shaped(4, dtype=jnp.uint8))
    trace(labels=shaped(4, 11))
    trace(conditions=TWO, labels={"age": shaped(4, 2), "class": LABELS})
    trace(t=Span(T, T), span=True)
    trace(conditions={"guidance": ClassIds(10)}, labels={"guidance": LABELS})
    trace(labels=guided(LABELS), guidance=True)
    trace(labels=guided(None), guidance=True, conditions=None)
    trace(labels=guided(shaped(4, 11, dtype=jnp.bfloat16)), guidance=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"patch_size": 0}, "patch_size must be a whole number of at least 1; got 0"),
        ({"width": 8.0}, "width must be a whole number of at least 1; got 8.0"),
        ({"depth": 0}, "depth must be a whole number of at least 1; got 0"),
        ({"heads": True}, "heads must be a whole number of at least 1; got True"),
        ({"conditions": 10}, r"must be conditions such as ClassIds\(10\) .*; got int"),
        ({"time_scale": 0.0}, "time_scale must be a positive number; got 0.0"),
        ({"width": 20, "heads": 3}, "width=20 is not a multiple of heads=3 .* multiple of 12"),
        ({"width": 6, "heads": 2}, "width=6 is not a multiple .* of 4"),
        ({"norm": "batch"}, "norm 'batch'.*Known: layer, rms"),
        ({"mlp": "relu"}, "feed-forward layer 'relu'.*Known: gelu, swiglu"),
        ({"qk_norm": 1}, "qk_norm must be True or False; got 1"),
        ({"rope": "2d"}, "rope must be True or False; got '2d'"),
        ({"rope": True, "width": 12}, r"width must be a multiple of 8 \(pairs in each half"),
        ({"bottleneck": 0}, "bottleneck must be a whole number of at least 1; got 0"),
        ({"mlp_ratio": 0.0}, "mlp_ratio=0.0: expected a positive"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio=nan: expected a positive"),
        ({"mlp_ratio": float("inf")}, "mlp_ratio=inf: expected a positive"),
        ({"dtype": jnp.int32}, "expected a floating dtype"),
        ({"x": shaped(8, 8, 1)}, r"x has shape \(8, 8, 1\), expected \(batch, height.*x\[None\]"),
        ({"x": shaped(4, 8, 8)}, r"x has shape \(4, 8, 8\), expected \(batch, height"),
        ({"x": shaped(4, 7, 8, 1)}, "images of 7x8 do not divide into patches of 2x2"),
        ({"x": shaped(4, 8, 9, 1)}, "images of 8x9 do not divide into patches of 2x2"),
        ({"x": shaped(4, 8, 8, 1, dtype=jnp.uint8)}, r"x has dtype uint8.*/ 127.5 - 1"),
        ({"t": shaped()}, r"t has shape \(\), expected .*\(4,\): write jnp.full\(\(4,\), t\)"),
        ({"t": shaped(4, 1)}, r"t has shape \(4, 1\), expected .*\(4,\)"),
        ({"t": shaped(3)}, r"t has shape \(3,\), expected .*\(4,\)"),
        ({"t": shaped(4, dtype=jnp.bfloat16)}, "t has dtype bfloat16, expected float32"),
        ({"t": shaped(4, dtype=jnp.int32)}, "t has dtype int32, expected float32"),
        ({"conditions": None}, "labels were given to an unconditional model"),
        (
            {"labels": None},
            r"came to a model with labels \(class\).*nulls\(conditions, 4\)",
        ),
        ({"labels": shaped(4)}, r"labels are of dtype float32.*jnp.asarray\(labels, jnp.int32\)"),
        ({"labels": shaped(3, dtype=jnp.int32)}, r"labels have shape \(3,\), expected .*\(4,\)"),
        ({"labels": shaped(dtype=jnp.int32)}, r"labels have shape \(\), expected .*\(4,\)"),
        ({"labels": {"text": LABELS}}, r"must have the conditions labels \(class\); got text"),
        ({"labels": shaped(4, 10)}, r"weights .* \(4, 10\), expected .* null class, \(4, 11\)"),
        ({"labels": shaped(4, 1, dtype=jnp.int32)}, r"labels have shape \(4, 1\), expected"),
        ({"labels": guided(LABELS)}, r"does not take one \(guidance=False\): pass labels"),
        ({"labels": guided(None), "conditions": None}, "does not take one"),
        ({"guidance": True}, r"takes {'labels': labels, 'guidance': w}; got labels alone"),
        ({"guidance": True, "labels": None}, "'guidance': w}; got labels alone"),
        ({"guidance": True, "labels": {"guidance": T}}, r"; got keys \['guidance'\]"),
        (
            {"guidance": True, "labels": guided(LABELS, 1.5)},
            r"shape \(\) and type float32, expected",
        ),
        ({"guidance": True, "labels": guided(LABELS, shaped(3))}, r"shape \(3,\).*\(4,\): write"),
        ({"guidance": True, "labels": guided(LABELS, LABELS)}, "type int32, expected one floating"),
        ({"span": True}, r"span=True takes Span\(s, t\) .* got one time: .* diagonal\(apply_fn\)"),
        ({"t": Span(T, T)}, "a Span came to a network of one time: .* with span=True"),
        ({"t": Span(shaped(3), T), "span": True}, r"s has shape \(3,\), expected .*\(4,\), s\)"),
        ({"t": Span(T, shaped()), "span": True}, r"t has shape \(\), expected .*\(4,\), t\)"),
        (
            {"t": Span(shaped(4, dtype=jnp.bfloat16), T), "span": True},
            r"s has dtype bfloat16, expected float32.*s.astype\(",
        ),
        ({"conditions": TWO}, r"the conditions age \(vector\), class \(class\); got labels"),
        (
            {"conditions": TWO, "labels": {"age": shaped(4, 1), "class": LABELS}},
            r"age must be vectors, floats of shape \(4, 2\)",
        ),
        ({"guidance": True, "labels": guided(None)}, "labels=None came to a model with labels"),
    ],
)
def test_wrong_input_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        trace(**given)


def test_numbers_in_place_of_arrays_are_refused_too():
    model = DiT(patch_size=2, width=8, depth=1, heads=2)
    x = np.zeros((4, 8, 8, 1), np.float32)
    with pytest.raises(InputError, match=r"t has shape \(\)"):
        model.init(jax.random.key(0), x, 0.5)
    with pytest.raises(InputError, match=r"x is a list, .* jnp.asarray\(x\)"):
        model.init(jax.random.key(0), x.tolist(), np.zeros(4, np.float32))


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'DiT-XL2'. Did you mean 'DiT-XL/2'.*DiT-B/2, .*DiT-S/8"):
        preset("DiT-XL2")


def test_an_unknown_field_lists_the_known_ones():
    with pytest.raises(
        InputError, match=r"'n_heads'. Did you mean 'heads'.*patch_size, qk_norm, .*width"
    ):
        preset("DiT-S/2", n_heads=4)
