"""Every public name of fmjax, called with right and with wrong arguments.

The table has for each name a call, a strategy for every argument, and what each argument is: its
kind. Right arguments give finite floats of the right shape. One argument of another kind gives an
`InputError` that names it, whatever came in its place: never an error of Python's or of jax's own.
"""

import inspect
import typing
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fmjax
from fmjax import conditions, couplings, paths, samplers, schedules, sources, times
from fmjax.errors import InputError

NAN, INF = float("nan"), float("inf")
SHAPES = st.shared(st.sampled_from([(3, 2), (2, 2, 1)]), key="the shape of the batch")
SEEDS = st.integers(0, 100)


def velocity(x, t, labels=None):
    return -x


def network(params, x, t, labels=None):
    return params * x


# Right arguments.

X = st.builds(
    lambda shape, seed: np.random.default_rng(seed).normal(size=shape).astype("float32"),
    SHAPES,
    SEEDS,
)
T = st.builds(
    lambda shape, seed: np.random.default_rng(seed).uniform(0.1, 0.9, shape[0]).astype("float32"),
    SHAPES,
    SEEDS,
)
LABELS = SHAPES.map(lambda shape: np.arange(shape[0]) % 3)
INDEX = SHAPES.map(lambda shape: np.arange(shape[0]))
KEY = SEEDS.map(jax.random.key)
KEYS = st.builds(lambda key, shape: jax.random.split(key, shape[0]), KEY, SHAPES)
POSITIVE = st.floats(0.1, 10)
COUNT = st.integers(1, 5)
RATE = st.floats(0, 1)
SCHEDULE = st.sampled_from([schedules.Linear(), schedules.Cosine(), schedules.VP()])
PREDICTION = st.sampled_from(["velocity", "x1", "x0", "v"])
SPEC = st.sampled_from([samplers.solver_spec("euler", 2), samplers.solver_spec("heun", 3)])
NOISY = st.sampled_from([samplers.sde_spec("euler_maruyama", 2), samplers.sde_spec("churn", 2)])
SOURCE = st.just(sources.StandardNormal())
VELOCITY, NETWORK = st.just(velocity), st.just(network)
TRACE = st.just(fmjax.Hutchinson(2))
SCALE = st.floats(-1, 5)

# Wrong arguments. Of every kind but functions a text, an object and a complex number are wrong.

TEXTS = st.sampled_from(["", "x", "0.5", "uniform?"])
OTHERS = st.sampled_from([object(), 1j, b"x"])
NUMBERS = st.sampled_from([0, 1.0, NAN])
ARRAYS = st.sampled_from([np.ones(2), np.ones((2, 2))])
COMPLEX, EMPTY = np.ones((3, 2), "complex64"), np.ones((0, 2), "float32")
NO_FLOATS = st.sampled_from([np.ones((3, 2), int), COMPLEX, np.asarray(["a", "b"])])
NOT_ONE_NUMBER = TEXTS | OTHERS | ARRAYS | st.sampled_from([NAN, INF, -INF])
TOO_MANY = st.sampled_from([np.full(7, 0.5, "float32"), np.full((2, 7), 0.5, "float32")])
WRONG: Mapping[str, st.SearchStrategy] = {
    "positive number": NOT_ONE_NUMBER | st.floats(max_value=0),
    "number of at least 0": NOT_ONE_NUMBER | st.floats(max_value=-0.01),
    "number in [0, 1]": NOT_ONE_NUMBER | st.floats(max_value=-0.01) | st.floats(min_value=1.01),
    "number": NOT_ONE_NUMBER,
    "count": NOT_ONE_NUMBER | st.integers(max_value=0) | st.floats(0.5, 9.5) | st.just(True),
    "index from 0": NOT_ONE_NUMBER | st.integers(max_value=-1) | st.floats(0.5, 9.5),
    "choice": st.text("#?e ", max_size=3)
    | OTHERS
    | NUMBERS
    | ARRAYS
    | st.sampled_from([["heun"], {}]),
    "yes or no": TEXTS | OTHERS | ARRAYS | st.sampled_from([2, NAN]),
    "function": TEXTS | NUMBERS | ARRAYS | st.sampled_from([1j, object(), paths.AffinePath]),
    "object": TEXTS | NUMBERS | ARRAYS | OTHERS,
    "batch": TEXTS | OTHERS | NO_FLOATS | st.sampled_from([EMPTY, np.float32(1), [], {}]),
    "finite batch": TEXTS | OTHERS | NO_FLOATS | st.sampled_from([EMPTY, np.full((3, 2), NAN)]),
    "floats": TEXTS | OTHERS | NO_FLOATS,
    "batch of any dtype": TEXTS | OTHERS | TOO_MANY | st.just(EMPTY),
    "real numbers": TEXTS | OTHERS | st.just(COMPLEX),
    "times": TEXTS | OTHERS | NO_FLOATS | TOO_MANY | st.just(EMPTY),
    "scales": TEXTS | OTHERS | TOO_MANY | st.sampled_from([COMPLEX, EMPTY]),
    "labels": st.sampled_from(["x", b"x", object(), np.arange(7), np.arange(14).reshape(7, 2)]),
    "key": TEXTS | OTHERS | NUMBERS | ARRAYS | SEEDS,
    "places": TEXTS | OTHERS | NUMBERS | ARRAYS,
    "two different times": NOT_ONE_NUMBER,
    "times on the way": TEXTS | OTHERS | NUMBERS | st.sampled_from([[], [0.9, 0.1], [2.0], [NAN]]),
}


class Argument(NamedTuple):
    """An argument of a call.

    Attributes:
        right: the strategy of what is right.
        kind: of what is wrong, a name of `WRONG`; "" where anything is right.
        word: how a message calls it; its name if "".
        wrong: more that is wrong of this one alone.
    """

    right: st.SearchStrategy
    kind: str = ""
    word: str = ""
    wrong: tuple = ()

    @property
    def optional(self) -> "Argument":
        """The argument, left out at times, and then None."""
        return self._replace(right=st.none() | self.right)

    @property
    def needed(self) -> "Argument":
        """The argument, for which None is wrong."""
        return self._replace(wrong=(*self.wrong, None))


class Case(NamedTuple):
    """How a public name is called.

    Attributes:
        call: a function of the arguments by name, which gives arrays.
        arguments: by name; all those of the signature, and those of calling the result.
        shape: from the arguments to the shape of each array; None for any.
        slow: whether a right call compiles for a while.
    """

    call: Callable[..., Any]
    arguments: Mapping[str, Argument]
    shape: Callable[[dict], tuple[int, ...]] | None = None
    slow: bool = False


def of(*names: str) -> Callable[[dict], tuple[int, ...]]:
    return lambda given: np.shape(given[names[0]])


def each(name: str) -> Callable[[dict], tuple[int, ...]]:
    return lambda given: np.shape(given[name])[:1]


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


ANY = Argument(st.none())
LABEL = Argument(LABELS, "labels")
FUNCTION = Argument(VELOCITY, "function").needed
OF_PAIRS = {
    "x0": Argument(X, "finite batch"),
    "x1": Argument(X, "finite batch"),
    "t": Argument(T, "times"),
    "labels": LABEL,
}
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
    "source": Argument(SOURCE, "object", wrong=(sources.StandardNormal,)).needed,
}
SCHEDULED = Argument(SCHEDULE, "object", wrong=(schedules.Linear,)).needed
SIGMA = Argument(POSITIVE, "positive number").needed
DROP_RATE = Argument(RATE, "number in [0, 1]").needed
GRID = Argument(st.sampled_from(["uniform", (0.0, 0.3, 1.0)]), "object", "grid").optional


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
            "source": DENSITY["source"],
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
        if issubclass(type(value), type) and issubclass(value, Exception):
            continue
        for parameter in inspect.signature(value).parameters.values():
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                assert parameter.name in TABLE[name].arguments, (name, parameter)


def right(case: Case) -> st.SearchStrategy:
    return st.fixed_dictionaries({name: one.right for name, one in case.arguments.items()})


def settled(examples: int) -> Callable:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # each example is small already
        suppress_health_check=list(HealthCheck),
    )


EVERY = [
    pytest.param(case, id=name, marks=[pytest.mark.slow] if case.slow else [])
    for name, case in TABLE.items()
]


@pytest.mark.parametrize("case", EVERY)
def test_right_arguments_give_finite_floats_of_the_right_shape(case):
    @settled(3)
    @given(right(case))
    def check(arguments):
        found = jax.tree.leaves(case.call(**arguments))
        assert found
        for leaf in found:
            assert jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
            assert np.all(np.isfinite(leaf))
            if case.shape is not None:
                assert np.shape(leaf) == case.shape(arguments)

    check()


def spoiled(case: Case, name: str) -> st.SearchStrategy:
    """Right arguments with one of them made wrong."""
    one = case.arguments[name]
    wrong = WRONG[one.kind] | st.sampled_from(one.wrong) if one.wrong else WRONG[one.kind]
    return st.tuples(right(case), wrong).map(lambda both: both[0] | {name: both[1]})


def plain(text: str) -> str:
    return text.lower().replace("_", " ")


MADE_WRONG = [
    pytest.param(case, argument, id=f"{name}-{argument}")
    for name, case in TABLE.items()
    for argument, one in case.arguments.items()
    if one.kind
]


@pytest.mark.parametrize(("case", "argument"), MADE_WRONG)
def test_one_wrong_argument_is_refused_by_its_name(case, argument):
    @settled(8)
    @given(spoiled(case, argument))
    def check(arguments):
        with pytest.raises(InputError) as caught:
            pytest.fail(f"{arguments[argument]!r} went through: {case.call(**arguments)!r:.80}")
        word = case.arguments[argument].word or argument
        assert plain(word) in plain(str(caught.value)), str(caught.value)

    check()
