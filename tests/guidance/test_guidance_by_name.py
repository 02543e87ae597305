"""Conditions by name, each with a scale of its own, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import solve, solver_spec
from fmjax.conditions import ClassIds, Mask, Sequence, Vector, null_labels, nulls
from fmjax.errors import InputError
from fmjax.guidance import (
    Between,
    Guided,
    Nested,
    Rescale,
    classifier_free,
    guide_each,
    guide_in_turn,
    interpolated,
)
from tests.conftest import rounding

B, STD = 6, 0.5
CONDITIONS = {"image": Vector(2), "text": Vector(2)}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, 2)).astype(np.float32)
T = np.linspace(0, 1, B, dtype=np.float32)
LABELS = {name: RNG.normal(size=(B, 2)).astype(np.float32) for name in CONDITIONS}


def mean(labels):
    """Of the data under the labels: each counts by itself, and the two together."""
    image, text = labels["image"], labels["text"]
    return 1.0 + 2 * image + text * jnp.tanh(1 + image)


def velocity(x, t, labels):
    """Of the flow to N(mean, STD^2), which is affine in the mean."""
    m, t = mean(labels), t[:, None]
    slope = (t * STD**2 - (1 - t)) / (t**2 * STD**2 + (1 - t) ** 2)
    return m + slope * (x - t * m)


NULL = null_labels(CONDITIONS)
guided = jax.jit(classifier_free(velocity, NULL))


def only(*names):
    return {n: LABELS[n] if n in names else np.zeros_like(LABELS[n]) for n in LABELS}


def test_two_scales_are_those_of_instruct_pix2pix():
    s_image, s_text = 1.5, 7.5
    u_0, u_image, u_both = (velocity(X, T, only(*n)) for n in ((), ("image",), ("image", "text")))
    expected = u_0 + s_image * (u_image - u_0) + s_text * (u_both - u_image)  # eq. (3)
    u = guided(X, T, guide_in_turn(CONDITIONS, LABELS, {"image": s_image, "text": s_text}))
    np.testing.assert_allclose(u, expected, atol=rounding(expected))


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("guide", "order"),
    [(guide_each, "image text"), (guide_in_turn, "image text"), (guide_in_turn, "text image")],
)
def test_samples_come_from_the_gaussian_whose_mean_is_guided(guide, order):
    first, second = order.split()
    w = {first: np.linspace(-1, 3, B, dtype=np.float32), second: 2.0}
    by = {name: np.broadcast_to(scale, B)[:, None] for name, scale in w.items()}
    m = {name: mean(only(*name.split("+"))) for name in ("", "image", "text", "image+text")}
    reference = m[""] if guide is guide_each else m[first]
    end = m[second] if guide is guide_each else m["image+text"]
    goal = m[""] + by[first] * (m[first] - m[""]) + by[second] * (end - reference)
    x1 = solve(guided, X, guide(CONDITIONS, LABELS, w), solver_spec("rk4", 40)).x1
    np.testing.assert_allclose(x1, goal + STD * X, rtol=1e-3, atol=1e-3)


def test_all_scales_one_are_the_velocity_under_every_condition_in_turn():
    u = guided(X, T, guide_in_turn(CONDITIONS, LABELS, {"text": 1.0, "image": 1.0}))
    expected = velocity(X, T, LABELS)
    np.testing.assert_allclose(u, expected, atol=rounding(expected))


def test_a_negative_scale_leads_away_from_one_condition_beside_another():
    u = guided(X, T, guide_each(CONDITIONS, LABELS, {"image": 2.0, "text": -1.0}))
    u_0, u_image, u_text = (velocity(X, T, only(*n)) for n in ((), ("image",), ("text",)))
    expected = u_0 + 2 * (u_image - u_0) - (u_text - u_0)
    np.testing.assert_allclose(u, expected, atol=rounding(expected))


def test_a_schedule_and_an_interval_mean_the_same_for_conditions_in_turn():
    field = classifier_free(velocity, NULL, schedule="linear", interval=(0.3, 0.7))
    w = {"image": 1.5, "text": 7.5}
    u = field(X, T, guide_in_turn(CONDITIONS, LABELS, w))
    at = {n: np.where((T >= 0.3) & (T <= 0.7), 1 + (s - 1) * 2 * T, 1.0) for n, s in w.items()}
    u_0, u_image, u_both = (velocity(X, T, only(*n)) for n in ((), ("image",), ("image", "text")))
    expected = u_0 + at["image"][:, None] * (u_image - u_0)
    expected = expected + at["text"][:, None] * (u_both - u_image)
    np.testing.assert_allclose(u, expected, atol=rounding(expected))


def test_outside_the_interval_conditions_in_turn_take_one_call():
    calls = []

    def counted(x, t, labels):
        jax.debug.callback(lambda: calls.append(1))
        return velocity(x, t, labels)

    field = jax.jit(classifier_free(counted, NULL, interval=(0.3, 0.7)))
    late = np.full(B, 0.9, np.float32)
    u = field(X, late, guide_in_turn(CONDITIONS, LABELS, {"image": 2.0, "text": 2.0}))
    np.testing.assert_allclose(u, velocity(X, late, LABELS), rtol=1e-5, atol=1e-5)
    jax.effects_barrier()
    assert len(calls) == 1


def test_a_rule_is_applied_to_each_step_with_its_own_reference():
    rule = Rescale(0.7)
    u = classifier_free(velocity, NULL, rule=rule)(
        X, T, guide_in_turn(CONDITIONS, LABELS, {"image": 2.0, "text": 3.0})
    )
    u_0, u_image, u_both = (velocity(X, T, only(*n)) for n in ((), ("image",), ("image", "text")))
    two, three = (np.full(B, w, np.float32) for w in (2.0, 3.0))
    expected = rule(u_0, u_image, two, X, T) + rule(u_image, u_both, three, X, T) - u_image
    np.testing.assert_allclose(u, expected, atol=rounding(expected))


def test_a_mask_goes_with_its_sequence():
    conditions = {
        "text": Sequence(3, 2, null=(5.0, 5.0)),
        "text_mask": Mask(3, of="text"),
        "class": ClassIds(4),
    }
    labels = {"text": np.ones((B, 3, 2)), "text_mask": np.ones((B, 3), bool), "class": np.zeros(B)}
    labels["class"] = labels["class"].astype(np.int32)
    text, both = guide_in_turn(conditions, labels, {"text": 2.0, "class": 3.0}).parts
    null = nulls(conditions, B)
    np.testing.assert_array_equal(text.labels["class"], null["class"])
    np.testing.assert_array_equal(text.labels["text_mask"], labels["text_mask"])
    jax.tree.map(np.testing.assert_array_equal, both.labels, labels)
    _, alone = guide_each(conditions, labels, {"text": 2.0, "class": 3.0})
    np.testing.assert_array_equal(alone.labels["text"], null["text"])
    np.testing.assert_array_equal(alone.labels["text_mask"], null["text_mask"])


def test_one_example_may_stand_for_the_batch():
    lone = {name: x[:1] for name, x in LABELS.items()}
    full = {name: np.repeat(x, B, axis=0) for name, x in lone.items()}
    w = {"image": 1.5, "text": 7.5}
    u, expected = (guided(X, T, guide_in_turn(CONDITIONS, y, w)) for y in (lone, full))
    np.testing.assert_array_equal(u, expected)


@pytest.mark.parametrize("guide", [guide_each, guide_in_turn])
@pytest.mark.parametrize(
    ("labels", "scales", "message"),
    [
        (LABELS, {"image": 1.0, "txt": 2.0}, "unknown condition 'txt'. Did you mean 'text'"),
        (LABELS, {"image": 1.0}, "one for each condition; text has none"),
        (LABELS, 2.0, "dictionary of a scale for each condition.*got 2.0"),
        (LABELS["image"], {"image": 1.0, "text": 1.0}, "must be built as the labels are"),
    ],
)
def test_scales_that_do_not_fit_are_refused(guide, labels, scales, message):
    with pytest.raises(InputError, match=message):
        guide(CONDITIONS, labels, scales)


def test_conditions_in_turn_have_no_negative_and_are_at_least_one():
    with pytest.raises(InputError, match="at least one Guided"):
        guided(X, T, Nested(()))
    with pytest.raises(InputError, match="a negative condition among several"):
        guided(X, T, Nested((Guided(LABELS, 1.0, LABELS), Guided(LABELS, 1.0))))


@pytest.mark.slow
def test_halfway_between_two_vectors_the_gaussian_is_halfway():
    def plain(x, t, labels):
        return velocity(x, t, {"image": labels, "text": jnp.zeros_like(labels)})

    start, end = LABELS["image"], LABELS["text"]
    x1 = solve(interpolated(plain), X, Between(start, end, 0.25), solver_spec("rk4", 40)).x1
    # The mean is affine in the vector, so that the velocity between is that of the vector between.
    between = mean({"image": 0.75 * start + 0.25 * end, "text": jnp.zeros_like(start)})
    np.testing.assert_allclose(x1, between + STD * X, rtol=1e-3, atol=1e-3)
