"""Every public function that takes a function holds what it returns to a shape and a dtype."""

import collections.abc
import importlib
import inspect
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import Output, Span, couplings, drifting, losses, predictions, schedules
from fmjax.array_checks import check_returned
from fmjax.draws import Draw
from fmjax.errors import InputError
from fmjax.flow_maps import (
    AlphaFlow,
    Consistency,
    MeanFlow,
    few_step_log_likelihood,
    make_flow_map_loss_fn,
)
from fmjax.guidance import (
    Between,
    Guided,
    autoguidance,
    classifier_free,
    distilled,
    interpolated,
    make_distillation_loss_fn,
    over_time,
)
from fmjax.likelihood import log_likelihood, sample_with_log_prob, velocity_and_divergence
from fmjax.likelihood.divergence import EXACT_TRACE
from fmjax.manifolds import Euclidean, Torus, in_ambient_space, in_tangent_space
from fmjax.metrics import curvature, path_energy, path_statistics, straightness
from fmjax.paths import BrownianBridge
from fmjax.samplers import (
    fit_source,
    invert,
    sde_spec,
    solve,
    solve_sde,
    solver_spec,
    take_steps,
)
from fmjax.testing import (
    GaussianFlow,
    check_continuity,
    check_density_integrates_to_one,
    check_recovers,
    check_score_matches_density,
    check_velocity_matches_score,
    convergence_order,
)

B, D = 4, 2
X = jnp.asarray(np.random.default_rng(0).normal(size=(B, D)), jnp.float32)
T = jnp.linspace(0.2, 0.8, B)
LABELS = jnp.arange(B) % 3
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, B)
TREE = {"a": X, "b": X[:, 0]}
MESH = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("data",))
TWO = solver_spec("euler", 2)
MEAN_FLOW = MeanFlow(derivative="fd")


def right(x, t, labels=None):
    return jax.tree.map(lambda leaf: -leaf, x)


def network(params, x, t, labels):
    return right(x, t)


def log_density(x, t, labels=None):
    return -jnp.sum(x**2, axis=1)


WRONG = {
    "a column": lambda x: x[:, :1],
    "a row": lambda x: x[:1],
    "a scalar": lambda x: jnp.sum(x),
    "a number": lambda x: 1.0,
    "complex": lambda x: x + 0j,
    "integers": lambda x: x.astype(int),
    "text": lambda x: "x",
    "nothing": lambda x: None,
    "a pair": lambda x: (x, x),
}
WRONG_FOR_EACH = WRONG | {"a column": lambda x: x[:, None], "a row": lambda x: x[None]}


def like_x(use):
    """Uses of a function that is to return what is shaped as x."""
    return [
        lambda wrong=wrong: use(lambda *args: wrong(args[-3]))  # (x, t, labels), params before
        for wrong in WRONG.values()
    ]


def alone(use):
    """As `like_x`, of a function that is called for one example at a time."""
    return [use for use, name in zip(like_x(use), WRONG, strict=True) if name != "a row"]


def like_t(use, at=0):
    """Uses of a function that is to return one number for each of its argument `at`."""
    return [lambda wrong=wrong: use(lambda *args: wrong(args[at])) for wrong in ALONG.values()]


ALONG = {name: f for name, f in WRONG_FOR_EACH.items() if name != "a pair"}
ALONG["a number"] = lambda t: jnp.ones(3)


def one_each(use):
    """Uses of a function of x that is to return one number per example."""
    return [
        lambda wrong=wrong: use(lambda x, *_: wrong(jnp.sum(x, axis=-1)))
        for wrong in ALONG.values()
    ]


def pairs(use):
    """Uses of a coupling."""
    x = jnp.ones((B, D))
    wrong = [
        (x[:, :1], x, None),
        (x, x[:2], None),
        (x, x.astype(int), None),
        (x + 0j, x, None),
        (x, x, LABELS[:2]),
        (x, x),
        x,
        None,
    ]
    return [lambda found=found: use(lambda key, x0, x1, labels=None: found) for found in wrong]


def conditions(use):
    """Uses of conditions of a coupling, which return a matrix of costs."""
    wrong = [lambda c: c[:, :1], lambda c: c[0, 0], lambda c: c + 0j, lambda c: None]
    return [lambda f=f: use(lambda cost, labels: f(cost)) for f in wrong]


def pick(use):
    """Uses of the function that picks one array of the labels."""
    wrong = [lambda c: c[:2], lambda c: (c, c), lambda c: None, lambda c: jnp.tile(c, 2)]
    return [lambda f=f: use(f) for f in wrong]


def loss(f, **how):
    return losses.make_loss_fn(f, **how)(None, X, X, T)


def flow_map_loss(f=network, identity=MEAN_FLOW, **how):
    loss_fn = make_flow_map_loss_fn(f, identity, **how)
    return loss_fn(None, X, X, Span(T, jnp.ones(B)), step=jnp.zeros((), int))


def drift(generator=lambda params, x0, labels: x0, **how):
    return drifting.make_drifting_loss_fn(generator, **how)(None, X[None], X[None])


def couple(coupling, key=KEY):
    return coupling(key, X, X[::-1], LABELS)


def match(f):
    return couplings.MinibatchCoupling(f)(KEY, X, X)


def schedule(alpha=lambda t: t, sigma=lambda t: 1 - t):
    return schedules.Custom(alpha, sigma)


GUIDED = Guided(LABELS, 2.0)
ELSEWHERE = "what it gives is checked where it is used"
OF_THE_USER = "its result is the labels, which the network checks"
TABLE = {
    "conventions.diagonal": {"apply_fn": ELSEWHERE},
    "couplings.MinibatchCoupling": {
        "match": [
            lambda found=found: match(lambda key, cost: found)
            for found in (
                jnp.arange(B),
                (jnp.arange(2), None),
                (jnp.ones(B), None),
                (jnp.arange(B), jnp.arange(2)),
                None,
            )
        ],
        "conditions": conditions(lambda f: couple(couplings.exact(f))),
    },
    "couplings.NearConditions": {
        "of": pick(lambda f: couple(couplings.exact(couplings.NearConditions(of=f))))
    },
    "couplings.SameClass": {
        "of": pick(lambda f: couple(couplings.exact(couplings.SameClass(of=f))))
    },
    "couplings.chain": {"coupling": pairs(lambda f: couplings.chain(KEY, [X, X], f))},
    "couplings.exact": {"conditions": conditions(lambda f: couple(couplings.exact(f)))},
    "couplings.gathered": {"coupling": pairs(lambda f: couple(couplings.gathered(f, mesh=MESH)))},
    "couplings.in_groups": {
        # Of a tuple of another length the mapping over groups says so itself.
        "coupling": pairs(lambda f: couple(couplings.in_groups(f, 1)))
    },
    "couplings.partial": {"conditions": conditions(lambda f: couple(couplings.partial(0.5, f)))},
    "couplings.schroedinger_bridge": {
        "conditions": conditions(lambda f: couple(couplings.schroedinger_bridge(1.0, f)))
    },
    "couplings.sinkhorn": {
        "conditions": conditions(lambda f: couple(couplings.sinkhorn(1.0, conditions=f)))
    },
    "couplings.unbalanced": {
        "conditions": conditions(lambda f: couple(couplings.unbalanced(1.0, 1.0, conditions=f)))
    },
    "draws.Draw": {"coupling": pairs(lambda f: Draw(coupling=f)(KEY, jnp.arange(B), X, LABELS))},
    "drifting.make_drifting_loss_fn": {
        "generator": like_x(lambda f: drift(lambda params, x0, labels: f(x0, None, None))),
        "features": [
            lambda wrong=wrong: drift(features=wrong)
            for name, wrong in WRONG.items()
            if name not in ("a column", "integers", "a pair")
        ],
    },
    "flow_maps.AlphaFlow": {
        "alpha": [
            lambda found=found: flow_map_loss(identity=AlphaFlow(lambda step: found))
            for found in (T, T[:1], 1j, None, "x", (T, T))
        ]
    },
    "flow_maps.Consistency": {
        "steps": like_t(lambda f: flow_map_loss(identity=Consistency(f))),
    },
    "flow_maps.few_step_log_likelihood": {
        "average": like_x(
            lambda f: few_step_log_likelihood(
                lambda x, t, labels: Output(velocity=f(x, t, labels), divergence=t.s),
                X,
                scale=1.0,
                steps=1,
            )
        )
        + like_t(
            lambda f: few_step_log_likelihood(
                lambda x, t, labels: Output(velocity=x, divergence=f(t.s)), X, scale=1.0, steps=1
            )
        )
    },
    "flow_maps.make_flow_map_loss_fn": {
        "apply_fn": like_x(flow_map_loss),
        "teacher": like_x(lambda f: flow_map_loss(teacher=f)),
        "distance": one_each(lambda f: flow_map_loss(distance=f)),
        "weight": like_t(lambda f: flow_map_loss(weight=lambda span: f(span.s))),
        "derivative_fn": like_x(lambda f: flow_map_loss(derivative_fn=f)),
    },
    "guidance.autoguidance": {
        "velocity": like_x(lambda f: autoguidance(f, right)(X, T, GUIDED)),
        "weak_velocity": like_x(lambda f: autoguidance(right, f)(X, T, GUIDED)),
        "rule": like_x(
            lambda f: autoguidance(right, right, rule=lambda u, *_: f(u, None, None))(X, T, GUIDED)
        ),
        "schedule": like_t(lambda f: autoguidance(right, right, schedule=f)(X, T, GUIDED))[:1],
    },
    "guidance.classifier_free": {
        "velocity": like_x(lambda f: classifier_free(f, 3)(X, T, GUIDED)),
        "rule": like_x(
            lambda f: classifier_free(right, 3, rule=lambda u, *_: f(u, None, None))(X, T, GUIDED)
        ),
        "schedule": like_t(lambda f: classifier_free(right, 3, schedule=f)(X, T, GUIDED))[:1],
    },
    "guidance.distilled": {"velocity": like_x(lambda f: distilled(f)(X, T, GUIDED))},
    "guidance.interpolated": {
        "velocity": like_x(lambda f: interpolated(f)(X, T, Between(LABELS, LABELS, 0.5)))
    },
    "guidance.make_distillation_loss_fn": {
        "apply_fn": like_x(
            lambda f: make_distillation_loss_fn(f, right)(None, X, X, T, GUIDED),
        ),
        "teacher": like_x(
            lambda f: make_distillation_loss_fn(network, f)(None, X, X, T, GUIDED),
        ),
    },
    "guidance.over_time": {
        "velocity": like_x(lambda f: over_time(f, lambda labels, t: labels)(X, T, LABELS)),
        "labels_at": OF_THE_USER,
    },
    "likelihood.log_likelihood": {"velocity": like_x(lambda f: log_likelihood(f, X, spec=TWO))},
    "likelihood.sample_with_log_prob": {
        "velocity": like_x(lambda f: sample_with_log_prob(f, X, spec=TWO))
    },
    "likelihood.velocity_and_divergence": {
        "velocity": like_x(lambda f: velocity_and_divergence(f, X, T, None, EXACT_TRACE))
    },
    "losses.declare": {
        "loss": [
            lambda found=found: losses.declare(lambda *args: found)(None, X, X, T)
            for found in (X, X[0], jnp.ones((), int), 1j, None, "x", (T, T))
        ]
    },
    "losses.make_flow_and_score_loss_fn": {
        name: like_x(
            lambda f, name=name: losses.make_flow_and_score_loss_fn(
                **{"flow_fn": network, "score_fn": network, name: f}, bridge=BrownianBridge()
            )(None, X, X, T, noise={"z": X})
        )
        for name in ("flow_fn", "score_fn")
    },
    "losses.make_loss_fn": {
        "apply_fn": like_x(loss),
        "weight": like_t(lambda f: loss(network, weight=f)),
        "distance": one_each(lambda f: loss(network, distance=f)),
    },
    "losses.make_per_example_loss_fn": {
        "apply_fn": like_x(
            lambda f: losses.make_per_example_loss_fn(f, distance=lambda p, u, x, t: t)(
                None, X, X, T
            )
        ),
        "distance": one_each(
            lambda f: losses.make_per_example_loss_fn(network, distance=f)(None, X, X, T)
        ),
    },
    "metrics.curvature": {"velocity": like_x(lambda f: curvature(f, X, steps=2))},
    "metrics.Features": {"function": ELSEWHERE},
    "metrics.network_features": {"apply": ELSEWHERE},
    "metrics.path_energy": {"velocity": like_x(lambda f: path_energy(f, X, steps=2))},
    "metrics.path_statistics": {"velocity": like_x(lambda f: path_statistics(f, X, steps=2))},
    "metrics.straightness": {"velocity": like_x(lambda f: straightness(f, X, steps=2))},
    "predictions.as_velocity": {
        "apply_fn": like_x(
            lambda f: predictions.as_velocity(f, schedules.Linear(), "x1")(None, X, T, None)
        )
        + like_x(lambda f: predictions.as_velocity(f, schedules.Linear())(None, X, T, None))
    },
    "predictions.change_path": {
        "velocity": like_x(
            lambda f: predictions.change_path(f, schedules.Linear(), schedules.Cosine())(X, T)
        )
    },
    "predictions.convert_weight": {
        "weight": like_t(
            lambda f: predictions.convert_weight(
                f, schedules.Linear(), source="velocity", target="x1"
            )(T)
        )
    },
    "samplers.fit_source": {
        "velocity": like_x(lambda f: fit_source(f, X, log_density_of_x, iterations=1)),
        "cost": one_each(lambda f: fit_source(right, X, f, iterations=1)),
    },
    "manifolds.in_ambient_space": {
        "apply_fn": like_x(
            lambda f: in_ambient_space(lambda p, x, t, labels: f(x, t, labels), Torus(D))(
                None, X, T, None
            )
        )
    },
    "manifolds.in_tangent_space": {
        "function": like_x(lambda f: in_tangent_space(f, Euclidean(D))(X, T, None))
    },
    "samplers.invert": {"velocity": like_x(lambda f: invert(f, X, None, TWO))},
    "samplers.sde_spec": {
        "diffusion": [
            lambda g=g: solve_sde(right, X, KEYS, None, sde_spec(steps=2, diffusion=g))
            for g in (
                lambda t: jnp.ones(3),
                lambda t: t + 0j,
                lambda t: None,
                lambda t: "x",
                lambda t: (t, t),
            )
        ]
    },
    "samplers.solve": {
        "velocity": [
            use
            for name in ("euler", "ab3", "unipc")  # of every solver in tests/test_returned.py
            for use in like_x(lambda f, name=name: solve(f, X, None, solver_spec(name, 3)))
        ]
        + alone(lambda f: solve(f, X, None, solver_spec("tsit5", rtol=1e-2)))
        + like_x(lambda f: solve(f, X, None, solver_spec("tsit5", rtol=1e-2, control="batch")))
        + [
            lambda found=found: solve(lambda x, t, labels: found(x), TREE, None, TWO)
            for found in (
                lambda x: X,
                lambda x: {"a": X},
                lambda x: {"a": X, "c": X[:, 0]},
                lambda x: {"a": X, "b": X[:, :1]},
                lambda x: [X, X[:, 0]],
                lambda x: {"a": X, "b": LABELS},
            )
        ]
    },
    "samplers.solve_sde": {
        "velocity": like_x(lambda f: solve_sde(f, X, KEYS, None, sde_spec(steps=2))),
        "score": like_x(lambda f: solve_sde(right, X, KEYS, None, sde_spec(steps=2), score=f)),
    },
    "samplers.take_steps": {
        "step": [
            lambda wrong=wrong: take_steps(
                lambda x, t, t_next, k: wrong(x), X, np.linspace(0, 1, 3), nfe=2
            )
            for wrong in WRONG.values()
        ]
    },
    "schedules.at_steps": {
        "apply_fn": like_x(lambda f: schedules.at_steps(f, schedules.DiscreteVP())(None, X, T))
    },
    "schedules.Custom": {
        "alpha_fn": like_t(lambda f: schedule(alpha=f)),
        "sigma_fn": like_t(lambda f: schedule(sigma=f)),
    },
    "schedules.with_slope": {
        "value": like_t(lambda f: schedules.with_slope(f, jnp.sin, T)),
        "slope": like_t(
            lambda f: jax.jvp(lambda t: schedules.with_slope(jnp.sin, f, t), (T,), (T,))
        ),
    },
    "testing.check_continuity": {
        "velocity": alone(lambda f: check_continuity(f, log_density, X, T)),
        "log_density": one_each(lambda f: check_continuity(right, f, X, T)),
    },
    "testing.check_density_integrates_to_one": {
        "log_density": one_each(
            lambda f: check_density_integrates_to_one(f, [-1.0], [1.0], points=8)
        )
    },
    "testing.check_recovers": {
        "apply_fn": like_x(
            lambda f: check_recovers(f, None, GaussianFlow(np.zeros(D), np.eye(D)), KEY, n=8)
        )
    },
    "testing.check_score_matches_density": {
        "score": like_x(lambda f: check_score_matches_density(f, log_density, X, T)),
        "log_density": one_each(lambda f: check_score_matches_density(right, f, X, T)),
    },
    "testing.check_velocity_matches_score": {
        "velocity": like_x(lambda f: check_velocity_matches_score(f, right, X, T)),
        "score": like_x(lambda f: check_velocity_matches_score(right, f, X, T)),
    },
    "testing.convergence_order": {
        "solve_with_steps": [
            lambda wrong=wrong: convergence_order(lambda n: wrong(X), X)
            for name, wrong in WRONG.items()
            if name != "integers"
        ]
    },
}
"""A function and its parameter; uses of it that must be refused, or why there is nothing to do."""

PACKAGES = (
    *("conditions", "conventions", "couplings", "draws", "drifting", "flow_maps", "guidance"),
    *(
        "likelihood",
        "losses",
        "manifolds",
        "metrics",
        "paths",
        "predictions",
        "samplers",
        "schedules",
    ),
    *("sources", "testing", "times"),
)


def log_density_of_x(x):
    return -jnp.sum(x**2, axis=1)


def is_function(hint):
    """Whether a parameter may be a function: a Callable, or a protocol that can be called."""
    if typing.get_origin(hint) is collections.abc.Callable:
        return True
    if inspect.isclass(hint):
        return getattr(hint, "_is_protocol", False) and "__call__" in vars(hint)
    return any(map(is_function, typing.get_args(hint)))


def _home(value):
    return getattr(value, "__module__", "")


def public():
    """Every public function and class of the mathematics by name, and its functions."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(f"fmjax.{package}")
        own = [name for name, value in vars(module).items() if _home(value) == module.__name__]
        for name in getattr(module, "__all__", own):
            one = inspect.unwrap(getattr(module, name))
            if name.startswith("_") or not (inspect.isfunction(one) or inspect.isclass(one)):
                continue
            if one in (f for f, _ in found.values()) or getattr(one, "_is_protocol", False):
                continue
            hints = typing.get_type_hints(one.__init__ if inspect.isclass(one) else one)
            names = {k for k, hint in hints.items() if k != "return" and is_function(hint)}
            if names:
                found[f"{package}.{name}"] = one, names
    return {name: names for name, (_, names) in found.items()}


def test_every_public_function_that_takes_a_function_is_in_the_table():
    found = public()
    assert {"samplers.solve", "losses.make_loss_fn", "schedules.Custom"} <= found.keys()
    assert {name: set(uses) for name, uses in TABLE.items()} == found


USES = [
    pytest.param(uses, id=f"{name}-{argument}")
    for name, each in TABLE.items()
    for argument, uses in each.items()
    if not isinstance(uses, str)
]


@pytest.mark.slow
@pytest.mark.parametrize("uses", USES)
def test_what_a_function_returns_is_held_to_its_shape_and_its_floats(uses):
    for i, use in enumerate(uses):
        with pytest.raises(InputError) as caught:
            pytest.fail(f"use {i} went through: {use()}")
        assert "must" in str(caught.value), (i, caught.value)


def test_numbers_of_python_and_half_precision_are_floats():
    check_returned("f", 1.0, "one number", jnp.ones(()))
    check_returned("f", T.astype(jnp.bfloat16), "t", T)
    with pytest.raises(InputError, match=r"f must return integers shaped as i, \(4,\); got"):
        check_returned("f", T, "i", LABELS)
    with pytest.raises(InputError, match=r"f must return floats shaped as t, \(4,\); got str 'x'"):
        check_returned("f", "x", "t", T)
