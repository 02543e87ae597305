"""Networks of two times: they begin as one of one time, and learn how a flow moves between two."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax import solve, solver_spec
from fmjax.conditions import ClassIds, nulls
from fmjax.conventions import Span, diagonal
from fmjax.models.adapters import extend_params, from_linen
from fmjax.models.dit import DiT
from fmjax.models.mlp import MLP
from fmjax.models.unet import UNet

B = 6
S = np.linspace(-0.3, 0.6, B, dtype=np.float32)
T = np.linspace(0.0, 1.0, B, dtype=np.float32)
DIT = {"patch_size": 2, "width": 16, "depth": 2, "heads": 2}
UNET = {"width": 8, "depth": 1, "channel_mult": (1, 2), "heads": 2, "groups": 4}
NETWORKS = [
    pytest.param(functools.partial(MLP, width=16, depth=2), (2,), id="mlp"),
    pytest.param(functools.partial(DiT, **DIT), (4, 4, 1), id="dit"),
    pytest.param(functools.partial(DiT, **DIT, dtype=jnp.bfloat16), (4, 4, 1), id="dit, bfloat16"),
    pytest.param(functools.partial(UNet, **UNET), (4, 4, 1), id="unet"),
]


def randomised(params, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.normal(0, 0.25, a.shape).astype(a.dtype), params)


def one_and_two(make, shape):
    """A network of one time with random parameters, and the same with two times, extended."""
    classes, x = ClassIds(3), np.random.default_rng(1).normal(size=(B, *shape)).astype(np.float32)
    one, two = make(conditions=classes), make(conditions=classes, span=True)
    labels, init = nulls(classes, B), jax.random.key(0)
    params = randomised(jax.eval_shape(one.init, init, x, T, labels)["params"])
    fresh = jax.jit(two.init)(init, x, Span(T, T), labels)["params"]
    extended = extend_params(fresh, params)
    return jax.jit(from_linen(one)), params, jax.jit(from_linen(two)), extended, x, labels


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(("make", "shape"), NETWORKS)
def test_a_network_of_two_times_begins_as_that_of_one_to_the_bit(make, shape):
    one, params, two, extended, x, labels = one_and_two(make, shape)
    expected = np.asarray(one(params, x, T, labels))
    for t in (S, T, np.ones(B, np.float32)):
        np.testing.assert_array_equal(two(extended, x, Span(T, t), labels), expected)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(("make", "shape"), NETWORKS)
def test_its_output_depends_on_t_once_that_embedding_is_trained(make, shape):
    _, _, two, params, x, labels = one_and_two(make, shape)
    last = params["condition"]["span"]["dense_1"]
    last["kernel"] = np.random.default_rng(2).normal(size=last["kernel"].shape).astype(np.float32)
    x, s = np.broadcast_to(x[:1], x.shape), np.full(B, 0.7, np.float32)
    out = np.asarray(two(params, x, Span(s, S), labels))
    assert len(np.unique(out.reshape(B, -1), axis=0)) == B


@pytest.mark.slow
def test_its_diagonal_is_a_velocity_that_the_solvers_take():
    one, params, two, extended, x, labels = one_and_two(functools.partial(MLP, width=16), (2,))
    spec, velocity = solver_spec("heun", 8), diagonal(two)
    ours = solve(lambda x, t, y: velocity(extended, x, t, y), x, labels, spec).x1
    theirs = solve(lambda x, t, y: one(params, x, t, y), x, labels, spec).x1
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert np.abs(ours - x).max() > 0.1


def test_a_span_goes_through_the_diagonal_as_it_is():
    _, _, two, params, x, labels = one_and_two(functools.partial(MLP, width=16), (2,))
    last = params["condition"]["span"]["dense_1"]
    last["kernel"] = np.random.default_rng(2).normal(size=last["kernel"].shape).astype(np.float32)
    span = Span(S, T)
    through = diagonal(two)(params, x, span, labels)
    np.testing.assert_array_equal(through, two(params, x, span, labels))
    assert np.abs(through - diagonal(two)(params, x, T, labels)).max() > 1e-3


MEAN, SPREAD = 2.0, 0.3


def flow_map(x, s, t):
    """Where the flow from N(0, 1) to N(MEAN, SPREAD^2), drawn independently, carries x from s to t.

    The points at t are N(t MEAN, (1 - t)^2 + t^2 SPREAD^2): the flow keeps the standardised point.
    """

    def spread(t):
        return jnp.sqrt((1 - t) ** 2 + t**2 * SPREAD**2)

    return t * MEAN + spread(t) / spread(s) * (x - s * MEAN)


@pytest.mark.slow
def test_a_network_of_two_times_learns_the_flow_map():
    model = MLP(width=32, depth=2, time_scale=10.0, span=True)
    apply_fn, adam = from_linen(model), optax.adam(optax.cosine_decay_schedule(1e-2, 1200))

    def draw(key, n):
        s_key, t_key, x_key = jax.random.split(key, 3)
        s = jax.random.uniform(s_key, (n,), maxval=0.95)
        t = jax.random.uniform(t_key, (n,), minval=s + 0.01)
        return flow_map(jax.random.normal(x_key, (n,)), 0.0, s)[:, None], Span(s, t)

    def loss_fn(params, x, span):
        far = flow_map(x[:, 0], *span)[:, None]
        average = (far - x) / (span.t - span.s)[:, None]
        return jnp.mean(jnp.square(apply_fn(params, x, span, None) - average))

    def step(carry, key):
        params, state = carry
        grads = jax.grad(loss_fn)(params, *draw(key, 256))
        updates, state = adam.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(key):
        x, span = draw(key, 256)
        params = model.init(key, x, span)["params"]
        keys = jax.random.split(key, 1200)
        return jax.lax.scan(step, (params, adam.init(params)), keys)[0][0]

    params = train(jax.random.key(0))
    x, span = draw(jax.random.key(1), 1000)

    def error(told):
        moved = x + (span.t - span.s)[:, None] * apply_fn(params, x, told)
        return jnp.sqrt(jnp.mean(jnp.square(moved[:, 0] - flow_map(x[:, 0], *span))))

    assert error(span) < 0.02
    assert error(Span(span.s[::-1], span.t)) > 0.2  # it needs to know s
