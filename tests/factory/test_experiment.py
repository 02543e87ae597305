"""Every name of every table, from a configuration to a loss, and how the pieces combine."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh

from fmjax import paths, schedules, times
from fmjax.conditions import ClassIds
from fmjax.config import default_config
from fmjax.conventions import example_keys
from fmjax.data.codecs import Pixels, Vectors
from fmjax.errors import InputError
from fmjax.factory import DataSpec, make_experiment, registry

SPEC = DataSpec(Vectors(2), ClassIds(3))
X1 = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
BATCH = {"x1": X1, "labels": np.arange(64, dtype=np.int32) % 3, "index": np.arange(64)}
KEY = jax.random.key(1)


def config(**changes):
    changed = default_config()
    small = {"model.name": "mlp", "model.width": 8, "model.depth": 1, "train.batch_size": 64}
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    changed.update_from_flattened_dict(small | dotted)
    return changed


def experiment(**changes):
    return make_experiment(config(**changes), SPEC)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "linear", "sigma_min": 0.1}, paths.AffinePath(schedules.Linear(0.1))),
        ({"name": "vp", "beta_max": 10.0}, paths.AffinePath(schedules.VP(0.1, 10.0))),
        ({"name": "linear_vp"}, paths.AffinePath(schedules.LinearVP())),
        ({"name": "discrete_vp"}, paths.AffinePath(schedules.DiscreteVP())),
        ({"name": "cosine"}, paths.AffinePath(schedules.Cosine())),
        ({"name": "polynomial", "power": 3.0}, paths.AffinePath(schedules.Polynomial(3.0))),
        ({"name": "noisy", "sigma": 0.2}, paths.NoisyStraight(0.2)),
        ({"name": "bridge", "sigma": 0.5}, paths.BrownianBridge(0.5)),
    ],
)
def test_every_path_has_a_name(changes, expected):
    changed = config(**{f"path__{key}": value for key, value in changes.items()})
    assert registry.make_path(changed) == expected


def test_every_table_is_covered_here():
    assert set(registry.PATHS) == {
        "linear", "vp", "linear_vp", "discrete_vp", "cosine", "polynomial", "noisy", "bridge",
    }  # fmt: skip
    assert set(LAWS) == set(registry.TIMES)
    assert set(PAIRED) | {"independent", "host_ot", "pairs"} == set(registry.COUPLINGS)


LAWS = {
    "uniform": times.Uniform(),
    "logit_normal": times.LogitNormal(0.5, 2.0),
    "log_normal": times.LogNormal(0.5, 2.0),
    "u_shaped": times.UShaped(2.0),
    "mode": times.Mode(0.5),
    "cosmap": times.CosMap(),
    "beta": times.Beta(2.0, 3.0),
    "step_starts": times.StepStarts(3),
}
FIELDS = {"mean": 0.5, "std": 2.0, "scale": 0.5, "a": 2.0, "b": 3.0, "steps": 3}


@pytest.mark.parametrize("name", LAWS)
def test_every_time_distribution_has_a_name_and_takes_its_own_keys(name):
    fields = getattr(type(LAWS[name]), "__dataclass_fields__", {})
    given = {f"time__{key}": FIELDS[key] for key in fields}
    assert registry.make_time_distribution(config(time__name=name, **given)) == LAWS[name]
    shifted = registry.make_time_distribution(config(time__name=name, time__shift=3.0, **given))
    assert shifted == times.Shifted(LAWS[name], 3.0)


def test_distances_and_their_parameters():
    for changes, expected in (
        ({"distance": "squared"}, None),
        ({"distance": "pseudo_huber", "c": 0.1}, paths.PseudoHuber(0.1)),
        ({"distance": "pseudo_huber"}, paths.PseudoHuber()),
        ({"distance": "adaptive", "power": 0.5}, paths.Adaptive(0.5, 1e-3)),
    ):
        c = config(**{f"loss__{key}": value for key, value in changes.items()}).loss
        assert registry.DISTANCES[c.distance](c) == expected


def test_the_weights_multiply():
    # 1 / (1 - t)^2 makes an error in x1 one of the velocity; 1 / density keeps uniform times.
    changed = config(
        loss__prediction="x1", loss__weight="velocity", time__name="logit_normal",
        time__importance=True,
    )  # fmt: skip
    law, t = times.LogitNormal(), jnp.linspace(0.1, 0.9, 5)
    weight = registry.make_weight(changed, paths.AffinePath(), law)
    np.testing.assert_allclose(weight(t), 1 / (1 - t) ** 2 / law.density(t), rtol=1e-5)
    assert registry.make_weight(config(), paths.AffinePath(), law) is None


PAIRED = ("ot", "sinkhorn", "schroedinger_bridge", "unbalanced", "partial")


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRED)
def test_every_coupling_pairs_within_classes_at_less_cost(name):
    # By label, so the classes of the source stay as drawn; the pairs are nearer than by chance.
    drawn = experiment().draw(KEY, BATCH)
    paired = experiment(coupling__name=name).draw(KEY, BATCH)
    labels = np.asarray(paired.labels)
    kept = labels != 3
    where = np.argmax(np.all(paired.x0[:, None] == drawn.x0[None], axis=-1), axis=1)
    np.testing.assert_array_equal(BATCH["labels"][where][kept], labels[kept])
    cost = lambda args: float(jnp.mean(jnp.sum((args.x0 - args.x1) ** 2, axis=1)))  # noqa: E731
    assert cost(paired) < 0.8 * cost(drawn)
    free = experiment(coupling__name=name, coupling__by_label=False).draw(KEY, BATCH)
    assert not np.array_equal(free.x0, paired.x0)


@pytest.mark.slow
def test_a_batch_in_groups_is_paired_group_by_group():
    whole = experiment(coupling__name="ot", coupling__groups=4).draw(KEY, BATCH)
    for group in range(4):
        rows = slice(16 * group, 16 * (group + 1))
        part = {name: x[rows] for name, x in BATCH.items()}
        alone = experiment(coupling__name="ot").draw(KEY, part)
        np.testing.assert_array_equal(whole.x0[rows], alone.x0)


@pytest.mark.slow
def test_strata_fill_the_batch_at_hand():
    draw = experiment(time__stratified=True).draw
    for n in (64, 16):  # a training batch, and a smaller one of validation
        t = draw(KEY, {name: x[:n] for name, x in BATCH.items()}).t
        strata = np.sort(np.floor(np.asarray(t, np.float64) * n))
        np.testing.assert_array_equal(strata, np.arange(n))


@pytest.mark.slow
def test_strata_are_those_of_the_global_batch_on_each_of_two_devices():
    draw = experiment(time__stratified=True).draw
    # Under pmap each device has a part of the rows; a mapped axis stands for the devices.
    layout = SimpleNamespace(mesh=AbstractMesh((2, 1), ("data", "fsdp")), axis_name="data")
    parts = {name: x.reshape(2, 32, *x.shape[1:]) for name, x in BATCH.items()}
    mapped = jax.vmap(lambda batch: draw(KEY, batch, layout).t, axis_name="data")
    t = np.asarray(mapped(parts), np.float64).reshape(64)
    np.testing.assert_array_equal(np.sort(np.floor(t * 64)), np.arange(64))


IMAGES = {
    "x1": np.random.default_rng(1).integers(0, 256, (16, 2, 2, 1), np.uint8),
    "labels": np.arange(16, dtype=np.int32) % 3,
    "index": np.arange(16),
}


@pytest.mark.slow
def test_dequantised_training_adds_noise_of_one_level_and_changes_nothing_else():
    spec = DataSpec(Pixels((2, 2, 1)), ClassIds(3))
    plain, spread = (
        make_experiment(config(data__dequantize=on), spec).draw for on in (False, True)
    )
    before, after = plain(KEY, IMAGES), spread(KEY, IMAGES)
    np.testing.assert_allclose(before.x1, IMAGES["x1"] / 127.5 - 1, atol=1e-6)
    noise = np.asarray(after.x1) - np.asarray(before.x1)
    assert 0.8 / 255 < np.abs(noise).max() <= 1 / 255 + 1e-6
    assert abs(noise.mean()) < 4 / 255 / np.sqrt(12 / 4 * noise.size)
    for name in ("x0", "t", "labels"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    # By the key of the step, and by the example's place in the global batch.
    assert np.all(np.asarray(spread(jax.random.key(2), IMAGES).x1) != after.x1)
    part = spread(KEY, {name: x[5:9] for name, x in IMAGES.items()})
    np.testing.assert_array_equal(part.x1, after.x1[5:9])
    # What is stored in pairs was made by a flow: it is in the model's unit, and has no levels.
    stored = config(data__dequantize=True, coupling__name="pairs", coupling__dir="pairs")
    floats = IMAGES | {"x1": np.float32(IMAGES["x1"])}
    np.testing.assert_array_equal(make_experiment(stored, spec).draw(KEY, floats).x1, floats["x1"])


def test_the_keys_of_the_levels_are_not_those_of_the_draw(monkeypatch):
    seen, dequantize = [], Pixels.dequantize

    def note(codec, keys, data):
        seen.append(jax.random.key_data(keys))
        return dequantize(codec, keys, data)

    monkeypatch.setattr(Pixels, "dequantize", note)
    spec = DataSpec(Pixels((2, 2, 1)), ClassIds(3))
    make_experiment(config(data__dequantize=True), spec).draw(KEY, IMAGES)
    of_draw = jax.random.key_data(jax.random.split(KEY, 5))  # of x0, t, drop, pairs and noise
    equal = np.all(np.asarray(seen[0])[:, None] == np.asarray(of_draw)[None], axis=-1)
    assert not equal.any()
    same_step = jax.random.key_data(example_keys(KEY, IMAGES["index"]))
    assert not np.array_equal(seen[0], same_step)


@pytest.mark.parametrize(
    "changes", [{}, {"path__name": "discrete_vp", "flow_map__name": "meanflow"}]
)
def test_steps_are_asked_for_on_their_path_alone(changes):
    with pytest.raises(InputError, match=r"and needs path.name=discrete_vp and flow_map.name=none"):
        experiment(model__at_steps=True, **changes)


def test_points_have_no_levels():
    with pytest.raises(InputError, match=r"no pixels to dequantise; write data.dequantize=False"):
        experiment(data__dequantize=True)


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"path__name": "vp", "loss__prediction": "x0", "time__name": "mode"},
        {"path__name": "cosine", "loss__prediction": "v", "loss__distance": "pseudo_huber"},
        {"path__name": "linear_vp", "loss__prediction": "score", "coupling__name": "ot"},
        {"path__name": "polynomial", "loss__prediction": "x1", "loss__distance": "adaptive"},
        {"path__name": "bridge", "coupling__name": "schroedinger_bridge", "time__shift": 3.0},
    ],
)
def test_the_pieces_combine_and_the_loss_falls(changes):
    made = experiment(optimizer__learning_rate=3e-3, optimizer__warmup_steps=1, **changes)
    params = made.init_params(jax.random.key(0))
    args = made.draw(KEY, BATCH)
    loss_and_grad = jax.jit(jax.value_and_grad(made.loss_fn))
    optimizer = optax.adam(1e-2)
    state, losses_seen = optimizer.init(params), []
    for _ in range(30):
        loss, grads = loss_and_grad(params, *args, noise=args.noise)
        updates, state = optimizer.update(grads, state)
        params = optax.apply_updates(params, updates)
        losses_seen.append(float(loss))
    assert losses_seen[-1] < losses_seen[0]
    # What is sampled is a velocity, whatever was learned: finite at both ends.
    for t in (0.0, 1.0):
        velocity = made.apply_fn(params, jnp.asarray(X1), jnp.full(64, t), BATCH["labels"])
        assert velocity.shape == X1.shape
        assert jnp.all(jnp.isfinite(velocity))


@pytest.mark.nightly
def test_a_coupling_gives_the_same_pairs_on_one_device_and_on_eight(run_python):
    """Under jit over a mesh and under pmap, over the global batch and in groups."""
    out = run_python(
        """
        import sys
        sys.path.insert(0, "tests/factory")
        import jax, numpy as np
        from test_experiment import BATCH, KEY, experiment
        from fmjax.training.parallelism import make_layout

        for groups in (1, 2, 8, 16):
            made = experiment(coupling__name="ot", coupling__groups=groups)
            alone = made.draw(KEY, BATCH)
            layout = make_layout("jit")
            draw = jax.jit(lambda key, batch: made.draw(key, batch, layout))
            for x, y in zip(draw(KEY, layout.place(BATCH)), alone):
                np.testing.assert_allclose(x, y, atol=1e-5)
            layout = make_layout("pmap")
            mapped = jax.pmap(lambda key, batch: made.draw(key, batch, layout),
                              axis_name=layout.axis_name, in_axes=(None, 0))
            for x, y in zip(mapped(KEY, layout.place(BATCH)), alone):
                np.testing.assert_allclose(x.reshape(y.shape), y, atol=1e-5)
            print("groups", groups, "same")
        """,
        devices=8,
    )
    assert out.count("same") == 4


def test_a_clipped_weight_is_that_of_a_velocity_up_to_400():
    t = np.array([0.0, 0.5, 0.94, 0.999, 1.0], np.float32)
    weights = {}
    for name in ("velocity", "clipped_velocity"):
        c = config(loss__prediction="x1", loss__weight=name)
        law = registry.make_time_distribution(c)
        weights[name] = registry.make_weight(c, registry.make_path(c), law)(t)
    np.testing.assert_allclose(weights["velocity"][:3], 1 / (1 - t[:3]) ** 2, rtol=1e-3)
    np.testing.assert_array_equal(weights["clipped_velocity"], np.minimum(weights["velocity"], 400))
    assert weights["velocity"][3] > 400
