"""Every refusal of the DiT, which uses all the checks; each is raised while tracing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.models.dit import DiT, preset

X = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
T = jax.ShapeDtypeStruct((4,), jnp.float32)
LABELS = jax.ShapeDtypeStruct((4,), jnp.int32)


def trace(x=X, t=T, labels=LABELS, **fields):
    """Nothing is computed here: an error that waited for a value would not come."""
    base = {"patch_size": 2, "width": 8, "depth": 1, "heads": 2, "num_classes": 10}
    return jax.eval_shape(DiT(**{**base, **fields}).init, jax.random.key(0), x, t, labels)


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def guided(labels, w=T):
    return {"labels": labels, "guidance": w}


def test_the_base_case_passes():
    trace()
    trace(labels=None, num_classes=None)
    trace(t=shaped(4, dtype=jnp.float32), labels=shaped(4, dtype=jnp.uint8))
    trace(labels=shaped(4, 11))
    trace(labels=guided(LABELS), guidance=True)
    trace(labels=guided(None), guidance=True, num_classes=None)
    trace(labels=guided(shaped(4, 11, dtype=jnp.bfloat16)), guidance=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"patch_size": 0}, "patch_size must be a whole number of at least 1; got 0"),
        ({"width": 8.0}, "width must be a whole number of at least 1; got 8.0"),
        ({"depth": 0}, "depth must be a whole number of at least 1; got 0"),
        ({"heads": True}, "heads must be a whole number of at least 1; got True"),
        ({"num_classes": 0}, "num_classes must be a whole number of at least 1; got 0"),
        ({"width": 20, "heads": 3}, "width=20 is not a multiple of heads=3 .* multiple of 12"),
        ({"width": 6, "heads": 2}, "width=6 is not a multiple .* of 4"),
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
        ({"num_classes": None}, "labels were given to an unconditional model"),
        ({"labels": None}, r"labels=None came to a model of 10 classes.*jnp.full\(\(4,\), 10\)"),
        ({"labels": shaped(4)}, r"labels are of dtype float32.*jnp.asarray\(labels, jnp.int32\)"),
        ({"labels": shaped(3, dtype=jnp.int32)}, r"labels have shape \(3,\), expected .*\(4,\)"),
        ({"labels": shaped(dtype=jnp.int32)}, r"labels have shape \(\), expected .*\(4,\)"),
        ({"labels": {"text": LABELS}}, "labels are of dict, expected one array"),
        ({"labels": shaped(4, 10)}, r"weights .* \(4, 10\), expected .* null class, \(4, 11\)"),
        ({"labels": shaped(4, 1, dtype=jnp.int32)}, r"labels have shape \(4, 1\), expected"),
        ({"labels": guided(LABELS)}, r"does not take one \(guidance=False\): pass labels"),
        ({"labels": guided(None), "num_classes": None}, "does not take one"),
        ({"guidance": True}, r"takes {'labels': labels, 'guidance': w}; got labels alone"),
        ({"guidance": True, "labels": None}, "'guidance': w}; got labels alone"),
        ({"guidance": True, "labels": {"guidance": T}}, r"; got keys \['guidance'\]"),
        (
            {"guidance": True, "labels": guided(LABELS, 1.5)},
            r"shape \(\) and type float32, expected",
        ),
        ({"guidance": True, "labels": guided(LABELS, shaped(3))}, r"shape \(3,\).*\(4,\): write"),
        ({"guidance": True, "labels": guided(LABELS, LABELS)}, "type int32, expected one floating"),
        ({"guidance": True, "labels": guided(None)}, "labels=None came to a model of 10 classes"),
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
        InputError, match=r"'n_heads'. Did you mean 'heads'.*patch_size, remat, scan, width"
    ):
        preset("DiT-S/2", n_heads=4)
