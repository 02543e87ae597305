"""Every public name of flow maps and of drifting, called with right and with wrong arguments."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import strategies as st

import fmjax
from fmjax import drifting, flow_maps, paths
from fmjax.conditions import ClassIds
from fmjax.manifolds import Sphere
from tests.calls import (
    COUNT,
    GRID,
    INDEX,
    KEY,
    KEYS,
    LABEL,
    LAW,
    NAN,
    OF_PAIRS,
    POSITIVE,
    SCHEDULED,
    Argument,
    Case,
    T,
    X,
    cases,
    check_arguments,
    check_refused,
    check_right,
    each,
    made_wrong,
    of,
    velocity,
)


def network(params, x, span, labels=None):
    return params * x


def average(x, span, labels=None):
    return fmjax.Output(velocity=-x, divergence=span.s)


def trained(identity, x0, x1, s, t, labels, noise=None, **how):
    loss_fn = flow_maps.make_flow_map_loss_fn(network, identity, **how)
    given = {name: np.full(len(x0), 1.5, "float32") for name in loss_fn.noise} | (noise or {})
    return loss_fn(1.0, x0, x1, fmjax.Span(s, t), labels, noise=given, step=jnp.int32(3))


def identity(make):
    def call(x0, x1, s, t, labels, **how):
        return trained(make(**how), x0, x1, s, t, labels)

    return call


def guidance(make):
    def call(x0, x1, s, t, labels, **how):
        return trained(flow_maps.MeanFlow(), x0, x1, s, t, labels, guidance=make(**how))

    return call


def drifted(x0, x1, labels, unconditional, guidance, **how):
    loss_fn = drifting.make_drifting_loss_fn(**how)
    return loss_fn(1.0, x0, x1, labels, unconditional=unconditional, guidance=guidance)


def points(*shape):
    return st.integers(0, 100).map(
        lambda seed: np.random.default_rng(seed).normal(size=shape).astype("float32")
    )


def number(shape):
    return ()


SPANS = OF_PAIRS | {"s": Argument(T, "times", "t")}
RIGHT_SPANS = {name: Argument(one.right) for name, one in SPANS.items()}
TO_DATA = RIGHT_SPANS | {"t": Argument(T.map(np.ones_like))}
DERIVATIVE = Argument(
    st.sampled_from(["jvp", "fd", flow_maps.FiniteDifference()]),
    "choice",
    wrong=(flow_maps.FiniteDifference,),
).needed
CONDITIONS = Argument(st.just(ClassIds(3)), "object", wrong=(ClassIds,))
INTERVAL = Argument(st.just((0.2, 0.8)), "times on the way", wrong=((0.5, 0.5),)).needed
ALPHA = st.sampled_from([0.5, 1.0, flow_maps.SigmoidDecay(0, 10)])
ECT = st.sampled_from([0.5, flow_maps.ECTSteps()])
GROUP_OF_NAN, COMPLEX_GROUP = np.full((1, 3, 2), NAN), np.ones((1, 3, 2), "complex64")
GROUP = Argument(points(1, 3, 2), "finite batch", wrong=(GROUP_OF_NAN, COMPLEX_GROUP)).needed

MANIFOLD = Argument(st.none(), "object", wrong=(Sphere,))

TABLE = {
    "AlphaFlow": Case(
        identity(flow_maps.AlphaFlow),
        {
            "alpha": Argument(ALPHA, "number in [0, 1]", wrong=(flow_maps.SigmoidDecay,)).needed,
            "derivative": DERIVATIVE,
            **RIGHT_SPANS,
        },
        number,
        slow=True,
    ),
    "Consistency": Case(
        identity(flow_maps.Consistency),
        {
            "steps": Argument(ECT, "number in [0, 1]", wrong=(flow_maps.ECTSteps,)).needed,
            **TO_DATA,
        },
        number,
    ),
    "DivergenceHead": Case(
        lambda x, t, **how: flow_maps.DivergenceHead(**how).averages(
            lambda x, t: -x, x, t, {"probe": np.ones_like(x)}
        ),
        {
            "scale": Argument(POSITIVE, "positive number").needed,
            "weight": Argument(POSITIVE, "positive number").needed,
            "trace": Argument(st.sampled_from(["hutchinson", "exact"]), "choice").needed,
            "x": Argument(X),
            "t": Argument(T),
        },
    ),
    "ECTSteps": Case(
        lambda s, **how: flow_maps.ECTSteps(**how)(s, jnp.int32(5)),
        {
            "q": Argument(st.floats(1.1, 4), "positive number").needed,
            "k": Argument(POSITIVE, "number of at least 0").needed,
            "b": Argument(POSITIVE, "positive number").needed,
            "double": Argument(COUNT, "count").needed,
            "stages": Argument(COUNT, "index from 0").needed,
            "s": Argument(T),
        },
        of("s"),
    ),
    "FiniteDifference": Case(
        identity(lambda step: flow_maps.MeanFlow(derivative=flow_maps.FiniteDifference(step))),
        {"step": Argument(st.floats(1e-3, 0.1), "positive number").needed, **RIGHT_SPANS},
        number,
    ),
    "FixedGuidance": Case(
        guidance(flow_maps.FixedGuidance),
        {
            "conditions": CONDITIONS.needed,
            "omega": Argument(st.floats(0.5, 2), "number").needed,
            "kappa": Argument(st.floats(-1, 0.9), "number", wrong=(1.0, 2.0)).needed,
            "interval": INTERVAL,
            **RIGHT_SPANS,
            "labels": LABEL.needed,
        },
        number,
    ),
    "GuidanceInput": Case(
        guidance(flow_maps.GuidanceInput),
        {
            "conditions": CONDITIONS.optional,
            "scales": Argument(
                st.just(flow_maps.PowerLaw()), "object", wrong=(flow_maps.PowerLaw,)
            ).needed,
            "interval": INTERVAL,
            **RIGHT_SPANS,
        },
        number,
    ),
    "Jumps": Case(
        lambda x0, labels, keys, **how: (
            flow_maps.Jumps(**how).solve(lambda x, span, labels: -x, x0, labels, keys=keys).x1
        ),
        {
            "steps": Argument(st.just(2), "count").optional,
            "grid": GRID,
            "renoise": Argument(st.floats(0.1, 1), "number in [0, 1]").needed,
            "schedule": SCHEDULED,
            "manifold": MANIFOLD,
            "x0": Argument(X, "batch"),
            "labels": LABEL,
            "keys": Argument(KEYS, "key", "random key").needed,
        },
        of("x0"),
        slow=True,
    ),
    "Lagrangian": Case(
        identity(flow_maps.Lagrangian), {"derivative": DERIVATIVE, **RIGHT_SPANS}, number
    ),
    "MeanFlow": Case(
        identity(flow_maps.MeanFlow),
        {
            "tangent": Argument(st.sampled_from(["pair", "network"]), "choice").needed,
            "derivative": DERIVATIVE,
            "normalise": Argument(POSITIVE, "positive number").optional,
            "warmup": Argument(COUNT, "index from 0").needed,
            **RIGHT_SPANS,
        },
        number,
    ),
    "PowerLaw": Case(
        lambda key, index, **how: flow_maps.PowerLaw(**how).sample(key, index, ()),
        {
            "low": Argument(st.floats(0.1, 1), "positive number").needed,
            "high": Argument(st.floats(2, 8), "positive number").needed,
            "power": Argument(st.floats(0, 3), "number of at least 0").needed,
            "key": Argument(KEY, "key").needed,
            "index": Argument(INDEX, "places").needed,
        },
        of("index"),
    ),
    "Semigroup": Case(
        identity(flow_maps.Semigroup),
        {
            "split": Argument(st.floats(0.1, 0.9), "number in [0, 1]").optional,
            "finest": Argument(st.floats(0, 1), "number in [0, 1]").needed,
            **RIGHT_SPANS,
        },
        number,
    ),
    "SigmoidDecay": Case(
        lambda step, **how: flow_maps.SigmoidDecay(**how)(step),
        {
            "begin": Argument(COUNT, "index from 0").needed,
            "end": Argument(st.integers(6, 9), "count").needed,
            "gamma": Argument(POSITIVE, "positive number").needed,
            "clamp": Argument(st.floats(0, 0.4), "number in [0, 1]").needed,
            "step": Argument(COUNT.map(np.int32)).optional,
        },
        number,
    ),
    "few_step_log_likelihood": Case(
        flow_maps.few_step_log_likelihood,
        {
            "average": Argument(st.just(average), "function").needed,
            "x1": Argument(X, "finite batch").needed,
            "labels": LABEL,
            "scale": Argument(POSITIVE, "positive number").needed,
            "steps": Argument(st.just(2), "count"),
            "grid": GRID,
            "source": LAW,
            "manifold": MANIFOLD,
        },
        each("x1"),
        slow=True,
    ),
    "make_flow_map_loss_fn": Case(
        lambda x0, x1, s, t, labels, **how: flow_maps.make_flow_map_loss_fn(**how)(
            1.0, x0, x1, fmjax.Span(s, t), labels, target_params=0.5
        ),
        {
            "apply_fn": Argument(st.just(network), "function").needed,
            "identity": Argument(
                st.sampled_from([flow_maps.MeanFlow(), flow_maps.Lagrangian()]),
                "object",
                wrong=(flow_maps.MeanFlow,),
            ).needed,
            "path": Argument(st.just(paths.AffinePath()), "object").optional,
            "teacher": Argument(st.just(velocity), "function").optional,
            "guidance": Argument(st.none(), "object"),
            "averaged": Argument(st.booleans(), "yes or no").needed,
            "divergence": Argument(st.none(), "object"),
            "distance": Argument(st.just(paths.squared), "function").optional,
            "weight": Argument(st.just(lambda span: 1 + span.s), "function").optional,
            "derivative_fn": Argument(st.just(network), "function").optional,
            **SPANS,
        },
        number,
        slow=True,
    ),
}

DRIFTING = {
    "drift_field": Case(
        lambda **given: drifting.drift_field(**given)[0],
        {
            "distances": Argument(points(3, 6).map(np.abs), "floats", wrong=(GROUP_OF_NAN,)).needed,
            "data": Argument(points(2, 2), "floats", wrong=(GROUP_OF_NAN,)).needed,
            "others": Argument(points(4, 2), "floats", wrong=(np.ones((4, 1)),)).needed,
            "radius": Argument(POSITIVE, "positive number").needed,
            "weights": Argument(points(6).map(np.abs), "floats", wrong=(np.ones(5),)).needed,
        },
        lambda given: (3, 2),
    ),
    "make_drifting_loss_fn": Case(
        drifted,
        {
            "generator": Argument(st.just(lambda params, x0, y: params * x0), "function").needed,
            "features": Argument(st.just(np.abs), "function").optional,
            "radii": Argument(
                st.sampled_from([(0.2,), [0.5, 0.1]]),
                "object",
                "radi",
                wrong=([], (0.1, -1.0), (NAN,)),
            ).needed,
            "x0": GROUP,
            "x1": GROUP,
            "labels": Argument(st.none() | st.just(np.asarray([2])), "labels"),
            "unconditional": Argument(points(4, 2), "finite batch").needed,
            "guidance": Argument(points(1).map(lambda w: 1 + np.abs(w)), "scales").needed,
        },
        number,
        slow=True,
    ),
}


def public(module):
    """The functions and classes of a module; protocols are neither."""
    own = [name for name, one in vars(module).items() if inspect.isfunction(one)]
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    found = {name: getattr(module, name) for name in names}
    return {
        name: one
        for name, one in found.items()
        if one.__module__.startswith(module.__name__) and not getattr(one, "_is_protocol", False)
    }


@pytest.mark.parametrize(("module", "table"), [(flow_maps, TABLE), (drifting, DRIFTING)])
def test_every_public_name_and_each_of_its_arguments_is_in_the_table(module, table):
    assert table.keys() == public(module).keys()
    for name, value in public(module).items():
        check_arguments(name, value, table[name])


@pytest.mark.day_cases(6)
@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("case", cases(TABLE | DRIFTING))
def test_right_arguments_give_finite_floats_of_the_right_shape(case):
    check_right(case)


@pytest.mark.quick_cases(35)
@pytest.mark.parametrize(("case", "argument"), made_wrong(TABLE | DRIFTING))
def test_one_wrong_argument_is_refused_by_its_name(case, argument):
    check_refused(case, argument)
