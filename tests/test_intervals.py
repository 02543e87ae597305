"""The velocity between two snapshots is that of the whole of time, in the interval's own unit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import Draw, make_loss_fn, solve, solver_spec
from fmjax.errors import InputError
from fmjax.intervals import on_intervals

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)), jnp.float32)
ENDS = jnp.asarray([[0.0, 0.25], [0.25, 1.0], [0.5, 0.75], [0.0, 1.0]])


def field(params, x, t, labels):
    more = 0.0 if labels is None else labels["dose"]
    return params * x * t[:, None] + more


@pytest.mark.slow
def test_solving_within_an_interval_is_solving_from_its_start_to_its_end():
    for k in range(4):
        labels = {"interval": ENDS[k : k + 1]}
        local = lambda x, r, labels: on_intervals(field)(0.7, x, r, labels)  # noqa: E731
        inside = solve(local, X[:1], labels, solver_spec("rk4", 50)).x1
        whole = lambda x, t, labels: field(0.7, x, t, labels)  # noqa: E731
        ends = {"t0": float(ENDS[k, 0]), "t1": float(ENDS[k, 1])}
        across = solve(whole, X[:1], None, solver_spec("rk4", 50), **ends).x1
        np.testing.assert_allclose(inside, across, rtol=1e-5)


def test_other_labels_go_to_the_network():
    dose = jnp.ones((4, 1))
    r = jnp.full(4, 0.5)
    found = on_intervals(field)(0.0, X, r, {"interval": ENDS, "dose": dose})
    length = ENDS[:, 1:] - ENDS[:, :1]
    np.testing.assert_allclose(found, length * jnp.ones_like(X), rtol=1e-6)


def test_the_loss_is_least_at_the_straight_line_of_a_pair():
    """On one pair an interval the field must be (x1 - x0) / (b - a) there."""
    x0, x1 = X, X + jnp.asarray([[1.0, 2.0]]) * (ENDS[:, 1:] - ENDS[:, :1])
    loss_fn = make_loss_fn(on_intervals(lambda p, x, t, labels: jnp.broadcast_to(p, x.shape)))
    args = Draw()(jax.random.key(0), jnp.arange(4), x1, {"interval": ENDS}, x0)
    gradient = jax.grad(loss_fn)(jnp.asarray([1.0, 2.0]), *args)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    assert np.abs(jax.grad(loss_fn)(jnp.asarray([1.0, 3.0]), *args)).max() > 0.1


@pytest.mark.parametrize(
    ("labels", "came"),
    [
        (None, "no such dictionary"),
        ({"dose": jnp.ones((4, 1))}, "no such dictionary"),
        ({"interval": jnp.ones(4)}, r"shape \(4,\)"),
    ],
)
def test_labels_without_an_interval_are_refused(labels, came):
    with pytest.raises(InputError, match=f"'interval'.*got .*{came}"):
        on_intervals(field)(0.0, X, jnp.zeros(4), labels)


def test_what_is_no_network_and_what_gives_another_shape_is_refused():
    with pytest.raises(InputError, match="apply_fn"):
        on_intervals(None)
    with pytest.raises(InputError, match="apply_fn"):
        on_intervals(lambda p, x, t, labels: x[:, :1])(0.0, X, jnp.zeros(4), {"interval": ENDS})
