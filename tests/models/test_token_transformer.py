"""The transformer for sequences of tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import ClassIds, ImageCondition, Mask, Sequence
from fmjax.errors import InputError
from fmjax.models.adapters import from_linen
from fmjax.models.token_transformer import PRESETS, TokenTransformer, preset
from fmjax.models.tokens import without_time

B, PLACES, VOCABULARY, CLASSES = 4, 6, 7, 3
X = np.random.default_rng(0).integers(0, VOCABULARY + 1, (B, PLACES), np.int32)
T = np.array([0.0, 0.3, 0.5, 1.0], np.float32)
LABELS = np.array([0, 1, 2, CLASSES], np.int32)


def tiny(**fields):
    base = {"vocabulary": VOCABULARY, "width": 16, "depth": 2, "heads": 2}
    return TokenTransformer(**{**base, "conditions": ClassIds(CLASSES), **fields})


def randomised(model, *inputs):
    """Parameters with nothing left at zero, as after training."""
    params = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: rng.normal(0, 0.25, a.shape).astype(a.dtype), params)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, x, t, labels=None):
    return model.apply({"params": params}, x, t, labels)


@pytest.fixture(scope="module")
def trained():
    return randomised(tiny(), X, T, LABELS)


@pytest.mark.slow
def test_a_fresh_network_gives_every_token_the_same_probability():
    params = tiny().init(jax.random.key(0), X, T, LABELS)["params"]
    logits = apply(tiny(), params, X, T, LABELS)
    assert (logits.shape, logits.dtype) == ((B, PLACES, VOCABULARY), jnp.float32)
    np.testing.assert_array_equal(logits, 0.0)


@pytest.mark.parametrize("tied", [False, True])
def test_everything_that_comes_in_matters_everywhere(tied):
    model = tiny(tied=tied)
    params = randomised(model, X, T, LABELS)
    assert ("out" in params) != tied
    assert params["tokens"]["table"].shape == (VOCABULARY + 1, 16)
    base = apply(model, params, X, T, LABELS)
    other = X.copy()
    other[0, 5] = (X[0, 5] + 1) % VOCABULARY
    changes = {"x": (other, T, LABELS), "t": (X, T + 0.1, LABELS), "labels": (X, T, LABELS[::-1])}
    for name, inputs in changes.items():
        difference = np.abs(apply(model, params, *inputs) - base).max(axis=-1)
        assert (difference[0] > 1e-4).all(), name  # at every place, not at the changed one alone
        if name == "x":
            np.testing.assert_array_equal(difference[1:], 0)


@pytest.mark.slow
def test_places_are_known_by_their_differences_alone(trained):
    """Without a token that stands out, a shift of all places changes nothing but the ends."""
    masked = np.full((1, PLACES), VOCABULARY, np.int32)
    logits = apply(tiny(), trained, masked, T[:1], LABELS[:1])
    # Of equal tokens the values attended to are equal, wherever they are.
    np.testing.assert_allclose(logits, np.broadcast_to(logits[:, :1], logits.shape), atol=1e-5)
    tokens = np.array([[1, 2, 3, 4, 5, 6], [1, 3, 2, 4, 5, 6]], np.int32)
    first, second = apply(tiny(), trained, tokens, T[:2] * 0, LABELS[:2] * 0)
    # An order that changes is seen by the other places, which a bag of tokens would not be.
    assert np.abs(first - second)[[0, 3, 4, 5]].max() > 1e-4


def test_a_sequence_read_backwards_is_another():
    """The angle of a pair depends on the difference of two places, its sign included."""
    params = randomised(tiny(), X, T, LABELS)
    backwards = apply(tiny(), params, X[:, ::-1], T, LABELS)[:, ::-1]
    assert np.abs(backwards - apply(tiny(), params, X, T, LABELS)).max() > 1e-3


def test_a_number_that_is_no_token_is_not_mistaken_for_one(trained):
    wrong = X.copy()
    wrong[0, 0], wrong[1, 0] = VOCABULARY + 1, -1
    logits = apply(tiny(), trained, wrong, T, LABELS)
    assert np.isnan(logits[:2]).all()
    assert np.isfinite(logits[2:]).all()


@pytest.mark.slow
def test_a_look_up_gives_what_a_product_gives(monkeypatch, trained):
    product = apply(tiny(), trained, X, T, LABELS)
    monkeypatch.setattr("fmjax.models.tokens._ONE_HOT", 0)
    looked_up = tiny().apply({"params": trained}, X, T, LABELS)
    np.testing.assert_allclose(looked_up, product, rtol=1e-4, atol=1e-5)


def test_bfloat16_and_a_loop_and_recomputation_change_rounding_only(trained):
    exact = apply(tiny(), trained, X, T, LABELS)
    looped = apply(tiny(scan=True, remat="full"), trained, X, T, LABELS)
    np.testing.assert_allclose(looped, exact, rtol=1e-4, atol=1e-5)
    half = apply(tiny(dtype=jnp.bfloat16), trained, X, T, LABELS)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, exact, atol=0.1 * np.abs(exact).max())


@pytest.mark.slow
def test_without_the_time_nothing_depends_on_it(trained):
    network = without_time(from_linen(tiny()))
    logits = [network(trained, X, t, LABELS) for t in (T, T[::-1])]
    np.testing.assert_array_equal(*logits)
    np.testing.assert_allclose(logits[0], apply(tiny(), trained, X, 0 * T, LABELS), atol=1e-5)


def test_a_sequence_to_attend_to_is_a_condition():
    conditions = {"text": Sequence(5, 4), "text_mask": Mask(5, of="text")}
    model = tiny(conditions=conditions)
    text = np.random.default_rng(0).normal(size=(B, 5, 4)).astype(np.float32)
    labels = {"text": text, "text_mask": np.ones((B, 5), bool)}
    params = randomised(model, X, T, labels)
    base = apply(model, params, X, T, labels)
    labels["text"] = text + 1
    assert np.abs(apply(model, params, X, T, labels) - base).max() > 1e-4


def test_the_sizes_by_name():
    shapes = {n: (m["depth"], m["width"], m["heads"]) for n, m in PRESETS.items()}
    assert shapes["TokenTransformer-B"] == (12, 768, 12)  # SEDD small
    assert shapes["TokenTransformer-L"] == (24, 1024, 16)  # SEDD medium
    model = preset("TokenTransformer-XS", vocabulary=65, tied=True)
    assert (model.width, model.vocabulary, model.tied) == (192, 65, True)
    with pytest.raises(InputError, match="unknown TokenTransformer preset 'TokenTransformer-T'"):
        preset("TokenTransformer-T", vocabulary=65)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"vocabulary": 1}, "vocabulary must be a whole number of at least 2; got 1"),
        ({"width": 18, "heads": 4}, "width"),
        ({"heads": 0}, "heads must be a whole number of at least 1"),
        ({"mlp": "relu"}, "unknown feed-forward layer 'relu'"),
        ({"tied": 1}, "tied"),
        ({"remat": "some"}, "unknown remat policy 'some'"),
        ({"mlp_ratio": 0}, "mlp_ratio=0: expected a positive number"),
        ({"conditions": ImageCondition((2, 2, 1))}, "takes no images for a condition"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        jax.eval_shape(tiny(**fields).init, jax.random.key(0), X, T, LABELS)


@pytest.mark.parametrize(
    ("x", "t", "labels", "sentence"),
    [
        (X.astype(np.float32), T, LABELS, "x has dtype float32, and a network of tokens takes int"),
        (X[0], T, LABELS, r"x has shape \(6,\), expected \(batch, places\)"),
        (X, T[:2], LABELS, r"t has shape \(2,\), expected one time per example"),
        (X, T, None, "labels"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, t, labels, sentence):
    with pytest.raises(InputError, match=sentence):
        jax.eval_shape(tiny().init, jax.random.key(0), x, t, labels)
