import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import ClassIds
from fmjax.conventions import Span
from fmjax.errors import InputError
from fmjax.models.fourier_mlp import FourierMLP

B = 6
T = np.linspace(0.05, 0.95, B, dtype=np.float32)
X = np.random.default_rng(1).normal(size=(B, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 1, 0])


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, x, t, labels=None):
    return model.apply({"params": params}, x, t, labels)


def make(t=T, labels=None, **fields):
    """A small model, and parameters with nothing left at zero, as after training."""
    model = FourierMLP(**{"width": 16, "depth": 2, "features": 5, "frequency": 50.0, **fields})
    init = functools.partial(model.init, jax.random.key(0))
    leaves, tree = jax.tree.flatten(jax.eval_shape(init, X, t, labels)["params"])
    rng = np.random.default_rng(0)
    noise = [rng.normal(0, 0.25, a.shape).astype(a.dtype) for a in leaves]
    return model, jax.tree.unflatten(tree, noise)


@pytest.mark.slow
def test_a_fresh_model_outputs_zero_in_the_shape_of_x():
    for shape in ((3,), (3, 3)):
        model, x = FourierMLP(width=16, depth=1), np.ones((B, *shape), np.float32)
        out, _ = jax.jit(model.init_with_output)(jax.random.key(0), x, T)
        assert (out.shape, out.dtype) == (x.shape, jnp.float32)
        np.testing.assert_array_equal(out, 0.0)


def test_fine_features_open_at_late_times():
    """A small step of x changes the output only where the noise is smaller than that."""
    model, params = make()
    step = X + np.float32(0.02)
    early, late = (
        np.abs(
            apply(model, params, step, np.full(B, t, np.float32))
            - apply(model, params, X, np.full(B, t, np.float32))
        ).mean()
        for t in (0.1, 1.0)
    )
    assert late > 3 * early


def test_class_and_the_second_time_matter():
    model, params = make(labels=LABELS, conditions=ClassIds(3))
    same = np.broadcast_to(X[:1], X.shape)
    out = apply(model, params, same, np.full(B, 0.5, np.float32), LABELS)
    assert len(np.unique(np.asarray(out), axis=0)) == 4
    span = Span(T, np.ones(B, np.float32))
    model, params = make(span, span=True)
    out, other = (apply(model, params, X, one) for one in (span, Span(T, T)))
    assert np.abs(out - other).min() > 1e-4


@pytest.mark.parametrize("conditions", [None, ClassIds(3)])
def test_operations_are_those_of_its_matrices(conditions):
    labels = None if conditions is None else LABELS
    model, params = make(labels=labels, conditions=conditions)
    matrices = [a.size for a in jax.tree.leaves(params) if a.ndim == 2]
    table = 4 * 16 if conditions is not None else 0  # is looked up
    expected = 2 * (sum(matrices) - table + 3 * 5)  # and the directions of the features
    assert model.forward_flops((3,)) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": 0}, "features must be a whole number of at least 1"),
        ({"frequency": 0.0}, "frequency must be"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        make(**fields)
