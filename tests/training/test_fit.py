"""`fit`: any network, any data, stopped and resumed; and what is refused before a device works."""

import json
import os
import signal
import threading

import equinox as eqx
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from fmjax import ClassIds, Draw, InputError, NoisyStraight, make_loss_fn
from fmjax.conventions import Output
from fmjax.data import pipeline
from fmjax.data.arrays import ArraySplit
from fmjax.models import adapters, mlp
from fmjax.training import fit
from fmjax.training.mesh import MeshSizes
from fmjax.training.signals import Stopped
from fmjax.training.state import TrainState


def points(n=96, seed=0):
    """Two narrow bumps, one a class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    centres = np.where(labels[:, None] == 1, 2.0, -2.0) * np.array([1.0, 0.0])
    return {"x": centres + 0.3 * rng.normal(size=(n, 2)), "labels": labels}


def apply_fn(params, x, t, labels):
    hidden = jnp.tanh(x @ params["a"] + t[:, None] * params["c"][None] + params["e"][labels])
    return hidden @ params["b"]


def init(key):
    a, b = jax.random.split(key)
    return {
        "a": jax.random.normal(a, (2, 16)),
        "b": 0.1 * jax.random.normal(b, (16, 2)),
        "c": jnp.ones(16),
        "e": jnp.zeros((2, 16)),
    }


PARAMS = init(jax.random.key(0))
USUAL = {
    "loss_fn": make_loss_fn(apply_fn),
    "draw": Draw(),
    "optimizer": optax.adam(3e-3),
    "batch_size": 32,
    "steps": 6,
}


def fitted(data=None, params=PARAMS, network=apply_fn, **changes):
    return fit(network, params, points() if data is None else data, **(USUAL | changes))


def free(params, x, t, labels):
    """A network without conditions."""
    assert labels is None
    return apply_fn(params, x, t, jnp.zeros(len(x), int))


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


# What it does.


@pytest.mark.slow
def test_five_lines_learn_a_flow(tmp_path):
    state = fitted(
        optimizer=optax.adam(1e-2),
        steps=150,
        held_out=points(64, seed=1),
        val_every=50,
        workdir=tmp_path,
    )
    assert int(state.step) == 150
    losses = [line["val_loss"] for line in lines(tmp_path) if "val_loss" in line]
    assert len(losses) == 3
    assert losses[-1] < 0.7 * losses[0]
    (logged, *_) = (line for line in lines(tmp_path) if "loss" in line)
    assert {"grad_norm", "examples_per_second", "data_wait"} <= logged.keys()
    assert (tmp_path / "checkpoints" / "150").is_dir()
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    fitted(callbacks=[lambda step, state: None], held_out=points(8))
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is before


def linen():
    model = mlp.MLP(width=8, depth=1, conditions=ClassIds(2))
    x, t, labels = jnp.zeros((1, 2)), jnp.zeros(1), jnp.zeros(1, int)
    return adapters.from_linen(model), model.init(jax.random.key(0), x, t, labels)["params"]


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.up, self.down = nnx.Linear(4, 16, rngs=rngs), nnx.Linear(16, 2, rngs=rngs)

    def __call__(self, x, t, labels):
        condition = jnp.stack([t, labels.astype(x.dtype)], axis=-1)
        return self.down(nnx.tanh(self.up(jnp.concatenate([x, condition], axis=-1))))


class Equinox(eqx.Module):
    net: eqx.nn.MLP

    def __init__(self, key):
        self.net = eqx.nn.MLP(4, 2, 16, 1, key=key)

    def __call__(self, x, t, label):
        return self.net(jnp.concatenate([x, jnp.stack([t, label.astype(x.dtype)])]))


NETWORKS = {
    "linen": linen,
    "nnx": lambda: adapters.from_nnx(Nnx(nnx.Rngs(0))),
    "equinox": lambda: adapters.from_equinox(Equinox(jax.random.key(0))),
    "function": lambda: (apply_fn, PARAMS),
    "function, made in place": lambda: (apply_fn, init),
}


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_any_kind_is_trained_and_its_own_parameters_stay(name):
    network, params = NETWORKS[name]()
    options = USUAL | {"loss_fn": make_loss_fn(network)}
    state = fit(network, params, points(), **options)
    assert int(state.step) == 6
    if name == "function, made in place":
        params = init(jax.random.key(0))
    before, after = jax.tree.leaves(params), jax.tree.leaves(state.params)
    assert [x.shape for x in before] == [x.shape for x in after]
    assert any(np.abs(a - b).max() > 0 for a, b in zip(before, after, strict=True))
    velocity = network(state.ema_params, jnp.ones((3, 2)), jnp.ones(3), jnp.zeros(3, int))
    assert velocity.shape == (3, 2)


class Source:
    """Examples one by one, of a class of the user's own."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data["x"])

    def __getitem__(self, k):
        return {name: x[k] for name, x in self.data.items()}


def as_batches(data, steps=6):
    split = ArraySplit(data["x"].astype(np.float32), data["labels"].astype(np.int32))
    stream = pipeline.split_batches(split, global_batch=32, seed=0)
    for _ in range(steps):
        batch = next(stream)
        yield {"x": batch["x1"], "labels": batch["labels"]}
    stream.close()


KINDS = {
    "device arrays": lambda data: jax.tree.map(jnp.asarray, data),
    "examples": Source,
    "grain": lambda data: grain.MapDataset.source(Source(data)),
    "batches": as_batches,
}


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_data_of_every_kind_give_the_same_bits(kind):
    assert_same_bits(fitted(KINDS[kind](points())), fitted(points()))


@pytest.mark.slow
def test_numbers_of_numpy_train_as_those_of_python_and_are_kept_in_the_folder(tmp_path):
    counts = {"steps": 6, "batch_size": 32, "seed": 0, "accumulate": 1, "steps_per_call": 2}
    counts |= {"log_every": 2, "checkpoint_every": 2, "keep": 1}
    given = {name: np.int64(value) for name, value in counts.items()}
    state = fitted(workdir=tmp_path, ema=np.float64(0.9), **given)
    assert_same_bits(state, fitted(ema=0.9, **counts))
    assert_same_bits(fitted(workdir=tmp_path, ema=0.9, **counts), state)  # it has them already


@pytest.mark.slow
def test_a_bare_array_and_trees_of_arrays_are_data():
    options = USUAL | {"loss_fn": make_loss_fn(free)}
    array = fit(free, PARAMS, points()["x"], **options)
    assert_same_bits(fit(free, PARAMS, list(points()["x"]), **options), array)  # one by one

    def conditional(params, x, t, labels):
        return apply_fn(params, x + labels["shift"], t, labels["class"])

    data = points()
    labels = {"class": data["labels"], "shift": np.zeros((96, 2))}
    options["loss_fn"] = make_loss_fn(conditional)
    state = fit(conditional, PARAMS, {"x": data["x"], "labels": labels}, **options)
    assert_same_bits(state.params, fitted().params)

    def tree_loss(params, x0, x1, t, labels):
        return jnp.mean((x1["position"] - params["c"][0]) ** 2) + jnp.mean(x1["mass"] ** 2)

    def tree_draw(key, index, x1, labels=None, x0=None):
        return x1, x1, jax.random.uniform(key, index.shape), labels

    tree = {"position": np.ones((96, 2)), "mass": np.ones(96)}
    fit(
        lambda params, x, t, labels: x,
        PARAMS,
        {"x": tree},
        **(USUAL | {"loss_fn": tree_loss, "draw": tree_draw}),
        held_out={"x": tree},
    )


def test_pairs_stay_pairs():
    def loss(params, x0, x1, t, labels):
        return jnp.mean((x1 - x0 - params["c"][0]) ** 2)

    x = points()["x"]
    options = {"network": free, "loss_fn": loss, "optimizer": optax.sgd(0.5), "steps": 1}
    state = fitted({"x0": x - 3, "x": x}, **options)
    assert float(state.params["c"][0]) == pytest.approx(3, abs=1e-4)  # one step of Newton's
    assert_same_bits(fitted([{"x0": p - 3, "x": p} for p in x], **options), state)


def test_examples_are_seen_once_an_epoch():
    seen = []

    def see(params, x0, x1, t, labels):
        jax.debug.callback(lambda x: seen.extend(np.ravel(x)), x1)
        return jnp.sum(params["c"]) * 0.0

    def network(params, x, t, labels):
        return x

    fitted(np.arange(96.0)[:, None], network=network, loss_fn=see, steps=3)
    jax.effects_barrier()
    assert sorted(map(float, seen)) == list(map(float, range(96)))


@pytest.mark.slow
def test_the_held_out_loss_is_of_the_same_draws_whenever_it_is_asked_for(tmp_path):
    # Nothing is learned at a rate of 0, so that only other noise could change it.
    fitted(
        held_out=points(40, seed=1),
        val_every=2,
        checkpoint_every=4,
        workdir=tmp_path,
        optimizer=optax.sgd(0.0),
    )
    held = [(line["step"], line["val_loss"]) for line in lines(tmp_path) if "val_loss" in line]
    assert [step for step, _ in held] == [2, 4, 6]
    assert len({loss for _, loss in held}) == 1
    said = [line["step"] for line in lines(tmp_path)]
    assert said == sorted(said)


def test_a_log_of_the_callers_gets_what_the_folder_gets(tmp_path):
    got = []
    fitted(workdir=tmp_path, log_every=2, log=lambda step, values: got.append((step, values)))
    assert [{"step": step} | values for step, values in got] == lines(tmp_path)
    assert [step for step, _ in got] == [2, 4, 6]


@pytest.mark.slow
def test_callbacks_see_every_call_and_the_state_after_it(tmp_path):
    seen = []

    def callback(step, state):
        seen.append((step, int(state.step), np.asarray(state.params["c"])))

    state = fitted(callbacks=[callback], steps=6, steps_per_call=2, log_every=2, checkpoint_every=2)
    assert [(step, at) for step, at, _ in seen] == [(2, 2), (4, 4), (6, 6)]
    np.testing.assert_array_equal(seen[-1][2], state.params["c"])
    np.testing.assert_allclose(seen[-1][2], fitted().params["c"], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_callback_that_looks_does_not_count_as_a_slow_step(tmp_path):
    pause = threading.Event()
    fitted(callbacks=[lambda *_: pause.wait(0.1)], workdir=tmp_path, log_every=6)
    (line,) = (line for line in lines(tmp_path) if "loss" in line)
    assert line["examples_per_second"] > 32 / 0.1


def test_after_the_first_step_nothing_is_compiled(count_compilations):
    with count_compilations() as compiled:
        counts = []
        fitted(callbacks=[lambda *_: counts.append(compiled.count)])
    assert counts[0] > 0
    assert counts[0] == counts[-1], compiled.names


def test_a_loss_with_a_target_is_given_the_average():
    def loss(params, x0, x1, t, labels, *, target_params):
        return jnp.sum((params["c"] - 2 * target_params["c"]) ** 2) / 2

    loss.uses_target = True
    state = fitted(loss_fn=loss, optimizer=optax.sgd(0.1), steps=1, held_out=points(32))
    np.testing.assert_allclose(state.params["c"], 1.1, rtol=1e-5)  # 1 - 0.1 (1 - 2)


def test_a_loss_is_given_the_noise_that_it_declares():
    def loss(params, x0, x1, t, labels, *, noise):
        return jnp.mean((params["c"][0] - noise["z"]) ** 2) / 2

    class Args(tuple):
        noise = property(lambda self: {"z": jnp.full_like(self[1], 3.0)})

    def draw(key, index, x1, labels=None, x0=None):
        return Args((x1, x1, jax.random.uniform(key, index.shape), labels))

    loss.noise = {"z": None}
    state = fitted(loss_fn=loss, draw=draw, optimizer=optax.sgd(1.0), steps=1, held_out=points(32))
    np.testing.assert_allclose(state.params["c"][0], 3.0, rtol=1e-5)  # one step of Newton's


@pytest.mark.slow
def test_a_stochastic_path_takes_its_noise_from_the_draw():
    loss_fn = make_loss_fn(apply_fn, path=NoisyStraight(0.5))
    draw = Draw(noise=loss_fn.noise)
    state = fitted(loss_fn=loss_fn, draw=draw, held_out=points(32), accumulate=2)
    assert int(state.step) == 6
    with pytest.raises(InputError, match=r"write Draw\(noise=loss_fn.noise\)"):
        fitted(loss_fn=loss_fn)


@pytest.mark.slow
def test_without_an_average_there_is_none(tmp_path):
    state = fitted(ema=None, workdir=tmp_path, held_out=points(32))
    assert state.ema_params is None
    assert_same_bits(state.params, fitted().params)
    again = fitted(ema=None, workdir=tmp_path)
    assert_same_bits(again, state)


# Where it goes on.


@pytest.mark.slow
def test_ten_steps_and_ten_more_are_twenty(tmp_path, capsys):
    whole = fitted(steps=20)
    fitted(steps=10, workdir=tmp_path)
    assert "going on" not in capsys.readouterr().err
    state = fitted(steps=20, workdir=tmp_path)
    assert "going on at step 10" in capsys.readouterr().err
    assert_same_bits(state, whole)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.name == "metrics.jsonl"}
    assert_same_bits(fitted(steps=20, workdir=tmp_path), whole)  # finished: nothing is done
    assert_same_bits(fitted(steps=15, workdir=tmp_path), whole)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.slow
def test_a_state_goes_on_without_a_folder():
    assert_same_bits(fitted(params=fitted(steps=3), steps=6), fitted(steps=6))


@pytest.mark.slow
def test_a_later_checkpoint_comes_before_the_state_that_is_given(tmp_path):
    early = fitted(steps=3)
    late = fitted(steps=6, workdir=tmp_path)
    assert_same_bits(fitted(params=early, steps=6, workdir=tmp_path), late)


@pytest.mark.slow
def test_a_signal_saves_and_raises_and_the_same_call_goes_on(tmp_path):
    def stop(step, state):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match=r"saved step 4 in .*The same call goes on") as stopped:
        fitted(workdir=tmp_path, callbacks=[stop])
    assert (stopped.value.signal, stopped.value.step) == (signal.SIGTERM, 4)
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert_same_bits(fitted(workdir=tmp_path), fitted())


@pytest.mark.slow
def test_an_iterator_says_that_it_cannot_be_resumed_exactly(tmp_path, capsys):
    data = as_batches(points(), steps=6)
    fitted(data, steps=2, workdir=tmp_path)
    assert "iterator" not in capsys.readouterr().err
    state = fitted(data, steps=5, workdir=tmp_path)
    assert capsys.readouterr().err.count("not those of a training that was never stopped") == 1
    # The same iterator, left where it was: nothing was read beyond the second batch.
    assert_same_bits(state, fitted(steps=5))


@pytest.mark.slow
def test_an_iterable_begins_anew_and_an_iterator_ends(tmp_path):
    class Batches:
        def __iter__(self):
            return as_batches(points(), steps=2)

    assert int(fitted(Batches(), steps=5).step) == 5
    with pytest.raises(InputError, match="data ended after step 4 of 6"):
        fitted(as_batches(points(), steps=4), workdir=tmp_path, log_every=2)
    assert int(fitted(as_batches(points()), steps=4, workdir=tmp_path).step) == 4  # it was saved
    with pytest.raises(InputError, match="data ended after step 6 of 8"):  # saved once already
        fitted(as_batches(points(), steps=2), workdir=tmp_path, steps=8, checkpoint_every=2)
    with pytest.raises(InputError, match="data ended after step 6 of 8"):
        fitted(
            as_batches(points(), steps=1), workdir=tmp_path, steps=8, steps_per_call=2, log_every=2
        )


KILLED = """
import os, signal, sys
import jax, numpy as np
from tests.training.test_fit import NETWORKS, USUAL, points
from fmjax import make_loss_fn
from fmjax.training import fit
from fmjax.training.mesh import MeshSizes

name, workdir, steps, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
apply_fn, params = NETWORKS[name]()
assert jax.device_count() == 2


def kill(step, state):
    assert len(jax.tree.leaves(state.params)[0].sharding.device_set) == 2
    if step == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)


options = USUAL | {"loss_fn": make_loss_fn(apply_fn), "steps": steps, "checkpoint_every": 5}
state = fit(apply_fn, params, points(), workdir=workdir, callbacks=[kill], **options)
print(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(state)).hex())
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nnx", pytest.param("equinox", marks=pytest.mark.nightly)])
def test_killed_and_resumed_on_two_devices_it_is_the_same_to_the_bit(run_python, tmp_path, name):
    def run(folder, steps, kill_at=0):
        return run_python(KILLED, name, tmp_path / folder, steps, kill_at, devices=2).split()[-1]

    whole = run("whole", 20)
    run("stopped", 10)
    with pytest.raises(AssertionError, match=f"exited with -{int(signal.SIGKILL)}"):
        run("stopped", 20, kill_at=17)
    assert run("stopped", 20) == whole


@pytest.mark.slow
def test_every_mesh_and_pmap_train_to_the_same_parameters(run_python):
    code = """
    import jax, numpy as np
    from tests.training.test_fit import fitted
    from fmjax.training.mesh import MeshSizes, make_mesh

    one = fitted(mesh=make_mesh(jax.devices()[:1]))
    for options in (
        {}, {"parallel": "pmap"}, {"mesh": MeshSizes(fsdp=2)}, {"mesh": make_mesh()},
        {"accumulate": 2},
    ):
        state = fitted(**options)
        for a, b in zip(*map(jax.tree.leaves, (state, one)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5, err_msg=str(options))
    """
    run_python(code, devices=2)


# What is refused, before any device works.


def uses_target(params, x0, x1, t, labels, *, target_params):
    return jnp.mean(x1)


def uses_noise(params, x0, x1, t, labels, *, noise):
    return jnp.mean(noise["z"])


uses_target.uses_target, uses_noise.noise = True, {"z": None}
PIXELS = {"x": np.zeros((96, 8, 8, 1), np.uint8)}
EMPTY = {"x": np.zeros((0, 2)), "labels": np.zeros(0, int)}
UNEQUAL = {"x": np.zeros((96, 2)), "labels": np.zeros(95, int)}
NOT_A_NUMBER = {"x": np.full((96, 2), np.nan), "labels": np.zeros(96, int)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": EMPTY}, r"one number of examples.*at least 1; got labels 0, x 0"),
        ({"data": []}, "data must have a number of examples, at least one; got none"),
        ({"data": grain.MapDataset.range(9).repeat()}, "leave its repeat"),
        ({"data": UNEQUAL}, "one number of examples in all its arrays.*labels 95, x 96"),
        ({"data": NOT_A_NUMBER}, "data: x must be finite; got NaN or infinity in 96 of 96"),
        ({"data": {"image": np.zeros((96, 2))}}, "dictionary of arrays 'x'.*got 'image'"),
        ({"data": {"x": np.array(["a", "b"])}}, "arrays of numbers with a leading axis"),
        ({"data": 3}, "anything with len.*an iterable of batches; got int"),
        ({"data": iter([])}, "at least one batch; the iterator gave none"),
        ({"data": as_batches(points()), "batch_size": 16}, "needs 16: write batch_size=32"),
        ({"data": PIXELS}, r"x are pixels.*np.asarray\(fmjax.data.pixels.to_unit\(x\)\)"),
        ({"batch_size": 97}, "more than the 96 examples of data; write batch_size=96 or less"),
        ({"batch_size": 6, "accumulate": 4}, "4 accumulated parts; write batch_size=8"),
        ({"steps": 0}, "^steps must be a whole number of at least 1; got 0"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"ema": 1.0}, "ema must lie in"),
        ({"steps_per_call": 4}, r"steps must be a multiple of 4 \(steps_per_call"),
        ({"val_every": 2}, "val_every=2 asks for a held-out loss: give held_out"),
        ({"held_out": points()["x"]}, "held_out must be built as data are.*labels int32"),
        ({"profile": True}, "profile=True writes its trace to a workdir"),
        ({"mesh": MeshSizes(data=3)}, "does not multiply to the 1 devices"),
        ({"parallel": "pmop"}, "Did you mean 'pmap'"),
        ({"mesh": jax.make_mesh((1,), ("x",))}, "axes data, fsdp, tensor, as .*make_mesh"),
        ({"params": {"a": np.arange(3)}}, "floating-point arrays.*got int64 in a"),
        ({"params": {"a": "tanh"}}, "got str in a"),
        ({"params": {}}, "floating-point arrays.*got none"),
        ({"loss_fn": uses_target, "ema": None}, "ema=None keeps no average"),
        ({"loss_fn": uses_noise}, "needs the noise z, and the draw gives none"),
        ({"loss_fn": lambda *args: jnp.ones(32)}, r"one number.*got float32\[32\]: take its mean"),
        ({"loss_fn": lambda *args: 1}, "one number"),
        ({"draw": lambda key, index, x1, labels: (x1, x1)}, "x0, x1, t and labels; got 2"),
        ({"draw": None}, r"the draw must be a function, such as Draw\(\); got None"),
        ({"draw": Draw}, r"the draw is the class Draw; write Draw\("),
        ({"loss_fn": "squared"}, "the loss must be a function"),
        ({"optimizer": 1e-3}, "the optimizer must be an object with init, update"),
        ({"callbacks": [3]}, "a callback must be a function"),
        ({"log": 3}, "log must be a function"),
        ({"mesh": 3}, r"MeshSizes\(fsdp=4\) and the like; got 3"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        fitted(**changes, workdir=None if "profile" in changes else tmp_path / "run")


def test_a_network_that_does_not_fit_its_data_is_found_at_once(tmp_path):
    with pytest.raises(InputError, match=r"shaped as x, \(32, 2\), or an Output; got \(32, 16\)"):
        fit(lambda params, x, t, labels: x @ params["a"], PARAMS, points(), **USUAL)
    with pytest.raises(TypeError, match="dot_general"):  # its own error, which says where
        fit(lambda params, x, t, labels: x @ params["b"], PARAMS, points(), **USUAL)
    fit(lambda *args: Output(velocity=args[1], more=args[2]), PARAMS, points(), **USUAL)


def test_tokens_are_no_pixels():
    def logits(params, x, t, labels):
        return jax.nn.one_hot(x, 5) * params["c"][0]

    def draw(key, index, x1, labels=None, x0=None):
        return x1, x1, jax.random.uniform(key, index.shape), labels

    def loss(params, x0, x1, t, labels):
        return jnp.mean(logits(params, x1, t, labels))

    tokens = np.random.default_rng(0).integers(0, 5, (96, 7))
    fit(logits, PARAMS, tokens, **(USUAL | {"loss_fn": loss, "draw": draw}))


def test_another_training_in_the_folder_is_not_touched(tmp_path):
    fitted(workdir=tmp_path, steps=2)
    for changes, message in (
        ({"batch_size": 16}, r"holds another training, with batch_size=32 \(asked: 16\)"),
        ({"seed": 1, "ema": 0.9}, "seed=0 .*ema=0.9999"),
        ({"params": {**PARAMS, "d": jnp.ones(2)}, "steps": 3}, r"params/d=None .*float32\[2\]"),
    ):
        with pytest.raises(InputError, match=message):
            fitted(workdir=tmp_path, **changes)
    (tmp_path / "fit.json").write_text("{")
    with pytest.raises(InputError, match=r"fit\.json cannot be read"):
        fitted(workdir=tmp_path)
    (tmp_path / "fit.json").unlink()
    with pytest.raises(InputError, match="checkpoints that fit did not write"):
        fitted(workdir=tmp_path)


def test_a_state_of_something_else_is_refused():
    state = TrainState(*fitted(steps=1))
    with pytest.raises(InputError, match="of another optimizer"):
        fitted(params=state, optimizer=optax.sgd(0.1, momentum=0.9))
    with pytest.raises(InputError, match=r"has an average of the parameters: write ema=0\.9999"):
        fitted(params=state, ema=None)


@pytest.mark.slow
def test_importing_training_asks_for_nothing_more(run_python):
    code = """
    import sys
    import fmjax.training.step, fmjax.training.parallelism
    print(sorted({"grain", "orbax", "tqdm", "tensorboardX"} & set(sys.modules)))
    """
    assert run_python(code, devices=1).split() == ["[]"]
