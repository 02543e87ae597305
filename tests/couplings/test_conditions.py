import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.couplings import NearConditions, SameClass, exact, sinkhorn
from fmjax.couplings.conditions import find_weight
from fmjax.errors import InputError

KEY = jax.random.key(0)
N = 64
# Two classes on the two sides of a standard normal source.
LABELS = jnp.arange(N) % 2
X0 = jax.random.normal(jax.random.key(1), (N, 2))
X1 = 0.3 * jax.random.normal(jax.random.key(2), (N, 2)) + jnp.stack(
    [6.0 * LABELS - 3.0, jnp.zeros(N)], axis=1
)


def class_means(x0):
    return np.stack([np.asarray(x0)[np.asarray(LABELS) == c].mean(axis=0) for c in (0, 1)])


def test_plain_transport_shifts_the_source_of_a_class_and_condition_aware_does_not():
    # Each half of a standard normal has mean +-sqrt(2 / pi) = 0.8 across the cut.
    plain = class_means(exact()(KEY, X0, X1, LABELS)[0])
    assert plain[0, 0] < -0.5
    assert plain[1, 0] > 0.5
    aware = exact(SameClass())
    x0, x1, labels = aware(KEY, X0, X1, LABELS)
    for c in (0, 1):  # within a class the same points, so the same law as drawn
        mine = np.asarray(LABELS) == c
        assert set(map(tuple, np.asarray(x0)[mine])) == set(map(tuple, np.asarray(X0)[mine]))
    np.testing.assert_array_equal(x1, X1)
    np.testing.assert_array_equal(labels, LABELS)
    assert jnp.sum((x0 - x1) ** 2) < 0.95 * jnp.sum((X0 - X1) ** 2)


def test_sinkhorn_keeps_the_classes_too():
    for rounding in ("sample", "permutation"):
        x0 = sinkhorn(1.0, rounding, SameClass())(KEY, X0, X1, LABELS)[0]
        for c in (0, 1):
            mine = np.asarray(LABELS) == c
            assert set(map(tuple, np.asarray(x0)[mine])) <= set(map(tuple, np.asarray(X0)[mine]))


def test_labels_of_several_columns_must_agree_in_all():
    labels = jnp.stack([LABELS, jnp.arange(N) // 16], axis=1)
    cost = SameClass()(jnp.ones((N, N)), labels)
    same = (np.asarray(labels)[:, None] == np.asarray(labels)[None]).all(-1)
    np.testing.assert_array_equal(np.isfinite(cost), same)


def test_conditions_are_picked_from_a_tree():
    tree = {"class": LABELS, "text": jnp.ones((N, 3))}
    cost = jnp.ones((N, N))
    picked = SameClass(of=lambda labels: labels["class"])(cost, tree)
    np.testing.assert_array_equal(picked, SameClass()(cost, LABELS))
    with pytest.raises(InputError, match="2 arrays, and one must be picked"):
        SameClass()(cost, tree)


CONDITIONS = jax.random.normal(jax.random.key(3), (N, 3))
COST = jnp.sum((X0[:, None] - X1[None]) ** 2, axis=-1)


@pytest.mark.parametrize("distance", ["cosine", "squared"])
def test_the_weight_meets_the_target_ratio(distance):
    near = NearConditions(ratio=0.05, distance=distance)
    d = np.asarray(near.distances(CONDITIONS), np.float64)
    c = np.asarray(CONDITIONS, np.float64)
    if distance == "cosine":
        unit = c / np.linalg.norm(c, axis=1, keepdims=True)
        np.testing.assert_allclose(d, 1 - unit @ unit.T, atol=1e-5)
    else:
        np.testing.assert_allclose(d, np.square(c[:, None] - c[None]).sum(-1), rtol=1e-5)
    cost = np.asarray(COST, np.float64)
    w = float(find_weight(COST, jnp.asarray(d, jnp.float32), 0.05))

    def share(w):
        return np.mean(cost + w * d <= np.diagonal(cost)[None, :])

    assert w > 0
    # To the last bit: in float32 a pair stops being a candidate at this weight, its own never does.
    own, gain = np.eye(N, dtype=bool), np.diagonal(COST)[None] - np.asarray(COST)
    last = np.where(own, np.inf, gain / np.where(own, 1, d.astype("float32")))
    assert np.mean(last > w) <= 0.05
    assert share(w * (1 + 1e-4)) <= 0.05 < share(w * (1 - 1e-2))
    np.testing.assert_allclose(near(COST, CONDITIONS), cost + w * d, rtol=1e-4, atol=1e-4)


def test_no_weight_is_taken_where_none_is_needed_and_the_largest_where_none_is_enough():
    d = NearConditions(distance="squared").distances(CONDITIONS)
    assert find_weight(COST, d, 1.0) == 0
    w = float(find_weight(COST, d, 1e-9))
    off = ~np.eye(N, dtype=bool)
    cost = np.asarray(COST, np.float64) + 1.001 * w * np.asarray(d)
    assert not (cost <= np.diagonal(cost)[None])[off].any()


def test_a_smaller_ratio_gives_nearer_conditions():
    def mismatch(ratio):
        coupling = exact(NearConditions(ratio, "squared"))
        i, _ = coupling.match(KEY, coupling.conditions(COST, CONDITIONS))
        return float(jnp.mean(jnp.sum((CONDITIONS[i] - CONDITIONS) ** 2, axis=1)))

    plain, loose, tight = mismatch(1.0), mismatch(0.2), mismatch(0.05)
    assert tight < loose < plain


def test_zero_conditions_are_like_each_other():
    c = jnp.zeros((4, 3)).at[0, 0].set(1.0)
    d = np.asarray(NearConditions().distances(c))
    assert d[1, 2] == 0
    assert d[0, 1] > 0


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: NearConditions(0.0), r"ratio, a share of pairs, must lie in \(0, 1\]"),
        (lambda: NearConditions(1.5), r"must lie in \(0, 1\]; got 1.5"),
        (lambda: NearConditions(distance="cosin"), "Did you mean 'cosine'"),
        (lambda: exact(SameClass())(KEY, X0, X1, None), "needs the labels of the batch; got None"),
        (lambda: exact(NearConditions())(KEY, X0, X1, None), "needs the labels"),
    ],
)
def test_bad_conditions_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
