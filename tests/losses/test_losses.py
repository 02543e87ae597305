import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax.conventions import Output, example_keys
from fmjax.draws import Draw
from fmjax.errors import InputError
from fmjax.losses import (
    declare,
    make_flow_and_score_loss_fn,
    make_loss_fn,
    make_per_example_loss_fn,
)
from fmjax.paths import Adaptive, AffinePath, BrownianBridge, NoisyStraight, PseudoHuber, squared
from fmjax.predictions import PREDICTIONS, convert, convert_weight
from fmjax.schedules import VP, Cosine, Linear


def zero(params, x, t, labels):
    return jnp.zeros_like(x)


def linear(params, x, t, labels):
    return x @ params["w"] + t[:, None] * params["b"][None]


RNG = np.random.default_rng(9)
PARAMS = {"w": RNG.normal(size=(3, 3)).astype("float32"), "b": np.arange(3, dtype="float32")}
X0, X1 = RNG.normal(size=(2, 7, 3)).astype("float32")


def batch():
    return X0, X1, np.linspace(0, 1, 7, dtype="float32")


def test_fm_and_rf_agree_to_the_last_bit_on_the_straight_path():
    def everything(target):
        per_example = make_per_example_loss_fn(linear, target=target)
        loss_and_gradient = jax.value_and_grad(make_loss_fn(linear, target=target))
        # A program for each: in one, the two might be found to be the same before they are run.
        return jax.jit(lambda *args: (per_example(*args), loss_and_gradient(*args)))

    fm, rf = (everything(target)(PARAMS, *batch()) for target in ("fm", "rf"))
    jax.tree.map(np.testing.assert_array_equal, fm, rf)


def test_with_sigma_min_the_targets_differ_by_sigma_min_x0():
    # u_fm - u_rf = s x0, so for a zero network |u_fm|^2 = |x1 - x0 + s x0|^2 per feature.
    s, (x0, x1, t) = 0.1, batch()
    fm = make_per_example_loss_fn(zero, AffinePath(Linear(s)))(None, x0, x1, t)
    rf = make_per_example_loss_fn(zero, target="rf")(None, x0, x1, t)
    expected = np.mean(2 * s * x0 * (x1 - x0) + (s * x0) ** 2, axis=1)
    np.testing.assert_allclose(np.asarray(fm) - rf, expected, rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_mean_squared_error_by_hand():
    x0, x1, t = (np.asarray(a, np.float64) for a in batch())
    x_t = t[:, None] * x1 + (1 - t[:, None]) * x0
    v = x_t @ np.asarray(PARAMS["w"]) + t[:, None] * np.asarray(PARAMS["b"])
    expected = ((v - (x1 - x0)) ** 2).mean(axis=1)
    per_example = make_per_example_loss_fn(linear)(PARAMS, *batch())
    np.testing.assert_allclose(per_example, expected, rtol=1e-5)
    np.testing.assert_allclose(make_loss_fn(linear)(PARAMS, *batch()), expected.mean(), rtol=1e-5)
    weighted = make_loss_fn(linear, weight=lambda t: t**2)(PARAMS, *batch())
    np.testing.assert_allclose(weighted, (t**2 * expected).mean(), rtol=1e-5)


def test_the_loss_is_float32_when_the_network_computes_in_bfloat16():
    def half(params, x, t, labels):
        return jnp.full_like(x, 1 / 3, jnp.bfloat16)

    x0, x1, t = batch()
    loss = make_per_example_loss_fn(half)(None, x0, x1, t)
    v = np.float32(jnp.bfloat16(1 / 3))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, np.mean((v - np.asarray(x1 - x0)) ** 2, axis=1), rtol=1e-5)


def test_images_average_over_all_their_features():
    x0, x1 = np.zeros((2, 4, 4, 3), np.float32), np.full((2, 4, 4, 3), 2, np.float32)
    loss = jax.jit(make_per_example_loss_fn(zero))(None, x0, x1, np.ones(2, np.float32))
    np.testing.assert_allclose(loss, [4, 4], rtol=1e-6)


def test_labels_reach_the_network():
    def by_label(params, x, t, labels):
        return jnp.broadcast_to(labels[:, None].astype(x.dtype), x.shape)

    x, t, labels = np.zeros((3, 2), np.float32), np.zeros(3, np.float32), np.arange(3)
    losses = jax.jit(make_per_example_loss_fn(by_label))(None, x, x, t, labels)
    np.testing.assert_allclose(losses, [0, 1, 4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x0": jnp.zeros((7, 2))}, "one shape"),
        ({"t": jnp.zeros(())}, r"\(batch,\)"),
        ({"t": jnp.zeros((7, 1))}, r"\(batch,\)"),
        ({"t": {"a": jnp.zeros(7)}}, "a prefix of x"),
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


SCHEDULES = {"linear": Linear(), "vp": VP(), "cosine": Cosine(), "lipman": Linear(0.1)}


@pytest.mark.quick_cases(10)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_every_prediction_has_a_zero_loss_where_it_is_right(schedule, prediction):
    # x0 and x1 are known, so an oracle can predict each target: from the definition, not from ours.
    x0, x1, _ = batch()
    t = jnp.linspace(0.05, 0.95, 7)
    alpha, sigma, d_alpha, d_sigma = (
        f(t)[:, None] for f in (schedule.alpha, schedule.sigma, schedule.d_alpha, schedule.d_sigma)
    )
    oracle = {
        "velocity": d_alpha * x1 + d_sigma * x0,
        "x1": x1,
        "x0": x0,
        "score": -x0 / sigma,
        "v": alpha * x0 - sigma * x1,
    }[prediction]
    loss = make_loss_fn(lambda *_: oracle, AffinePath(schedule), prediction=prediction)
    assert loss(None, x0, x1, t) < 1e-9
    wrong = make_loss_fn(lambda *_: oracle + 0.5, AffinePath(schedule), prediction=prediction)
    np.testing.assert_allclose(wrong(None, x0, x1, t), 0.25, rtol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_converted_weight_makes_every_prediction_the_same_objective(prediction):
    # One network, read as a velocity or as another target, has one loss when the weight follows.
    schedule, t = Cosine(), jnp.linspace(0.1, 0.9, 7)
    x0, x1, _ = batch()

    def other(params, x, t, labels):
        velocity = linear(params, x, t, labels)
        return convert(velocity, x, t, schedule, source="velocity", target=prediction)

    path = AffinePath(schedule)
    weight = convert_weight(lambda t: 1 + t, schedule, source="velocity", target=prediction)
    expected = make_loss_fn(linear, path, weight=lambda t: 1 + t)(PARAMS, x0, x1, t)
    loss = make_loss_fn(other, path, weight=weight, prediction=prediction)(PARAMS, x0, x1, t)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("path", [BrownianBridge(0.5), NoisyStraight(0.3)], ids=repr)
def test_stochastic_paths_regress_on_the_derivative_of_their_position(path):
    x0, x1, t = batch()
    noise = {"z": jax.random.normal(jax.random.key(5), x0.shape)}

    def oracle(params, x_t, t, labels):
        def position(t):
            return path.sample(x0, x1, t, noise).x_t

        np.testing.assert_allclose(x_t, position(t), rtol=1e-5, atol=1e-5)
        return jax.jvp(position, (t,), (jnp.ones_like(t),))[1]

    losses = make_per_example_loss_fn(oracle, path)(None, x0, x1, t, noise=noise)
    np.testing.assert_allclose(losses, 0, atol=1e-6)


def test_flow_and_score_are_learned_together():
    bridge, (x0, x1, t) = BrownianBridge(0.5), batch()
    noise, inside = {"z": jax.random.normal(jax.random.key(5), x0.shape)}, jnp.clip(t, 0.1, 0.9)
    right = {
        "flow": bridge.sample(x0, x1, inside, noise).target,
        "score": bridge.score(x0, x1, inside, noise),
    }
    declared = make_flow_and_score_loss_fn(
        lambda p, *_: p["flow"], lambda p, *_: p["score"], bridge
    )

    def loss(predicted):
        return declared(predicted, x0, x1, inside, noise=noise)

    assert loss(right) < 1e-9
    # An error of 1 in the score counts std_t^2, one in the flow counts 1.
    wrong = right | {"score": right["score"] + 1}
    np.testing.assert_allclose(loss(wrong), jnp.mean(bridge.std(inside) ** 2), rtol=1e-5)
    np.testing.assert_allclose(loss(right | {"flow": right["flow"] + 1}), 1, rtol=1e-5)


@pytest.mark.parametrize("path", [AffinePath(s) for s in SCHEDULES.values()], ids=SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_loss_and_gradient_are_finite_at_both_ends(path, prediction):
    x0, x1, t = batch()  # t from 0 to 1, ends included
    loss = make_loss_fn(linear, path, prediction=prediction)
    value, gradient = jax.value_and_grad(loss)(PARAMS, x0, x1, t)
    assert jnp.isfinite(value)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


ERRORS = RNG.normal(size=(5, 4, 3)) * np.geomspace(1e-6, 1e3, 5)[:, None, None]
ERRORS = ERRORS.astype("float32")
ZERO = np.zeros_like(ERRORS)


def test_squared_and_pseudo_huber_distances_by_hand():
    error = np.asarray(ERRORS, np.float64)
    square = (error**2).sum(axis=(1, 2))
    np.testing.assert_allclose(squared(ERRORS, ZERO), square / 12, rtol=1e-5)
    for c in (0.1, 2.0, None):
        k = 0.00054 * np.sqrt(12) if c is None else c
        by_hand = np.sqrt(square + k**2) - k  # float64 loses some digits of the smallest, too
        np.testing.assert_allclose(PseudoHuber(c)(ERRORS, ZERO), by_hand, rtol=1e-3)
    # Quadratic below c: half the square over c, which sqrt(s + c^2) - c loses in float32.
    tiny = PseudoHuber(1.0)(ERRORS[:1], ZERO[:1])
    np.testing.assert_allclose(tiny, square[:1] / 2, rtol=1e-5)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_adaptive_distance_scales_the_gradient_of_the_squared_error(power):
    distance, error = Adaptive(power, 1e-2), ERRORS[2:3]
    square = np.sum(error**2)
    value, gradient = jax.jit(jax.value_and_grad(lambda e: distance(e, ZERO[:1])[0]))(error)
    np.testing.assert_allclose(value, square / (square + 1e-2) ** power, rtol=1e-5)
    np.testing.assert_allclose(gradient, 2 * error / (square + 1e-2) ** power, rtol=1e-5)


def test_the_adaptive_distance_is_by_default_that_of_mean_flows():
    square = np.sum(np.float64(ERRORS) ** 2, axis=(1, 2))
    np.testing.assert_allclose(Adaptive()(ERRORS, ZERO), square / (square + 1e-3), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PseudoHuber(0.0), "positive"),
        (lambda: Adaptive(1.5), r"\[0, 1\]"),
        (lambda: Adaptive(c=-1.0), "positive"),
        (lambda: make_loss_fn(zero, prediction="noise"), "Known: score, v, velocity, x0, x1"),
        (lambda: make_loss_fn(zero, BrownianBridge(), prediction="x1"), "path with a schedule"),
        (
            lambda: make_loss_fn(zero, BrownianBridge())(None, *batch()),
            r"takes the noise z; got none.*Draw\(noise",
        ),
    ],
)
def test_pieces_that_do_not_fit_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": jnp.full(7, 1.5)}, r"\[0, 1\].*1.5"),
        ({"t": jnp.full(7, jnp.nan)}, r"\[0, 1\]"),
        ({"x0": jnp.zeros((7, 3)).at[4, 1].set(jnp.nan)}, "x0 must be finite.* first of them 4"),
        ({"x1": jnp.zeros((7, 3)).at[2, 0].set(jnp.inf)}, "x1 must be finite.* first of them 2"),
    ],
)
def test_values_that_do_not_fit_are_refused_before_anything_is_compiled(change, message):
    x0, x1, t = batch()
    with pytest.raises(InputError, match=message):
        make_loss_fn(zero)(None, **({"x0": x0, "x1": x1, "t": t} | change))


def test_a_distance_sees_the_prediction_the_target_the_point_and_the_time():
    def in_data(predicted, target, x_t, t):  # the error of the data that each of them implies
        ends = [x_t + (1 - t[:, None]) * u for u in (predicted, target)]
        return jnp.sum((ends[0] - ends[1]) ** 2, axis=1)

    x0, x1, t = batch()
    x_t = t[:, None] * x1 + (1 - t[:, None]) * x0
    x1_of_network = x_t + (1 - t[:, None]) * np.asarray(linear(PARAMS, x_t, t, None))
    losses = make_per_example_loss_fn(linear, distance=in_data)(PARAMS, x0, x1, t)
    expected = np.sum((x1_of_network - x1) ** 2, axis=1)
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)


def test_a_loss_takes_the_part_of_an_output_that_it_is_about():
    def two_heads(params, x, t, labels):
        return Output(velocity=linear(params, x, t, labels), x1=x, divergence=t)

    for prediction in ("velocity", "x1"):
        by_part = {"velocity": linear, "x1": lambda params, x, t, labels: x}[prediction]
        expected = make_loss_fn(by_part, prediction=prediction)(PARAMS, *batch())
        loss = make_loss_fn(two_heads, prediction=prediction)(PARAMS, *batch())
        np.testing.assert_array_equal(loss, expected)
    with pytest.raises(InputError, match="Output of velocity, x1, divergence, and 'v' is wanted"):
        make_loss_fn(two_heads, prediction="v")(PARAMS, *batch())
    with pytest.raises(InputError, match="apply_fn must return floats shaped as x"):
        make_loss_fn(lambda *_: Output(velocity=X0[:, :1]))(PARAMS, *batch())


class Coin:
    """A law of one number for each example, whatever the shape of x."""

    def sample(self, key, index, shape):
        return jax.vmap(jax.random.bernoulli)(example_keys(key, index)).astype(jnp.float32)


def test_a_loss_of_ones_own_declares_what_it_needs():
    def loss(params, x0, x1, t, labels, *, noise, target_params):
        return jnp.sum(params * noise["coin"]) + jnp.sum(params * target_params)

    declared = declare(loss, noise={"coin": Coin()}, uses_target=True)
    args = Draw(noise=declared.noise)(jax.random.key(0), jnp.arange(7), X1)
    assert args.noise["coin"].shape == (7,)
    params = jnp.arange(7.0)

    def value(params):
        return declared(params, *args, noise=args.noise, target_params=params)

    # No gradient flows through the second parameters, though they are the same array here.
    np.testing.assert_allclose(jax.grad(value)(params), args.noise["coin"] + params)
    with pytest.raises(InputError, match=r"takes the noise coin; got none.*noise=args.noise"):
        declared(params, *args, target_params=params)
    with pytest.raises(InputError, match=r"averaged parameters, and none came.*target_params="):
        declared(params, *args, noise=args.noise)
    with pytest.raises(InputError, match="takes the noise none; got coin"):
        make_loss_fn(linear)(PARAMS, *args, noise=args.noise)


def test_a_weight_of_another_shape_is_refused():
    with pytest.raises(InputError, match="the weight must return one float per example"):
        make_loss_fn(zero, weight=lambda t: t[:, None])(None, *batch())


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
