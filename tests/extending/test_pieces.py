"""A piece of each kind from outside the package is trained and sampled as those of fmjax are.

What each piece promises is held, too: a path's velocity is its derivative, a source's density
integrates to one, a codec comes back, a solver has its order.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.data.load import load
from fmjax.draws import Draw
from fmjax.errors import InputError
from fmjax.factory import make_experiment, spec_of
from fmjax.factory.registry import make_solver, make_time_distribution, make_weight
from fmjax.paths import AffinePath
from fmjax.run.restore import restore_flow
from fmjax.samplers import solve, solver_spec
from fmjax.testing import GaussianFlow, convergence_order
from fmjax.times import LogitNormal
from tests.run.conftest import small_config


def piece(name):
    return importlib.import_module(name)


@pytest.mark.slow
def test_a_path(run_of):
    run = run_of(path__name="wavy_path:make", path__sigma=0.2)
    path = run.experiment.path
    assert (type(path).__name__, path.size) == ("WavyPath", 0.2)
    assert run.losses[-1] < run.losses[0]
    # Its velocity is the derivative of its position, with the noise that a draw gives it.
    args = Draw(noise=path.noise)(jax.random.key(0), jnp.arange(8), jnp.ones((8, 2)))

    def position(t):
        return path.sample(args.x0, args.x1, t, args.noise).x_t

    slope = jax.jvp(position, (args.t,), (jnp.ones_like(args.t),))[1]
    target = path.sample(args.x0, args.x1, args.t, args.noise).target
    np.testing.assert_allclose(slope, target, rtol=1e-4, atol=1e-5)
    # The step draws that noise, by the place in the batch.
    drawn = run.experiment.draw(
        jax.random.key(1),
        {"x1": jnp.ones((4, 2)), "labels": jnp.zeros(4, int), "index": jnp.arange(4)},
    )
    assert drawn.noise["z"].shape == (4, 2)


@pytest.mark.slow
def test_a_source(run_of):
    run = run_of(source__name="ring_source:make", source__high=3.0)
    source = run.experiment.source
    assert source == piece("ring_source").Ring(3.0, 0.75)
    assert run.losses[-1] < run.losses[0]
    x0 = source.sample(jax.random.key(0), jnp.arange(4000), (2,))
    radius = np.linalg.norm(x0, axis=1)
    np.testing.assert_allclose(radius.mean(), 3.0, atol=4 * 0.75 / 4000**0.5)
    assert abs(x0.mean(axis=0)).max() < 0.15  # at every angle
    grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(-7, 7, 1400)] * 2), axis=-1).reshape(-1, 2)
    density = jnp.sum(jnp.exp(source.log_prob(grid))) * (14 / 1399) ** 2
    np.testing.assert_allclose(density, 1.0, rtol=1e-3)
    with pytest.raises(InputError, match=r"a ring lies in the plane, and the data have shape \(3,"):
        Draw(source=source)(jax.random.key(0), jnp.arange(2), jnp.ones((2, 3)))


@pytest.mark.slow
def test_a_condition(run_of):
    run = run_of(data__name="ordinal_condition:load", labels__drop_rate=0.25)
    condition = piece("ordinal_condition").Ordinal(4, drop_rate=0.25)
    assert run.experiment.conditions == condition
    assert run.record["data"]["conditions"]["type"] == "ordinal_condition:Ordinal"
    assert run.losses[-1] < run.losses[0]
    # Samples are drawn under the conditions of held-out examples.
    held_out = load("ordinal_condition:load").arrays("test", 8)[1]
    np.testing.assert_array_equal(run.samples["labels"], held_out)
    flow = restore_flow(run.folder / "run", run.experiment)
    steps = np.asarray(flow.params["condition"]["label"]["steps"])
    embed = condition.embedder(steps.shape[1], None)
    classes = jnp.array([-1, 0, 3])
    found = embed.apply({"params": {"steps": steps}}, classes)
    expected = [np.zeros(steps.shape[1]), steps[0], steps.sum(axis=0)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_codec(run_of):
    run = run_of(data__name="count_codec:load")
    counts = run.samples["samples"]
    assert counts.dtype == np.int32
    assert (counts >= 0).all()
    assert run.losses[-1] < run.losses[0]
    codec, data = run.experiment.spec.codec, np.array([[0, 3], [7, 250]], np.int32)
    np.testing.assert_array_equal(codec.decode(codec.encode(data)), data)
    assert isinstance(codec.encode(data), np.ndarray)


@pytest.mark.slow
def test_a_network(run_of):
    run = run_of(model__name="residual_network:build")
    assert run.losses[-1] < run.losses[0]
    assert (run.experiment.flops, run.experiment.sharding_rules) == (None, ())
    params = jax.eval_shape(run.experiment.init_params, jax.random.key(0))
    assert params["layer_0"]["kernel"].shape == (16, 16)
    assert params["condition"].keys() == {"time", "label"}
    assert run.samples["samples"].shape == (8, 2)


@pytest.mark.slow
def test_a_solver(run_of):
    solver = "ralston_solver:Ralston"
    run = run_of(solver, sample__solver=solver, sample__steps=3)
    assert run.experiment.solver == piece("ralston_solver").Ralston(3)
    flow = GaussianFlow(jnp.array([1.0, -1.0]), 0.5)
    with jax.enable_x64(True):
        x0 = jnp.asarray(np.random.default_rng(0).normal(size=(8, 2)))
        exact = solve(flow.velocity, x0, spec=solver_spec("dopri8", 200)).x1
        order = convergence_order(
            lambda n: make_solver(solver, n).solve(flow.velocity, x0).x1, exact, (32, 64, 128)
        )
    assert order == pytest.approx(2.0, abs=0.1)


@pytest.mark.usefixtures("own_pieces")
def test_a_solver_of_ones_own_takes_no_options_of_another():
    with pytest.raises(InputError, match="takes the number of steps alone; leave rtol out"):
        make_solver("ralston_solver:Ralston", 3, rtol=1e-3)
    with pytest.raises(InputError, match="the spec must be a solver"):
        make_solver("ring_source:Ring")


@pytest.mark.usefixtures("own_pieces")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path__name": "wavy_path:mak"}, "unknown path in wavy_path 'mak'. Did you mean 'make'"),
        ({"source__name": "no_such_piece:make"}, "source 'no_such_piece:make': No module named"),
        ({"data__name": "wavy_path:WavyPath"}, "fails with TypeError: .* missing 1 required"),
        ({"loss__distance": "fmjax.paths:squared"}, "distance .* fails with TypeError"),
        ({"coupling__name": "fmjax.couplings:exact"}, "coupling .* fails with TypeError"),
    ],
)
def test_a_piece_that_cannot_be_found_is_named(changes, message):
    config = small_config(**changes)
    with pytest.raises(InputError, match=message):
        make_experiment(config, spec_of(load(config.data.name)))


def test_small_pieces_of_ones_own_are_named_too():
    config = small_config(
        time__name="fmjax.times:LogitNormal",
        time__std=0.5,
        loss__weight="fmjax.conventions:at_least_float32",
    )
    assert make_time_distribution(config) == LogitNormal(std=0.5)
    weight = make_weight(config, AffinePath(), LogitNormal())
    np.testing.assert_array_equal(weight(jnp.array([0.25])), [0.25])
