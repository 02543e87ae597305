import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import ClassIds, Mask, Sequence, Vector
from fmjax.errors import InputError
from fmjax.guidance import SCALE_SCHEDULES, Guided, classifier_free, drop_labels, scale_from_excess
from tests.conftest import rounding

NULL = 3
TABLE = jax.random.normal(jax.random.key(0), (NULL + 1, 5))
W = jax.random.normal(jax.random.key(1), (5, 5))


def velocity(x, t, labels):
    return jnp.tanh((x + TABLE[labels]) @ W) + t[:, None]


X = jax.random.normal(jax.random.key(2), (6, 5))
T = jnp.linspace(0, 1, 6)
LABELS = jnp.array([0, 1, 2, 0, 1, 2])
guided = classifier_free(velocity, NULL)


def test_w_one_is_the_conditional_field_and_w_zero_the_unconditional_one_exactly():
    null = jnp.full(6, NULL)
    # The same vmapped product, so that equality is to the last bit.
    u_null, u_cond = jax.vmap(velocity, (None, None, 0))(X, T, jnp.stack([null, LABELS]))
    np.testing.assert_array_equal(guided(X, T, Guided(LABELS, 1.0)), u_cond)
    np.testing.assert_array_equal(guided(X, T, Guided(LABELS, 0.0)), u_null)


@pytest.mark.parametrize("w", [-0.5, 0.3, 1.5, 7.0])
def test_the_vmapped_call_equals_two_separate_calls(w):
    expected = (1 - w) * velocity(X, T, jnp.full(6, NULL)) + w * velocity(X, T, LABELS)
    np.testing.assert_allclose(guided(X, T, Guided(LABELS, w)), expected, atol=rounding(expected))


def test_one_scale_per_example():
    w = jnp.linspace(0, 3, 6)
    rows = [guided(X, T, Guided(LABELS, float(s)))[i] for i, s in enumerate(w)]
    u = guided(X, T, Guided(LABELS, w))
    np.testing.assert_allclose(u, jnp.stack(rows), atol=rounding(u))


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_sweeping_the_scale_and_the_labels_compiles_nothing(count_compilations, schedule):
    field = classifier_free(velocity, NULL, schedule=schedule, interval=(0.2, 0.7))
    f = jax.jit(lambda labels, w: field(X, T, Guided(labels, w)))
    scales = [jnp.full(6, w) for w in (0.0, 1.0, 1.5, 4.0)]
    others = [(LABELS + i) % NULL for i in range(4)]
    f(LABELS, scales[0]).block_until_ready()
    with count_compilations() as compiled:
        for labels, w in zip(others, scales, strict=True):
            f(labels, w).block_until_ready()
    assert compiled.count == 0, compiled.names


def test_one_batch_sweeps_eight_scales_in_one_program(count_compilations):
    w = jnp.linspace(0.0, 7.0, 8)
    x, t, labels = jnp.repeat(X[:1], 8, axis=0), jnp.full(8, 0.3), jnp.ones(8, jnp.int32)
    f = jax.jit(lambda w: guided(x, t, Guided(labels, w)))
    u, other = f(w).block_until_ready(), w[::-1]
    with count_compilations() as compiled:
        f(other).block_until_ready()
    assert compiled.count == 0, compiled.names
    # Linear in w: equal differences along the sweep.
    np.testing.assert_allclose(
        jnp.diff(u, axis=0), jnp.repeat((u[1] - u[0])[None], 7, 0), atol=rounding(u)
    )
    assert float(jnp.abs(u[1] - u[0]).max()) > 0.1


def dot_products(f, *args):
    """The shapes of the results of the dot products of a function, those inside others too."""

    def find(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "dot_general":
                yield eqn.outvars[0].aval.shape
            for value in eqn.params.values():
                for inner in value if isinstance(value, tuple) else (value,):
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        yield from find(inner)

    return list(find(jax.make_jaxpr(f)(*args).jaxpr))


def test_both_branches_share_the_dot_products_of_one_call():
    assert dot_products(velocity, X, T, LABELS) == [(6, 5)]
    assert dot_products(guided, X, T, Guided(LABELS, 1.5)) == [(2, 6, 5)]


def test_several_conditions_are_k_plus_one_branches_of_one_call():
    several = tuple(Guided((LABELS + k) % NULL, 1.0 + k) for k in range(3))
    assert dot_products(guided, X, T, several) == [(4, 6, 5)]


def test_several_conditions_add_what_each_adds_alone():
    w = jnp.linspace(-1, 2, 6)
    several = (
        Guided(LABELS, w),
        Guided((LABELS + 1) % NULL, 2.0),
        Guided((LABELS + 2) % NULL, -0.5),
    )
    null = velocity(X, T, jnp.full(6, NULL))
    expected = null + sum(
        jnp.broadcast_to(jnp.asarray(c.w), (6,))[:, None] * (velocity(X, T, c.labels) - null)
        for c in several
    )
    np.testing.assert_allclose(guided(X, T, several), expected, atol=rounding(expected))


def test_a_tuple_of_one_condition_is_that_condition():
    one = Guided(LABELS, 2.5, negative=(LABELS + 1) % NULL)
    np.testing.assert_array_equal(guided(X, T, (one,)), guided(X, T, one))


def test_a_negative_condition_takes_the_place_of_the_null_one():
    negative = (LABELS + 1) % NULL
    expected = -1.5 * velocity(X, T, negative) + 2.5 * velocity(X, T, LABELS)
    u = guided(X, T, Guided(LABELS, 2.5, negative))
    np.testing.assert_allclose(u, expected, atol=rounding(expected))
    shared = guided(X, T, Guided(LABELS, 2.5, 2))
    apart = guided(X, T, Guided(LABELS, 2.5, jnp.full(6, 2)))
    np.testing.assert_array_equal(shared, apart)


FACTORS = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 2 * t,
    "cosine": lambda t: 1 - np.cos(np.pi * t),
}


@pytest.mark.parametrize("schedule", sorted(SCALE_SCHEDULES))
def test_a_schedule_multiplies_the_excess_by_a_factor_of_mean_one(schedule):
    factor = FACTORS[schedule]
    middles = (np.arange(1000) + 0.5) / 1000
    assert abs(np.mean([factor(t) for t in middles]) - 1) < 1e-6
    field = classifier_free(velocity, NULL, schedule=schedule)
    null, cond = velocity(X, T, jnp.full(6, NULL)), velocity(X, T, LABELS)
    for w in (1.0, 3.0):
        at = jnp.array([1 + (w - 1) * factor(float(t)) for t in T])[:, None]
        expected = (1 - at) * null + at * cond
        u = field(X, T, Guided(LABELS, w))
        np.testing.assert_allclose(u, expected, atol=rounding(expected))


def test_a_schedule_may_be_a_function_of_the_scale_and_the_time():
    field = classifier_free(velocity, NULL, schedule=lambda w, t: w * t**2)
    w = jnp.linspace(0, 5, 6)
    expected = guided(X, T, Guided(LABELS, w * T**2))
    u = field(X, T, Guided(LABELS, w))
    np.testing.assert_allclose(u, expected, atol=rounding(expected))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "expected"), [("float16", jnp.float32), ("float64", jnp.float64)]
)
def test_float64_is_kept_and_half_precision_is_widened(dtype, expected, request):
    if dtype == "float16":
        request.getfixturevalue("float16")
    with jax.enable_x64(dtype == "float64"):
        x, t = X.astype(dtype), T.astype(expected)
        for field in (
            guided,
            classifier_free(velocity, NULL, interval=(0, 0.5), zero_until=0.1),
        ):
            assert field(x, t, Guided(LABELS, 1.5)).dtype == expected


def test_work_on_x_and_t_alone_is_done_once():
    def costly(x, t, labels):
        return (x @ W) * (1 + TABLE[labels])

    jaxpr = jax.make_jaxpr(classifier_free(costly, NULL))(X, T, Guided(LABELS, 1.5))
    (dot,) = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "dot_general"]
    assert dot.outvars[0].aval.shape == X.shape  # without a branch axis


@pytest.mark.slow
def test_a_pytree_of_conditions_is_guided_as_a_whole():
    def velocity(x, t, labels):
        return x * labels["scale"][:, None] + labels["text"]

    null = {"scale": 0.5, "text": jnp.arange(5.0)}
    labels = {"scale": T, "text": X}
    u = classifier_free(velocity, null)(X, T, Guided(labels, 2.0))
    expected = -(X * 0.5 + jnp.arange(5.0)[None]) + 2 * (X * T[:, None] + X)
    np.testing.assert_allclose(u, expected, atol=rounding(expected))


def test_the_other_convention_is_converted():
    s, u_null, u_cond = 2.0, velocity(X, T, jnp.full(6, NULL)), velocity(X, T, LABELS)
    other = (1 + s) * u_cond - s * u_null
    u = guided(X, T, Guided(LABELS, scale_from_excess(s)))
    np.testing.assert_allclose(u, other, atol=rounding(other))


@pytest.mark.parametrize("conditions", [LABELS, None, Guided(None, 1.5), (Guided(LABELS), 1.5)])
def test_guidance_without_labels_is_refused(conditions):
    with pytest.raises(InputError, match="Guided"):
        guided(X, T, conditions)


@pytest.mark.parametrize("w", [jnp.ones(5), jnp.ones((6, 1))])
def test_a_scale_of_the_wrong_shape_is_refused(w):
    with pytest.raises(InputError, match="one per example"):
        guided(X, T, Guided(LABELS, w))


def test_both_lengths_are_named():
    with pytest.raises(InputError, match=r"w must be .* \(6,\); got shape \(5,\)"):
        guided(X, T, Guided(LABELS, jnp.ones(5)))


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ((), r"at least one Guided\(labels, w\); got \(\)"),
        ((Guided(LABELS, 2.0, 1), Guided(LABELS, 1.0)), "negative condition among several"),
        ((Guided(LABELS), Guided({"id": LABELS})), "must be built alike"),
        (
            (Guided(LABELS), Guided(LABELS[:5])),
            r"size of the batch, 6; got .*\(5,\)",
        ),
        (Guided({"id": LABELS}, 2.0), "must be built as the labels are"),
        (Guided(LABELS, 2.0, jnp.ones(4)), r"must fit labels of shape \(6,\).* \(4,\)"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(conditions, message):
    with pytest.raises(InputError, match=message):
        guided(X, T, conditions)


def test_an_unknown_schedule_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'cosin'. Did you mean 'cosine'.*cosine, linear"):
        classifier_free(velocity, NULL, schedule="cosin")


def test_a_schedule_of_the_wrong_shape_is_refused():
    field = classifier_free(velocity, NULL, schedule=lambda w, t: jnp.ones(4))
    with pytest.raises(InputError, match=r"the scales, \(6,\); got float32 of shape \(4,\)"):
        field(X, T, Guided(LABELS, 2.0))


KEYS = jax.random.split(jax.random.key(5), 20_000)
MANY = jnp.arange(20_000) % NULL


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_labels_are_dropped_at_their_rate_and_otherwise_kept(rate):
    dropped = drop_labels(KEYS, MANY, ClassIds(NULL, drop_rate=rate))
    share = float(jnp.mean(dropped == NULL))
    assert abs(share - rate) <= 4 * np.sqrt(rate * (1 - rate) / len(MANY))
    assert jnp.all((dropped == NULL) | (dropped == MANY))


SEVERAL = {"a": ClassIds(NULL, drop_rate=0.3), "b": Vector(2, (-1.0, 5.0), drop_rate=0.6)}


@pytest.mark.parametrize("drop_all", [0.0, 0.2])
def test_each_condition_is_dropped_at_its_own_rate_to_its_own_null(drop_all):
    labels = {"a": MANY, "b": jnp.ones((len(MANY), 2))}
    dropped = drop_labels(KEYS, labels, SEVERAL, drop_all=drop_all)
    a, b = dropped["a"] == NULL, jnp.all(dropped["b"] == jnp.array([[-1.0, 5.0]]), axis=1)
    assert jnp.all(b | jnp.all(dropped["b"] == 1, axis=1))
    # Independent of each other, and both where all are dropped together.
    expected = [drop_all + (1 - drop_all) * p for p in (0.3, 0.6, 0.18)]
    found = [float(jnp.mean(share)) for share in (a, b, a & b)]
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / len(MANY)))


@pytest.mark.parametrize("drop_all", [0.0, 0.2])
def test_a_mask_is_dropped_with_its_sequence(drop_all):
    text = {"a": ClassIds(NULL), "text": Sequence(3, 2, drop_rate=0.4), "z": Mask(3, of="text")}
    n = len(MANY)
    labels = {"a": MANY, "text": jnp.ones((n, 3, 2)), "z": jnp.ones((n, 3), bool)}
    dropped = drop_labels(KEYS, labels, text, drop_all=drop_all)
    gone = jnp.all(dropped["text"] == 0, axis=(1, 2))
    np.testing.assert_array_equal(jnp.all(~dropped["z"], axis=1), gone)
    np.testing.assert_array_equal(jnp.all(dropped["z"], axis=1), ~gone)
    expected = drop_all + (1 - drop_all) * 0.4
    assert float(jnp.mean(gone)) == pytest.approx(expected, abs=4 * np.sqrt(0.25 / n))


def test_a_drop_can_be_forced_either_way():
    force = MANY == 1
    dropped = drop_labels(KEYS, MANY, ClassIds(NULL), force_drop=force)
    np.testing.assert_array_equal(dropped, jnp.where(force, NULL, MANY))


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_drop_rate_outside_its_interval_is_refused(rate):
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        drop_labels(KEYS, MANY, ClassIds(NULL), drop_all=rate)
