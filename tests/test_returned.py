"""What a function of the user's own returns is held to a shape and to floats, wherever it is asked.

A velocity of shape (b, 1), (1, d) or () broadcasts against x in every solver, and is wrong without
a word; so is a weight of shape (b, 1), or a distance that is one number.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fmjax
from fmjax import guidance, likelihood, losses, predictions, samplers
from fmjax.conventions import Output
from fmjax.errors import InputError
from fmjax.guidance import Between, Guided
from fmjax.manifolds import Euclidean
from fmjax.paths import AffinePath
from fmjax.schedules import Linear
from fmjax.sources import StandardNormal

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
T, LABELS = jnp.full(4, 0.5), jnp.arange(4) % 2
KEYS = jax.random.split(jax.random.key(0), 4)
CONDITIONS = Guided(LABELS, 2.0)

WRONG = {
    "one column": lambda x, t, labels: x[..., :1],
    "one row": lambda x, t, labels: x[:1] if len(x) > 1 else x[:, :1],
    "a scalar": lambda x, t, labels: jnp.float32(1.0),
    "integers": lambda x, t, labels: jnp.ones(x.shape, int),
    "complex": lambda x, t, labels: x * 1j,
    "another structure": lambda x, t, labels: (x,),
    "an Output": lambda x, t, labels: Output(velocity=x),
}


def solved(spec):
    return lambda v: samplers.solve(v, X, LABELS, spec)


def noisy(method, **score):
    spec = samplers.sde_spec(method, 2)
    return lambda v: samplers.solve_sde(v, X, KEYS, LABELS, spec, **score)


def fine(x, t, labels):
    return -x


EVERY_SPEC = {
    name: samplers.solver_spec(name, 3, manifold=Euclidean(3) if method.geodesic else None)
    for name, method in samplers.SOLVERS.items()
}
ASKS_A_VELOCITY = {
    **{name: solved(spec) for name, spec in EVERY_SPEC.items()},
    "per sample": solved(samplers.solver_spec("tsit5", rtol=1e-2)),
    "per batch": solved(samplers.solver_spec("tsit5", rtol=1e-2, control="batch")),
    **{name: noisy(name) for name in samplers.METHODS},
    "score": lambda v: samplers.solve_sde(
        fine, X, KEYS, LABELS, samplers.sde_spec("euler_maruyama", 2), score=v
    ),
    "invert": lambda v: samplers.invert(v, X),
    "fit_source": lambda v: samplers.fit_source(v, X, lambda x: jnp.sum(x, axis=1), iterations=1),
    "classifier_free": lambda v: guidance.classifier_free(v, 2)(X, T, CONDITIONS),
    "several": lambda v: guidance.classifier_free(v, 2)(X, T, (CONDITIONS, CONDITIONS)),
    "in an interval": lambda v: guidance.classifier_free(v, 2, interval=(0.6, 0.9))(
        X, T, CONDITIONS
    ),
    "autoguidance": lambda v: guidance.autoguidance(v, fine)(X, T, CONDITIONS),
    "weak": lambda v: guidance.autoguidance(fine, v)(X, T, CONDITIONS),
    "interpolated": lambda v: guidance.interpolated(v)(X, T, Between(0, 1, 0.5)),
    "log_likelihood": lambda v: likelihood.log_likelihood(v, X),
    "sample_with_log_prob": lambda v: likelihood.sample_with_log_prob(v, X),
    "convert": lambda v: predictions.convert(
        v(X, T, LABELS), X, T, Linear(), source="velocity", target="x1"
    ),
}
ASKS_A_NETWORK = {
    "loss": lambda f: losses.make_loss_fn(f)(None, X, X, T, LABELS),
    "x1": lambda f: losses.make_loss_fn(f, prediction="x1")(None, X, X, T, LABELS),
    "distance": lambda f: losses.make_loss_fn(f, distance=fmjax.paths.PseudoHuber())(
        None, X, X, T, LABELS
    ),
    "as_velocity": lambda f: predictions.as_velocity(f, Linear(), "x1")(None, X, T, LABELS),
}


@pytest.mark.slow
@pytest.mark.parametrize("ask", ASKS_A_VELOCITY.values(), ids=ASKS_A_VELOCITY)
def test_a_velocity_of_another_shape_is_refused_while_it_is_traced(ask):
    for name, wrong in WRONG.items():
        with pytest.raises(InputError, match=r"must return|must be of floats"):
            pytest.fail(f"{name}: {jax.eval_shape(lambda wrong=wrong: ask(wrong))}")


@pytest.mark.parametrize("ask", ASKS_A_NETWORK.values(), ids=ASKS_A_NETWORK)
def test_a_network_of_another_shape_is_refused(ask):
    for name in WRONG.keys() - {"an Output"}:  # of which a part is taken
        with pytest.raises(InputError, match="must return"):
            pytest.fail(f"{name}: {ask(lambda params, *at, name=name: WRONG[name](*at))}")


PER_EXAMPLE = {
    "weight": lambda f: losses.make_loss_fn(lambda p, x, t, y: x, weight=lambda t: f(X))(
        None, X, X, T
    ),
    "distance": lambda f: losses.make_loss_fn(lambda p, x, t, y: x, distance=lambda *_: f(X))(
        None, X, X, T
    ),
    "cost": lambda f: samplers.fit_source(fine, X, f, iterations=1),
    "log_prob": lambda f: likelihood.log_likelihood(
        fine, X, None, samplers.solver_spec("euler", 1), source=Source(f)
    ),
}


class Source(StandardNormal):
    """A source whose log-density the test chooses."""

    def __init__(self, log_prob):
        object.__setattr__(self, "log_prob", log_prob)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("ask", PER_EXAMPLE.values(), ids=PER_EXAMPLE)
def test_one_float_per_example_is_no_other_shape(ask):
    for wrong in (
        lambda x: jnp.sum(x),
        lambda x: x,
        lambda x: jnp.sum(x, axis=1, keepdims=True),
        lambda x: jnp.ones(len(x), int),
    ):
        with pytest.raises(InputError, match=r"must return one float per example, \(4,\); got"):
            ask(wrong)


def test_no_public_function_that_takes_a_velocity_is_left_out():
    """Every function of these packages with an argument called velocity is in the table above."""
    tried = {"solve", "solve_sde", "invert", "fit_source", "classifier_free", "autoguidance"}
    tried |= {"interpolated", "log_likelihood", "sample_with_log_prob"}
    # These hand on what the velocity gives, to be held where it is used.
    hand_on = {"over_time", "distilled", "velocity_and_divergence"}
    found = set()
    for package in (samplers, guidance, likelihood):
        for name in package.__all__:
            member = getattr(package, name)
            if inspect.isfunction(member) and "velocity" in inspect.signature(member).parameters:
                found.add(name)
    assert found - hand_on == tried


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_state_of_half_precision_is_carried_in_float32(dtype):
    x0 = jnp.ones((2, 1), dtype)

    def decay(x, t, labels):  # the network computes in half precision
        return -x.astype(dtype)

    for spec in (samplers.solver_spec("euler", 1000), samplers.sde_spec("churn", 1000, scale=0.0)):
        how = {} if hasattr(spec, "control") else {"keys": KEYS[:2]}
        solution = jax.jit(lambda x, spec=spec, how=how: spec.solve(decay, x, **how))(x0)
        assert solution.x1.dtype == jnp.float32
        if hasattr(spec, "control"):
            np.testing.assert_allclose(solution.x1, np.exp(-1), rtol=5e-3)


NO_FLOATS = {"integers": np.ones((4, 3), int), "complex": X * 1j, "pixels": np.ones((4, 3), "u1")}


@pytest.mark.parametrize("x", NO_FLOATS.values(), ids=NO_FLOATS)
def test_what_is_no_float_is_refused_where_a_float_is_meant(x):
    zero = lambda params, x, t, labels: jnp.zeros(x.shape)  # noqa: E731
    for ask in (
        lambda: samplers.solve(fine, x),
        lambda: samplers.solve_sde(fine, x, KEYS),
        lambda: likelihood.log_likelihood(fine, x),
        lambda: losses.make_loss_fn(zero)(None, X, x, T),
        lambda: losses.make_loss_fn(zero)(None, x, X, T),
        lambda: AffinePath().sample(X, x, T),
        lambda: predictions.convert(X, x, T, Linear(), source="velocity", target="x1"),
    ):
        with pytest.raises(InputError, match="of floats"):
            ask()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: samplers.solve(fine, X, None, "heun"), r"solver_spec\('heun', 25\); got 'heun'"),
        (lambda: samplers.solve("v", X), "the velocity must be a function"),
        (lambda: samplers.solve(fine, X[:0]), "at least one example"),
        (lambda: losses.make_loss_fn(lambda *_: X)(None, X[:0], X[:0], T[:0]), "at least one pair"),
        (lambda: losses.make_loss_fn("network"), "apply_fn must be a function"),
        (
            lambda: losses.make_loss_fn(fine, AffinePath),
            r"class AffinePath; write AffinePath\(",
        ),
        (lambda: losses.make_loss_fn(fine, Linear()), "the path must be an object with sample"),
        (lambda: losses.make_loss_fn(fine, distance="squared"), "the distance must be a function"),
        (lambda: losses.make_loss_fn(fine, weight=2.0), "the weight must be a function"),
        (lambda: AffinePath(Linear), r"the schedule is the class Linear; write Linear\("),
        (lambda: AffinePath("linear"), r"such as schedules.Linear\(\); got 'linear'"),
        (lambda: fmjax.Draw(time_distribution=fmjax.times.Uniform), "is the class Uniform"),
        (lambda: fmjax.Draw(time_distribution="uniform"), r"such as times.Uniform\(\)"),
        (
            lambda: fmjax.Draw(coupling="ot"),
            r"coupling must be a function.*exact\(\)",
        ),
        (lambda: fmjax.Draw(source="normal"), r"such as StandardNormal\(\); got 'normal'"),
        (lambda: fmjax.Draw(noise={"z": 1.0}), "the law of z must be an object with sample"),
        (lambda: fmjax.Draw(stratify=4.5), "whole number"),
        (lambda: fmjax.ClassIds(10, null=2.7), "the null class.* whole number"),
        (lambda: fmjax.classifier_free("v", 2), "the velocity must be a function"),
        (lambda: fmjax.classifier_free(fine, 2, rule="linear"), "the rule must be a function"),
        (lambda: fmjax.autoguidance(fine, None), "the weak velocity must be a function"),
        (
            lambda: likelihood.log_likelihood(fine, X, source="normal"),
            "the source must be an object",
        ),
    ],
)
def test_another_object_in_the_place_of_one_is_named(ask, message):
    with pytest.raises(InputError, match=message):
        ask()
