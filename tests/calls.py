"""How a public name is called, with right and with wrong arguments, for the tests of all of them.

A table has for each name a call, a strategy for every argument, and what each argument is: its
kind. `WRONG` has for each kind what is of another one.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fmjax
from fmjax import paths, samplers, schedules, sources
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


ANY = Argument(st.none())
LABEL = Argument(LABELS, "labels")
FUNCTION = Argument(VELOCITY, "function").needed
OF_PAIRS = {
    "x0": Argument(X, "finite batch"),
    "x1": Argument(X, "finite batch"),
    "t": Argument(T, "times"),
    "labels": LABEL,
}
SCHEDULED = Argument(SCHEDULE, "object", wrong=(schedules.Linear,)).needed
GRID = Argument(st.sampled_from(["uniform", (0.0, 0.3, 1.0)]), "object", "grid").optional


LAW = Argument(SOURCE, "object", wrong=(sources.StandardNormal,)).needed


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


def spoiled(case: Case, name: str) -> st.SearchStrategy:
    """Right arguments with one of them made wrong."""
    one = case.arguments[name]
    wrong = WRONG[one.kind] | st.sampled_from(one.wrong) if one.wrong else WRONG[one.kind]
    return st.tuples(right(case), wrong).map(lambda both: both[0] | {name: both[1]})


def plain(text: str) -> str:
    return text.lower().replace("_", " ")


def cases(table: Mapping[str, Case]) -> list:
    return [
        pytest.param(case, id=name, marks=[pytest.mark.slow] if case.slow else [])
        for name, case in table.items()
    ]


def made_wrong(table: Mapping[str, Case]) -> list:
    return [
        pytest.param(case, argument, id=f"{name}-{argument}")
        for name, case in table.items()
        for argument, one in case.arguments.items()
        if one.kind
    ]


def check_arguments(name: str, value: Any, case: Case) -> None:
    """Checks that the table has every argument of a signature."""
    if isinstance(value, type) and issubclass(value, Exception):
        return
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            assert parameter.name in case.arguments, (name, parameter)


def check_right(case: Case) -> None:
    """Checks that right arguments give finite floats of the right shape."""

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


def check_refused(case: Case, argument: str) -> None:
    """Checks that one wrong argument is refused by its name."""

    @settled(8)
    @given(spoiled(case, argument))
    def check(arguments):
        with pytest.raises(InputError) as caught:
            pytest.fail(f"{arguments[argument]!r} went through: {case.call(**arguments)!r:.80}")
        word = case.arguments[argument].word or argument
        assert plain(word) in plain(str(caught.value)), str(caught.value)

    check()
