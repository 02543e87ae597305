import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax.draws import Draw
from fmjax.errors import InputError
from fmjax.losses import make_loss_fn, make_per_example_loss_fn
from fmjax.paths import AffinePath
from fmjax.schedules import Linear


def zero(params, x, t, labels):
    return jnp.zeros_like(x)


def linear(params, x, t, labels):
    return x @ params["w"] + t[:, None] * params["b"][None]


PARAMS = {"w": jax.random.normal(jax.random.key(9), (3, 3)), "b": jnp.arange(3.0)}


def batch(n=7):
    x0, x1 = jax.random.normal(jax.random.key(1), (2, n, 3))
    return x0, x1, jnp.linspace(0, 1, n)


def test_fm_and_rf_agree_to_the_last_bit_on_the_straight_path():
    for make in (make_loss_fn, make_per_example_loss_fn):
        fm, rf = (jax.jit(make(linear, target=target)) for target in ("fm", "rf"))
        np.testing.assert_array_equal(fm(PARAMS, *batch()), rf(PARAMS, *batch()))
    fm, rf = (jax.grad(make_loss_fn(linear, target=target)) for target in ("fm", "rf"))
    for a, b in zip(
        *map(jax.tree.leaves, (fm(PARAMS, *batch()), rf(PARAMS, *batch()))), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_with_sigma_min_the_targets_differ_by_sigma_min_x0():
    # u_fm - u_rf = s x0, so for a zero network |u_fm|^2 = |x1 - x0 + s x0|^2 per feature.
    s, (x0, x1, t) = 0.1, batch()
    fm = make_per_example_loss_fn(zero, AffinePath(Linear(s)))(None, x0, x1, t)
    rf = make_per_example_loss_fn(zero, target="rf")(None, x0, x1, t)
    expected = jnp.mean(2 * s * x0 * (x1 - x0) + (s * x0) ** 2, axis=1)
    np.testing.assert_allclose(fm - rf, expected, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_mean_squared_error_by_hand():
    x0, x1, t = (np.asarray(a, np.float64) for a in batch())
    x_t = t[:, None] * x1 + (1 - t[:, None]) * x0
    v = x_t @ np.asarray(PARAMS["w"]) + t[:, None] * np.asarray(PARAMS["b"])
    expected = ((v - (x1 - x0)) ** 2).mean(axis=1)
    per_example = make_per_example_loss_fn(linear)(PARAMS, *batch())
    np.testing.assert_allclose(per_example, expected, rtol=1e-5)
    np.testing.assert_allclose(make_loss_fn(linear)(PARAMS, *batch()), expected.mean(), rtol=1e-6)
    weighted = make_loss_fn(linear, weight=lambda t: t**2)(PARAMS, *batch())
    np.testing.assert_allclose(weighted, (t**2 * expected).mean(), rtol=1e-5)


def test_the_loss_is_float32_when_the_network_computes_in_bfloat16():
    def half(params, x, t, labels):
        return jnp.full_like(x, 1 / 3, jnp.bfloat16)

    x0, x1, t = batch()
    loss = make_per_example_loss_fn(half)(None, x0, x1, t)
    v = np.float32(jnp.bfloat16(1 / 3))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, np.mean((v - np.asarray(x1 - x0)) ** 2, axis=1), rtol=1e-6)


def test_images_average_over_all_their_features():
    x0, x1 = jnp.zeros((2, 4, 4, 3)), jnp.full((2, 4, 4, 3), 2.0)
    np.testing.assert_allclose(make_per_example_loss_fn(zero)(None, x0, x1, jnp.ones(2)), [4, 4])


def test_labels_reach_the_network():
    def by_label(params, x, t, labels):
        return jnp.broadcast_to(labels[:, None].astype(x.dtype), x.shape)

    x = jnp.zeros((3, 2))
    losses = make_per_example_loss_fn(by_label)(None, x, x, jnp.zeros(3), jnp.array([0, 1, 2]))
    np.testing.assert_allclose(losses, [0, 1, 4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x0": jnp.zeros((7, 2))}, "one shape"),
        ({"t": jnp.zeros(())}, r"\(batch,\)"),
        ({"t": jnp.zeros((7, 1))}, r"\(batch,\)"),
        ({"labels": jnp.zeros(6, jnp.int32)}, "leading size"),
        ({"labels": {"text": jnp.zeros((6, 4))}}, "leading size"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, message):
    x0, x1, t = batch()
    args = {"x0": x0, "x1": x1, "t": t, "labels": None} | change
    with pytest.raises(InputError, match=message):
        make_loss_fn(zero)(None, **args)


def test_a_network_of_another_shape_is_refused():
    # A (batch, 1) output would broadcast against (batch, 3) and train on nonsense.
    with pytest.raises(InputError, match="shaped as x"):
        make_loss_fn(lambda p, x, t, y: x[:, :1])(None, *batch())


def test_unknown_targets_and_bent_paths_are_refused():
    with pytest.raises(InputError, match="Known: fm, rf"):
        make_loss_fn(zero, target="vf")
    with pytest.raises(InputError, match="target='fm'"):
        make_loss_fn(zero, AffinePath(Linear(0.1)), target="rf")


def gaussian_velocity(x, t, mean, std):
    """E[x1 - x0 | x_t = x] for x0 standard normal, x1 normal(mean, std^2), straight path."""
    variance = (t * std) ** 2 + (1 - t) ** 2
    return mean + (t * std**2 - (1 - t)) / variance * (x - t * mean)


@pytest.mark.slow
def test_training_recovers_the_closed_form_velocity_of_a_gaussian():
    mean, std, n = jnp.array([1.0, -0.5]), 0.5, 1024

    def apply_fn(params, x, t, labels):
        h = jnp.concatenate([x, t[:, None], t[:, None] ** 2], axis=1)
        for w, b in params[:-1]:
            h = jax.nn.silu(h @ w + b[None])
        return h @ params[-1][0] + params[-1][1][None]

    sizes = [4, 64, 64, 2]
    keys = jax.random.split(jax.random.key(0), 3)
    params = [
        (jax.random.normal(k, (a, b)) / a**0.5, jnp.zeros(b))
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    loss_fn, draw, optimizer = (
        make_loss_fn(apply_fn),
        Draw(),
        optax.adam(optax.cosine_decay_schedule(5e-3, 2000)),
    )

    def step(carry, i):
        params, state = carry
        key = jax.random.fold_in(jax.random.key(1), i)
        x1 = mean[None] + std * jax.random.normal(key, (n, 2))
        args = draw(jax.random.fold_in(key, 1), jnp.arange(n), x1)
        grads = jax.grad(loss_fn)(params, *args)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(2000)))(
        (params, optimizer.init(params))
    )
    t = jax.random.uniform(jax.random.key(2), (4000,))
    x0, z = jax.random.normal(jax.random.key(3), (2, 4000, 2))
    x = (1 - t[:, None]) * x0 + t[:, None] * (mean[None] + std * z)
    expected = gaussian_velocity(x, t[:, None], mean[None], std)
    error = jnp.mean((apply_fn(params, x, t, None) - expected) ** 2)
    assert error < 0.01 * jnp.mean(expected**2), error
