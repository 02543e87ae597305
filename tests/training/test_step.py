"""One step: what it computes, and that jit and pmap compute the same on any number of devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax.draws import Draw
from fmjax.errors import InputError
from fmjax.losses import make_loss_fn
from fmjax.training.ema import ema_decay
from fmjax.training.optimizer import learning_rate_schedule, make_optimizer
from fmjax.training.parallelism import check_divides, make_layout
from fmjax.training.state import init_state
from fmjax.training.step import drawn_from, in_parts, make_step, on_drawn


def apply_fn(params, x, t, labels):
    return jnp.tanh(x @ params["a"] + t[:, None] * params["c"][None]) @ params["b"]


def make_params(key):
    a, b = jax.random.split(key)
    return {
        "a": jax.random.normal(a, (2, 32)),
        "b": jax.random.normal(b, (32, 2)),
        "c": jnp.ones(32),
    }


LOSS = make_loss_fn(apply_fn)


def draw(key, batch):
    return Draw()(key, batch["index"], batch["x1"])


def batch(k, n=64):
    x1 = np.random.default_rng(k).normal(size=(n, 2)).astype(np.float32)
    return {"x1": x1, "index": np.arange(n, dtype=np.int32)}


@pytest.mark.slow
def test_a_step_is_the_update_written_by_hand():
    optimizer, key = optax.sgd(0.1), jax.random.key(1)
    state = init_state(make_params(jax.random.key(0)), optimizer)
    step = make_step(LOSS, draw, optimizer, ema=0.9)
    new, metrics = step(state, key, batch(0))
    args = draw(jax.random.fold_in(key, 0), batch(0))
    loss, grads = jax.value_and_grad(LOSS)(state.params, *args)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-5)
    for name, p in state.params.items():
        expected = p - 0.1 * grads[name]
        np.testing.assert_allclose(new.params[name], expected, rtol=1e-5, atol=1e-5)
        # Warm-up: at step 0 the decay is 1/10, not 0.9.
        ema = 0.1 * p + 0.9 * expected
        np.testing.assert_allclose(new.ema_params[name], ema, rtol=1e-5, atol=1e-5)
    assert int(new.step) == 1


def with_target(params, x0, x1, t, labels, *, target_params):
    """Half the square of |p - 2 target|, whose gradient is p - 2 target."""
    wanted = jax.tree.map(lambda p: 2 * p, target_params)
    return optax.tree.norm(optax.tree.sub(params, wanted), squared=True) / 2 + 0 * jnp.mean(x1)


with_target.uses_target = True


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_a_loss_with_a_target_gets_the_average_and_no_gradient_flows_into_it(parts):
    rate, decay = 0.1, 0.9
    optimizer = optax.sgd(rate)
    state = init_state(make_params(jax.random.key(0)), optimizer)
    step = make_step(with_target, draw, optimizer, ema=decay, accumulate=parts)
    params = average = np.asarray(state.params["a"])
    for k in range(4):
        state, metrics = step(state, jax.random.key(1), batch(k))
        if k == 0:  # the average is the parameters: |p - 2 p|
            norm = optax.tree.norm(make_params(jax.random.key(0)))
            np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
        params = params - rate * (params - 2 * average)
        d = min(decay, (1 + k) / (10 + k))
        average = d * average + (1 - d) * params
        np.testing.assert_allclose(state.params["a"], params, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.ema_params["a"], average, rtol=1e-5, atol=1e-5)


def test_a_loss_with_a_target_needs_an_average():
    with pytest.raises(InputError, match=r"ema=None keeps no average; write ema=0\.999"):
        make_step(with_target, draw, optax.sgd(0.1), ema=None)


@pytest.mark.slow
def test_without_an_average_the_parameters_are_the_same():
    optimizer = optax.adam(1e-2)
    params = make_params(jax.random.key(0))
    states = [init_state(params, optimizer, average) for average in (True, False)]
    steps = [make_step(LOSS, draw, optimizer, ema=ema) for ema in (0.9, None)]
    for k in range(2):
        states = [
            step(state, jax.random.key(1), batch(k))[0]
            for step, state in zip(steps, states, strict=True)
        ]
    assert states[1].ema_params is None
    for a, b in zip(*(jax.tree.leaves(state.params) for state in states), strict=True):
        np.testing.assert_array_equal(a, b)


class ArgsWithNoise(tuple):
    """The arguments of a loss, and their noise."""

    noise: dict


def draw_noisy(key, batch):
    args = ArgsWithNoise(draw(key, batch))
    args.noise = {"z": jax.random.normal(key, args[1].shape)}
    return args


def with_noise(params, x0, x1, t, labels, *, noise):
    return jnp.mean(jnp.sum((x1 - noise["z"] * params["c"][0]) ** 2, axis=-1))


with_noise.noise = {"z": None}


@pytest.mark.parametrize("parts", [1, 4])
def test_a_loss_with_noise_gets_what_the_draw_gives_in_the_parts_of_the_batch(parts):
    optimizer, key = optax.sgd(1.0), jax.random.key(1)
    state = init_state(make_params(jax.random.key(0)), optimizer)
    new, metrics = make_step(with_noise, draw_noisy, optimizer, accumulate=parts)(
        state, key, batch(0)
    )
    drawn = draw_noisy(jax.random.fold_in(key, 0), batch(0))
    error = drawn[1] - drawn.noise["z"]
    np.testing.assert_allclose(metrics["loss"], jnp.mean(jnp.sum(error**2, -1)), rtol=1e-5)
    slope = -2 * jnp.mean(jnp.sum(error * drawn.noise["z"], -1))
    np.testing.assert_allclose(new.params["c"][0], 1 - slope, rtol=1e-4, atol=1e-5)


def test_a_loss_that_misses_its_noise_says_which():
    optimizer = optax.sgd(1.0)
    state = init_state(make_params(jax.random.key(0)), optimizer)
    with pytest.raises(InputError, match="needs the noise z, and the draw gives none"):
        make_step(with_noise, draw, optimizer)(state, jax.random.key(1), batch(0))


def test_each_step_draws_anew_from_the_same_key():
    step = make_step(LOSS, draw, optax.sgd(0.0))
    state = init_state(make_params(jax.random.key(0)), optax.sgd(0.0))
    losses = []
    for _ in range(3):
        state, metrics = step(state, jax.random.key(1), batch(0))
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == 3


def test_the_average_warms_up_and_then_keeps_its_decay():
    decays = ema_decay(jnp.arange(20_000), 0.999)
    assert float(decays[0]) == pytest.approx(0.1)
    assert float(decays[89]) == pytest.approx(90 / 99)
    assert float(decays[-1]) == pytest.approx(0.999)
    assert jnp.all(jnp.diff(decays) >= 0)


def test_the_average_moves_at_0_9999_because_it_is_float32():
    # One step moves 1 to 1 + 1e-4; bfloat16 has nothing between 1 and 1 + 2^-7.
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    state = init_state(params, optax.sgd(0.0))
    assert state.ema_params["w"].dtype == jnp.float32
    step = make_step(
        lambda p, x: jnp.sum(p["w"]) * 0.0 + jnp.sum(x) * 0.0,
        lambda k, b: (b["x1"],),
        optax.sgd(0.0),
    )
    state = state._replace(step=jnp.int32(10**6), params={"w": jnp.full(3, 2, jnp.bfloat16)})
    new, _ = step(state, jax.random.key(0), batch(0))
    np.testing.assert_allclose(new.ema_params["w"], 1.0001, rtol=1e-6)


def test_the_average_starts_as_a_copy_that_donation_accepts():
    params = make_params(jax.random.key(0))
    state = init_state(params, optax.adam(1e-3))
    for a, b in zip(*map(jax.tree.leaves, (state.params, state.ema_params)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer()


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulated_parts_give_the_gradient_of_the_whole_batch(parts):
    params, args = make_params(jax.random.key(0)), draw(jax.random.key(1), batch(0))
    value_and_grad = jax.value_and_grad(on_drawn(LOSS))
    whole = value_and_grad(params, drawn_from(args), None)
    accumulated = in_parts(value_and_grad, parts)(params, drawn_from(args), None)
    for a, b in zip(*map(jax.tree.leaves, (whole, accumulated)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


def test_a_batch_that_does_not_split_into_its_parts_is_refused():
    args = draw(jax.random.key(1), batch(0))
    with pytest.raises(InputError, match="equal parts"):
        in_parts(jax.value_and_grad(on_drawn(LOSS)), 3)(
            make_params(jax.random.key(0)), drawn_from(args), None
        )


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    rate = learning_rate_schedule(2e-3, 1000, 100, "cosine")
    assert [float(rate(k)) for k in (0, 50, 100)] == pytest.approx([0, 1e-3, 2e-3], rel=1e-5)
    assert float(rate(550)) == pytest.approx(1e-3, rel=1e-5)  # half way down
    assert float(rate(1000)) == pytest.approx(0, abs=1e-9)
    constant = learning_rate_schedule(2e-3, 1000, 100, "constant")
    assert [float(constant(k)) for k in (50, 100, 1000)] == pytest.approx([1e-3, 2e-3, 2e-3])


def test_gradients_are_clipped_to_the_norm():
    grads = {"w": jnp.array([30.0, 40.0])}
    for clip, expected in ((5.0, [3.0, 4.0]), (None, [30.0, 40.0])):
        optimizer = make_optimizer(1e-3, b1=0.0, clip_norm=clip)
        _, state = optimizer.update(grads, optimizer.init(grads), grads)
        np.testing.assert_allclose(state[1][0].mu["w"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1e-3, 100, 10, "linear"), "Known: constant, cosine"),
        ((0.0, 100), "positive"),
        ((1e-3, 100, 100), "shorter than training"),
    ],
)
def test_a_wrong_schedule_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        learning_rate_schedule(*arguments)


@pytest.mark.parametrize(
    "wrong",
    [{"clip_norm": 0.0}, {"b1": 1.0}, {"b1": -3.0}, {"b2": -1.0}, {"weight_decay": float("nan")}],
)
def test_a_wrong_number_of_the_optimizer_is_refused_by_its_name(wrong):
    with pytest.raises(InputError, match=f"^{next(iter(wrong))} "):
        make_optimizer(1e-3, **wrong)


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does():
    check_divides(128, 8, 4)
    with pytest.raises(InputError, match=r"8 devices; write train.batch_size=96"):
        check_divides(100, 8)
    with pytest.raises(InputError, match=r"8 devices and 4 accumulated parts; .*=96"):
        check_divides(100, 8, 4)
    with pytest.raises(InputError, match="Known: jit, pmap"):
        make_layout("shard")


@pytest.mark.slow
def test_the_state_is_donated_and_the_second_step_compiles_nothing(count_compilations):
    for name in ("jit", "pmap"):
        layout, optimizer = make_layout(name), optax.adam(1e-2)
        step = layout.compile(make_step(LOSS, draw, optimizer, axis_name=layout.axis_name))
        state = layout.init(lambda k, o=optimizer: init_state(make_params(k), o), jax.random.key(0))
        key, first, second = jax.random.key(1), layout.place(batch(0)), layout.place(batch(1))
        new, _ = step(state, key, first)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
        with count_compilations() as compiled:
            step(new, key, second)
        assert compiled.count == 0, (name, compiled.names)


TARGETS = """
import json
import jax, jax.numpy as jnp, numpy as np, optax
from tests.training.test_step import apply_fn, batch, draw
from fmjax.training.mesh import MeshSizes
from fmjax.training.parallelism import make_layout
from fmjax.training.state import init_state
from fmjax.training.step import make_step


def params(key):
    a, b = jax.random.split(key)
    return {
        "a": jax.random.normal(a, (2, 2**14)),
        "b": jax.random.normal(b, (2**14, 2)) / 2**7,
        "c": jnp.ones(2**14),
    }


def loss(params, x0, x1, t, labels, *, target_params):
    target = apply_fn(target_params, x1, t, labels)
    return jnp.mean((apply_fn(params, x0, t, labels) - 0.5 * target) ** 2)


loss.uses_target = True
results = {}
ways = ("jit", 1, 1, 1), ("jit", 4, 1, 1), ("pmap", 4, 1, 1), ("jit", 2, 2, 1), ("jit", 2, 2, 2)
for name, data, fsdp, parts in ways:
    devices = jax.devices()[:data * fsdp]
    layout, optimizer = make_layout(name, devices, MeshSizes(data, fsdp)), optax.adam(1e-3)
    step = make_step(loss, draw, optimizer, accumulate=parts, axis_name=layout.axis_name)
    step = layout.compile(step)
    state = layout.init(lambda k: init_state(params(k), optimizer), jax.random.key(0))
    assert state.ema_params["a"].is_fully_replicated == (fsdp == 1)
    for k in range(5):
        state, _ = step(state, jax.random.key(1), layout.place(batch(k)))
    leaves = [np.ravel(x)[:50] for x in jax.tree.leaves((state.params, state.ema_params))]
    results[f"{name}-{data}-{fsdp}-{parts}"] = np.concatenate(leaves).tolist()
print(json.dumps(results))
"""


@pytest.mark.slow
def test_the_target_is_the_same_under_jit_pmap_fsdp_and_accumulation(run_python):
    results = json.loads(run_python(TARGETS, devices=4).splitlines()[-1])
    alone = results.pop("jit-1-1-1")
    for name, other in results.items():
        np.testing.assert_allclose(other, alone, rtol=1e-5, atol=1e-5, err_msg=name)


LAYOUTS = """
import json, sys
import jax, numpy as np, optax
from tests.training.test_step import LOSS, batch, draw, make_params
from fmjax.training.parallelism import make_layout
from fmjax.training.state import init_state
from fmjax.training.step import make_step

results = {}
ways = ("jit", 1, 1), ("jit", 8, 1), ("pmap", 8, 1), ("jit", 8, 4), ("pmap", 8, 4)
for name, devices, parts in ways:
    layout = make_layout(name, jax.devices()[:devices])
    optimizer = optax.adamw(1e-2)
    step = make_step(LOSS, draw, optimizer, ema=0.99, accumulate=parts, axis_name=layout.axis_name)
    step = layout.compile(step)
    state = layout.init(lambda k: init_state(make_params(k), optimizer), jax.random.key(0))
    losses = []
    for k in range(20):
        placed = layout.place(batch(k))
        assert len(placed["x1"].sharding.device_set) == devices
        state, metrics = step(state, jax.random.key(1), placed)
        losses.append(float(metrics["loss"]))
    leaves = [np.ravel(x) for x in jax.tree.leaves((state.params, state.ema_params))]
    results[f"{name}-{devices}-{parts}"] = losses, np.concatenate(leaves).tolist()
print(json.dumps(results))
"""


@pytest.mark.slow
def test_jit_on_1_and_8_devices_and_pmap_on_8_agree(run_python):
    results = json.loads(run_python(LAYOUTS, devices=8).splitlines()[-1])
    losses, params = results.pop("jit-1-1")
    assert losses[-1] < 0.5 * losses[0]
    for name, (other_losses, other_params) in results.items():
        # 20 steps of Adam amplify the rounding of a sum taken in another order.
        np.testing.assert_allclose(other_losses, losses, rtol=2e-5, err_msg=name)
        np.testing.assert_allclose(other_params, params, rtol=1e-4, atol=2e-5, err_msg=name)
