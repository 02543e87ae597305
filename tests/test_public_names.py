"""Every public name of fmjax, called with right and with wrong arguments.

The table has for each name a call, a strategy for every argument, and what each argument is: its
kind. Right arguments give finite floats of the right shape. One argument of another kind gives an
`InputError` that names it, whatever came in its place: never an error of Python's or of jax's own.
"""

import inspect
import typing
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import strategies as st

import fmjax
from fmjax import conditions, couplings, paths, samplers, schedules, sources, times
from fmjax.manifolds import Euclidean
from tests.calls import (
    ANY,
    COUNT,
    FUNCTION,
    GRID,
    INDEX,
    KEY,
    KEYS,
    LABEL,
    LABELS,
    LAW,
    NAN,
    NETWORK,
    NOISY,
    OF_PAIRS,
    POSITIVE,
    PREDICTION,
    RATE,
    SCALE,
    SCHEDULED,
    SHAPES,
    SPEC,
    TRACE,
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
    network,
    of,
    velocity,
)

OF_A_PATH = {
    "x0": Argument(X, "floats"),
    "x1": Argument(X, "floats"),
    "t": Argument(T, "times"),
}
SOLVED = {
    "velocity": FUNCTION,
    "x0": Argument(X, "batch"),
    "labels": LABEL,
    "spec": Argument(SPEC, "object").optional,
}
ENDS = {
    "t0": Argument(st.floats(0, 0.4), "two different times").needed,
    "t1": Argument(st.floats(0.5, 1), "two different times").needed,
    "save_at": Argument(st.just([0.41, 0.49]), "times on the way").optional,
}
GUIDANCE = {
    "rule": Argument(st.just(fmjax.guidance.linear), "function").needed,
    "schedule": Argument(st.sampled_from(["constant", "cosine"]), "choice").needed,
    "interval": Argument(st.just((0.2, 0.8)), "times on the way").optional,
    "manifold": Argument(st.none(), "object"),
    "x": Argument(X, "batch"),
    "t": Argument(T, "times"),
    "labels": LABEL.needed,
    "w": Argument(SCALE, "scales").needed,
}
DENSITY = {
    "spec": SOLVED["spec"],
    "labels": LABEL,
    "trace": Argument(TRACE, "object").needed,
    "key": Argument(KEY, "key"),
    "source": LAW,
}
SIGMA = Argument(POSITIVE, "positive number").needed
DROP_RATE = Argument(RATE, "number in [0, 1]").needed


def guided(make):
    def call(x, t, labels, w, negative=None, **how):
        return make(**how)(x, t, fmjax.Guided(labels, w, negative))

    return call


def losses(make, **extra):
    def call(x0, x1, t, labels, **how):
        return make(**how)(1.0, x0, x1, t, labels, **extra)

    return call


def sampled(make):
    """A path, asked for a point, with noise where it takes some."""

    def call(x0, x1, t, **how):
        path = make(**how)
        noise = {name: np.ones_like(x0) for name in path.noise}
        return path.sample(x0, x1, t, noise)

    return call


def drawn(key, index, x1, labels, x0, **how):
    args = fmjax.Draw(**how)(key, index, x1, labels, x0)
    return args.x0, args.x1


def null_of(make):
    return lambda **how: np.asarray(make(**how).null_value(), float)


def joined(x0, x1, t, **how):
    return fmjax.Joint(**how).sample({"a": x0}, {"a": x1}, t).x_t["a"]


def likelihood_of(make):
    """A density by what `make` makes of the other arguments."""

    def call(x1, key, **how):
        spec = samplers.solver_spec("euler", 2)
        return fmjax.log_likelihood(velocity, x1, None, spec, trace=make(**how), key=key).log_p

    return call


def nodes(make):
    return lambda **how: make(**how).nodes()


def solution_of(x1, **how):
    n = len(x1)
    parts = {"nfe": np.ones(n, int), "success": np.ones(n, bool), "accepted": np.ones(n, int)}
    whole = fmjax.Solution(x1, **parts, rejected=np.zeros(n, int), t_end=np.ones(n))
    if how.get("solution") is None:
        how["solution"] = whole
    return fmjax.check_solution(**how).x1


TABLE = {
    "AffinePath": Case(sampled(fmjax.AffinePath), {"schedule": SCHEDULED, **OF_A_PATH}, of("x1")),
    "BrownianBridge": Case(
        sampled(fmjax.BrownianBridge),
        {
            "sigma": SIGMA,
            "softening": Argument(st.floats(0.01, 0.5), "number in [0, 1]").needed,
            **OF_A_PATH,
        },
        of("x1"),
    ),
    "ClassIds": Case(
        null_of(fmjax.ClassIds),
        {
            "num_classes": Argument(st.just(3), "count").needed,
            "null": Argument(st.integers(0, 3), "index from 0").optional,
            "drop_rate": DROP_RATE,
            "names": Argument(
                st.just(("a", "b", "c")), "object", wrong=(("a", "b"), (1, 2, 3), "abc")
            ).optional,
        },
        lambda given: (),
    ),
    "Draw": Case(
        drawn,
        {
            "coupling": Argument(st.just(couplings.independent), "function").needed,
            "time_distribution": Argument(
                st.just(times.Uniform()), "object", wrong=(times.Uniform,)
            ).needed,
            "conditions": Argument(
                st.just(conditions.ClassIds(3)), "object", wrong=(conditions.ClassIds,)
            ).optional,
            "drop_all": Argument(RATE, "number in [0, 1]").needed,
            "stratify": Argument(COUNT, "count").optional,
            "source": LAW,
            "noise": Argument(
                st.sampled_from([{}, {"z": sources.StandardNormal()}]),
                "object",
                "law",
                wrong=({"z": 1.0}, {"z": sources.StandardNormal}, {1: sources.StandardNormal()}),
            ).needed,
            "key": Argument(KEY, "key").needed,
            "index": Argument(INDEX, "places").needed,
            "x1": Argument(X, "batch of any dtype").needed,
            "labels": LABEL,
            "x0": Argument(X, "batch of any dtype").optional,
        },
        of("x1"),
    ),
    "Exact": Case(
        likelihood_of(fmjax.Exact),
        {"chunk": Argument(COUNT, "count").needed, "x1": Argument(X, "finite batch"), "key": ANY},
        each("x1"),
        slow=True,
    ),
    "GeodesicPath": Case(
        sampled(fmjax.GeodesicPath),
        {
            "manifold": Argument(
                SHAPES.map(lambda shape: Euclidean(shape[1:])), "object", wrong=(Euclidean,)
            ).needed,
            "kappa": Argument(
                st.sampled_from([schedules.Linear(), schedules.Cosine()]),
                "object",
                wrong=(schedules.Linear,),
            ).needed,
            **OF_A_PATH,
        },
        of("x1"),
    ),
    "Guided": Case(
        guided(lambda: fmjax.classifier_free(velocity, 3)),
        {name: GUIDANCE[name] for name in ("x", "t", "labels", "w")}
        | {"negative": Argument(st.just(2), "labels").optional},
        of("x"),
    ),
    "Hutchinson": Case(
        likelihood_of(fmjax.Hutchinson),
        {
            "num": Argument(COUNT, "count", "number of probes").needed,
            "kind": Argument(st.sampled_from(["rademacher", "gaussian"]), "choice").needed,
            "chunk": Argument(COUNT, "count").needed,
            "x1": Argument(X, "finite batch"),
            "key": Argument(KEY, "key").needed,
        },
        each("x1"),
        slow=True,
    ),
    "InputError": Case(lambda: len(str(fmjax.InputError("x"))) / 1.0, {}),
    "Joint": Case(
        joined,
        {
            "paths": Argument(
                st.just({"a": paths.AffinePath()}),
                "object",
                wrong=({}, {"a": 1.0}, {"a": paths.AffinePath}, {"a": "linear"}),
            ).needed,
            "weights": Argument(
                st.just({"a": 2.0}), "object", "weight", ({"a": -1.0}, {"a": NAN}, {"b": 1.0})
            ).optional,
            **OF_A_PATH,
        },
        of("x1"),
    ),
    "LossArgs": Case(
        lambda noise, **parts: fmjax.make_loss_fn(network)(
            1.0, *fmjax.LossArgs(**parts, noise=noise)
        ),
        {**OF_PAIRS, "noise": ANY},
        lambda given: (),
    ),
    "NoisyStraight": Case(sampled(fmjax.NoisyStraight), {"sigma": SIGMA, **OF_A_PATH}, of("x1")),
    "Output": Case(
        lambda x, name: fmjax.Output(velocity=x)[name],
        {"x": Argument(X), "name": Argument(st.just("velocity"), "choice", "Output")},
        of("x"),
    ),
    "Solution": Case(
        lambda x1, **others: solution_of(x1),
        dict.fromkeys(fmjax.Solution._fields, ANY) | {"x1": Argument(X)},
        of("x1"),
    ),
    "SolveError": Case(lambda: len(str(fmjax.SolveError("x"))) / 1.0, {}),
    "Span": Case(
        lambda x, s, t: fmjax.diagonal(network)(1.0, x, fmjax.Span(s, t)),
        {"x": Argument(X), "s": Argument(T), "t": Argument(T)},
        of("x"),
    ),
    "StandardNormal": Case(
        lambda key, index, shape, x: (
            fmjax.StandardNormal().sample(key, index, shape),
            fmjax.StandardNormal().log_prob(x),
        ),
        {
            "key": Argument(KEY, "key").needed,
            "index": Argument(INDEX, "places").needed,
            "shape": Argument(st.just((2,)), "object", wrong=((-1,), (0.5,), ("x",))),
            "x": Argument(X, "floats").needed,
        },
    ),
    "Vector": Case(
        null_of(fmjax.Vector),
        {
            "size": Argument(st.just(3), "count").needed,
            "null": Argument(
                st.just((0.5, 1.0, 0.0)), "object", wrong=((1.0,), ("a", "b", "c"), (NAN, 0, 0))
            ).optional,
            "drop_rate": DROP_RATE,
        },
        lambda given: (3,),
    ),
    "as_velocity": Case(
        lambda x, t, labels, **how: fmjax.as_velocity(**how)(1.0, x, t, labels),
        {
            "apply_fn": Argument(NETWORK, "function").needed,
            "schedule": SCHEDULED,
            "prediction": Argument(PREDICTION, "choice").needed,
            "margin": Argument(st.floats(0.01, 0.4), "number in [0, 1]").needed,
            "manifold": Argument(st.none(), "object"),
            "x": Argument(X),
            "t": Argument(T),
            "labels": Argument(LABELS),
        },
        of("x"),
    ),
    "autoguidance": Case(
        guided(fmjax.autoguidance),
        {"velocity": FUNCTION, "weak_velocity": FUNCTION} | GUIDANCE | {"labels": LABEL.optional},
        of("x"),
    ),
    "bits_per_dim": Case(
        fmjax.bits_per_dim,
        {
            "log_p": Argument(X, "floats").needed,
            "dims": Argument(COUNT, "count").needed,
            "bin_width": Argument(POSITIVE, "positive number").needed,
        },
        of("log_p"),
    ),
    "check_solution": Case(
        solution_of,
        {
            "x1": Argument(X),
            "solution": Argument(st.none(), "object"),
            "t1": Argument(RATE, "number").needed,
            "first": Argument(COUNT, "index from 0").needed,
        },
        of("x1"),
    ),
    "classifier_free": Case(
        guided(fmjax.classifier_free),
        {
            "velocity": FUNCTION,
            "null_labels": Argument(st.just(3), "labels", "null (or negative) condition").needed,
            "zero_until": Argument(st.floats(0, 0.9), "number in [0, 1]").needed,
            **GUIDANCE,
        },
        of("x"),
    ),
    "convert": Case(
        fmjax.convert,
        {
            "prediction": Argument(X, "floats", "network").needed,
            "x_t": Argument(X, "floats").needed,
            "t": Argument(T, "times").needed,
            "schedule": SCHEDULED,
            "source": Argument(PREDICTION, "choice", "prediction").needed,
            "target": Argument(PREDICTION, "choice", "prediction").needed,
        },
        of("x_t"),
    ),
    "diagonal": Case(
        lambda apply_fn, x, t: fmjax.diagonal(apply_fn)(1.0, x, t),
        {
            "apply_fn": Argument(NETWORK, "function").needed,
            "x": Argument(X),
            "t": Argument(T),
        },
        of("x"),
    ),
    "invert": Case(
        lambda **given: fmjax.invert(**given).x1,
        {k: v for k, v in SOLVED.items() if k != "x0"} | {"x1": Argument(X, "batch", "x0").needed},
        of("x1"),
        slow=True,
    ),
    "log_likelihood": Case(
        lambda **given: fmjax.log_likelihood(**given).log_p,
        {"velocity": FUNCTION, "x1": Argument(X, "finite batch").needed, **DENSITY},
        each("x1"),
        slow=True,
    ),
    "make_loss_fn": Case(
        losses(fmjax.make_loss_fn),
        {
            "apply_fn": Argument(NETWORK, "function").needed,
            "path": Argument(st.just(paths.AffinePath()), "object").optional,
            "target": Argument(st.just("fm"), "choice").needed,
            "weight": Argument(st.just(lambda t: t), "function").optional,
            "prediction": Argument(PREDICTION, "choice").needed,
            "distance": Argument(st.just(paths.squared), "function").optional,
            **OF_PAIRS,
        },
        lambda given: (),
    ),
    "sample_with_log_prob": Case(
        lambda **given: fmjax.sample_with_log_prob(**given).log_p,
        {"velocity": FUNCTION, "x0": Argument(X, "finite batch").needed, **DENSITY},
        each("x0"),
        slow=True,
    ),
    "scale_from_excess": Case(
        fmjax.scale_from_excess, {"s": Argument(X, "real numbers").needed}, of("s")
    ),
    "sde_spec": Case(
        nodes(fmjax.sde_spec),
        {
            "method": Argument(st.just("churn"), "choice").needed,
            "steps": Argument(COUNT, "count").optional,
            "diffusion": Argument(st.sampled_from(samplers.DIFFUSIONS), "choice").needed,
            "scale": Argument(POSITIVE, "number of at least 0").needed,
            "path": Argument(
                st.just(paths.AffinePath()), "object", wrong=(paths.AffinePath,)
            ).optional,
            "base": Argument(st.sampled_from(["euler", "heun"]), "choice").optional,
            "denoise_last": Argument(st.booleans(), "yes or no").needed,
            "control": Argument(st.just("fixed"), "choice").needed,
        },
    ),
    "solve": Case(lambda **given: fmjax.solve(**given).x1, SOLVED | ENDS, of("x0"), slow=True),
    "solve_sde": Case(
        lambda **given: fmjax.solve_sde(**given).x1,
        SOLVED
        | ENDS
        | {
            "spec": Argument(NOISY, "object", wrong=(samplers.solver_spec(),)).optional,
            "keys": Argument(KEYS, "key", "random key").needed,
            "score": Argument(st.none(), "function"),
        },
        of("x0"),
        slow=True,
    ),
    "solver_spec": Case(
        nodes(fmjax.solver_spec),
        {
            "solver": Argument(st.sampled_from(["euler", "rk4"]), "choice").needed,
            "steps": Argument(st.just(2), "count").optional,
            "control": Argument(st.just("fixed"), "choice").optional,
            "rtol": Argument(st.none(), "positive number"),
            "atol": Argument(st.none(), "positive number"),
            "max_steps": Argument(COUNT, "count").needed,
            "shift": Argument(st.just(1.0), "positive number").needed,
            "grid": GRID,
            "schedule": SCHEDULED.optional._replace(wrong=(schedules.Linear,)),
            "gradient": Argument(st.just("direct"), "choice").needed,
            "checkpoints": Argument(COUNT, "count").needed,
            "manifold": Argument(st.none(), "object"),
        },
    ),
}


def public() -> dict[str, Any]:
    """Every function and class of `fmjax.__all__`; packages and annotations are neither."""
    found = {name: getattr(fmjax, name) for name in fmjax.__all__}
    return {k: v for k, v in found.items() if inspect.isfunction(v) or inspect.isclass(v)}


def test_every_public_name_and_each_of_its_arguments_is_in_the_table():
    assert TABLE.keys() == public().keys()
    others = {getattr(fmjax, name) for name in set(fmjax.__all__) - TABLE.keys()}
    assert all(isinstance(one, ModuleType) or typing.get_origin(one) for one in others)
    for name, value in public().items():
        check_arguments(name, value, TABLE[name])


@pytest.mark.day_cases(10)
@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("case", cases(TABLE))
def test_right_arguments_give_finite_floats_of_the_right_shape(case):
    check_right(case)


@pytest.mark.quick_cases(27)
@pytest.mark.parametrize(("case", "argument"), made_wrong(TABLE))
def test_one_wrong_argument_is_refused_by_its_name(case, argument):
    check_refused(case, argument)
