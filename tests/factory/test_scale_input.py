"""Networks that take the scale of guidance as FLUX.1-dev does: trained at one, sampled at any."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import Sequence, Vector
from fmjax.config import default_config
from fmjax.data.codecs import Pixels
from fmjax.errors import InputError
from fmjax.factory import Guidance, make_experiment
from fmjax.factory.data_spec import DataSpec
from fmjax.factory.generation import check_guidance, guided_velocity
from fmjax.guidance import Guided

N = 3
SPEC = DataSpec(Pixels((4, 4, 1)), {"text": Sequence(5, 6), "pooled": Vector(4)})
SIZES = {"width": 16, "depth": 1, "single_depth": 1, "heads": 2, "patch_size": 2}


def experiment(**fields):
    config = default_config()
    config.model.update({"name": "flux", **SIZES, **fields})
    return make_experiment(config, SPEC, portable=True)


@pytest.fixture(scope="module")
def case():
    """An experiment, parameters that are not zero, points and the features of texts."""
    made = experiment(guidance_scale=3.5)
    leaves, tree = jax.tree.flatten(made.init_params(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    params = tree.unflatten(
        [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )
    x0, x1 = jax.random.normal(jax.random.key(2), (2, N, 4, 4, 1))
    text, pooled = jnp.ones((N, 5, 6)), jax.random.normal(jax.random.key(3), (N, 4))
    return made, params, x0, x1, {"text": text, "pooled": pooled}


def network(case, x, t, w):
    made, params, *_, labels = case
    scales = jnp.full(N, w)
    return made.model.apply({"params": params}, x, t, {**labels, "guidance": scales})


def test_it_trains_at_the_scale_of_the_configuration(case):
    made, params, x0, x1, labels = case
    t = jnp.array([0.2, 0.5, 0.9])
    x_t = t[:, None, None, None] * x1 + (1 - t[:, None, None, None]) * x0
    expected = jnp.mean((network(case, x_t, t, 3.5) - (x1 - x0)) ** 2)
    np.testing.assert_allclose(made.loss_fn(params, x0, x1, t, labels), expected, rtol=1e-5)
    elsewhere = jnp.mean((network(case, x_t, t, 1.0) - (x1 - x0)) ** 2)
    assert abs(elsewhere - expected) > 1e-3


@pytest.mark.parametrize("w", [0.5, 2.0])
def test_samples_of_any_scale_take_it_as_the_input(case, w):
    made, params, x, _, labels = case
    velocity, conditions = guided_velocity(made, Guidance(), params, labels, jnp.full(N, w))
    assert isinstance(conditions, Guided)
    t = jnp.full(N, 0.4)
    np.testing.assert_allclose(velocity(x, t, conditions), network(case, x, t, w), atol=1e-5)


def test_without_guidance_the_scale_is_one(case):
    made, params, x, _, labels = case
    t = jnp.full(N, 0.4)
    found = made.apply_fn(params, x, t, labels)
    np.testing.assert_allclose(found, network(case, x, t, 1.0), atol=1e-5)


def test_samples_have_the_scale_of_training_unless_asked(case):
    assert case[0].guidance_scale == 3.5
    assert case[0].largest_scale is None


def test_guidance_by_two_evaluations_beside_it_is_refused(case):
    with pytest.raises(InputError, match="this network takes the scale as an input"):
        check_guidance(Guidance(rule="rescale"), case[0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "FLUX.1-dev"}, "say at which it trains, e.g. model.guidance_scale=3.5"),
        ({"name": "FLUX.1-schnell", "guidance_scale": 3.5}, "leave model.guidance_scale out"),
        ({"name": "DiT-S/2", "guidance_scale": 3.5}, "guidance_scale is an input of flux; got"),
        ({"guidance_scale": 0.0}, r"model.guidance_scale .* must be"),
    ],
)
def test_a_scale_that_does_not_fit_is_refused(fields, message):
    sizes = dict.fromkeys(SIZES) if "name" in fields else {}
    with pytest.raises(InputError, match=message):
        experiment(**sizes, **fields)


def test_a_flow_map_takes_none():
    config = default_config()
    config.model.update({"name": "flux", **SIZES, "guidance_scale": 3.5})
    config.flow_map.name = "meanflow"
    with pytest.raises(InputError, match="guidance_scale is no input of a flow map"):
        make_experiment(config, SPEC, portable=True)
