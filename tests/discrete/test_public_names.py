"""Every public name of flows of tokens, called with right and with wrong arguments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import strategies as st

from fmjax import Draw, discrete, make_loss_fn, manifolds, schedules
from fmjax.guidance import Guided
from tests.calls import (
    COUNT,
    GRID,
    INDEX,
    KEY,
    KEYS,
    LABEL,
    NAN,
    POSITIVE,
    SCALE,
    SHAPES,
    Argument,
    Case,
    T,
    cases,
    check_refused,
    check_right,
    each,
    made_wrong,
    of,
)
from tests.discrete.small import DISTANCES, P0, curved
from tests.flow_maps.test_public_names import public

V = 3
MASK = discrete.MixturePath(V)
UNIFORM = discrete.MixturePath(V, "uniform", loss=discrete.ScoreEntropy())


def network(x, t, labels=None):
    return jnp.broadcast_to(jnp.arange(1.0 * V), (*x.shape, V))


def apply_fn(params, x, t, labels=None):
    return network(x, t)


def tokens(high):
    return st.builds(
        lambda shape, seed: np.random.default_rng(seed).integers(0, high, shape).astype("int32"),
        SHAPES,
        st.integers(0, 100),
    )


NO_TOKENS = (np.ones((3, 2)), np.full((3, 2), 9), np.full((3, 2), -1), np.ones((3, 2), bool))
X = Argument(tokens(V), "object", wrong=NO_TOKENS)
X1 = Argument(tokens(V), "object", wrong=NO_TOKENS).needed
PATH = Argument(st.just(MASK), "object", "path", wrong=(discrete.MixturePath,)).needed
VOCABULARY = Argument(st.just(V), "count", "vocabulary", wrong=(1,)).needed
KAPPA = Argument(
    st.sampled_from([schedules.Linear(), discrete.CosineKappa()]),
    "object",
    wrong=(schedules.Linear, schedules.Cosine()),
).needed
LOSS = Argument(
    st.sampled_from([discrete.CrossEntropy(), discrete.GeneralisedKL()]),
    "object",
    wrong=(discrete.CrossEntropy,),
).needed
YES = Argument(st.booleans(), "yes or no").needed
NETWORK = Argument(st.just(network), "function", "network").needed
OF_A_PATH = {"x0": X, "x1": X1, "t": Argument(T, "times"), "key": Argument(KEY)}
SOLVED = {"x0": X, "keys": Argument(KEYS, "key", "random key").needed, "labels": LABEL}
OF_A_SOLVER = {
    "steps": Argument(st.just(2), "count").optional,
    "grid": GRID,
    "temperature": Argument(POSITIVE, "positive number").needed,
    "top_p": Argument(st.floats(0.1, 1), "number in [0, 1]", wrong=(0.0,)).needed,
    "corrector": Argument(
        st.just(discrete.Corrector()), "object", wrong=(discrete.Corrector,)
    ).optional,
}


def noise_of(path, x0, x1, key):
    """The noise of a path, shaped as the one of x0 and x1 that is right."""
    right = [x for x in (x1, x0) if getattr(x, "ndim", 0) > 1 and getattr(x, "dtype", 0) == "int32"]
    x = np.zeros_like(right[0])
    return Draw(source=path.source, noise=path.noise)(key, np.arange(len(x)), x).noise


def on_path(make):
    """A path, asked for a point and for its loss."""

    def call(x0, x1, t, key, **how):
        path = make(**how)
        noise = noise_of(path, x0, x1, key)
        x_t, target = path.sample(x0, x1, t, noise)
        return path.distance(network(x_t, t), target, x_t, t)

    return call


def lossy(loss):
    path = discrete.MixturePath(V, loss=loss)
    return Case(
        lambda x0, x1, t, key: make_loss_fn(apply_fn, path)(
            1.0, x0, x1, t, None, noise=noise_of(path, x0, x1, key)
        ),
        OF_A_PATH,
        lambda given: (),
    )


def solver(make, **of_its_own):
    def call(x0, keys, labels, **how):
        return make(**how).solve(network, x0, labels, keys=keys).x1.astype(float)

    return Case(call, {"path": PATH, **OF_A_SOLVER, **SOLVED, **of_its_own}, of("x0"), slow=True)


def source(make, **arguments):
    def call(key, index, **how):
        law = make(**how)
        return law.sample(key, index, (2,)).astype(float)

    drawn = {"key": Argument(KEY, "key").needed, "index": Argument(INDEX, "places").needed}
    return Case(call, {**arguments, **drawn}, lambda given: (*np.shape(given["index"]), 2))


def guided(x, t, labels, w, **how):
    return tuple(discrete.predictor_free(**how)(x, t, Guided(labels, w)))


def filled(x0, keys, tokens, known, **how):
    steps = discrete.Unmask(MASK, 2)
    given = discrete.Given(tokens, known)
    return steps.solve(discrete.infilling(**how), x0, given, keys=keys).x1.astype(float)


def joined(x0, keys, **how):
    return (
        discrete.JointSteps(**how)
        .solve(lambda x, t, labels: {"a": network(x["a"], t)}, {"a": x0}, keys=keys)
        .x1["a"]
        .astype(float)
    )


def moved(manifold):
    x = manifolds.Sphere(2).uniform(jax.random.key(0), (4,))
    half = jnp.full(4, 0.5)
    return discrete.EulerStep(manifold).move(jnp.ones_like(x), x, half, half + 0.1, None)


def points(seed):
    return np.random.default_rng(seed).dirichlet([1.0] * V, (4, 2)).astype("float32")


POINTS = Argument(st.integers(0, 99).map(points), "floats").needed
TIMES_OF_4 = np.full(4, 0.5, "float32")

TABLE = {
    "CategoricalTokens": source(
        discrete.CategoricalTokens,
        p=Argument(st.just(P0), "object", wrong=((0.5, 0.6), (1.5, -0.5), (1.0,))).needed,
    ),
    "Corrector": Case(
        lambda t, **how: discrete.Corrector(**how).probability(0.5 * t, t),
        {
            "redraws": Argument(POSITIVE, "positive number").needed,
            "a": Argument(POSITIVE, "number of at least 0").needed,
            "b": Argument(POSITIVE, "number of at least 0").needed,
            "t": Argument(T),
        },
        of("t"),
    ),
    "CosineKappa": Case(lambda t: discrete.CosineKappa().alpha(t), {"t": Argument(T)}, of("t")),
    "CrossEntropy": lossy(discrete.CrossEntropy()),
    "CubicKappa": Case(
        lambda t, **how: discrete.CubicKappa(**how).alpha(t),
        {
            "a": Argument(st.floats(0, 3), "number", wrong=(-0.5,)).needed,
            "b": Argument(st.floats(0, 3), "number", wrong=(-0.5,)).needed,
            "t": Argument(T),
        },
        of("t"),
    ),
    "DirichletPoints": Case(
        lambda key, index, **how: discrete.DirichletPoints(**how).sample(key, index, (2, V)),
        {
            "vocabulary": VOCABULARY,
            "concentration": Argument(POSITIVE, "positive number").needed,
            "key": Argument(KEY, "key").needed,
            "index": Argument(INDEX, "places").needed,
        },
        lambda given: (*np.shape(given["index"]), 2, V),
    ),
    "EulerStep": Case(
        moved,
        {"manifold": Argument(st.just(manifolds.Sphere(2)), "object", wrong=(manifolds.Sphere,))},
        lambda given: (4, 3),
    ),
    "GeneralisedKL": lossy(discrete.GeneralisedKL()),
    "Given": Case(
        lambda x0, keys, **how: filled(x0, keys, denoiser=network, path=MASK, **how),
        {
            "x0": X,
            "keys": Argument(KEYS),
            "tokens": Argument(tokens(V)),
            "known": Argument(SHAPES.map(lambda shape: np.ones(shape, bool))),
        },
        of("x0"),
        slow=True,
    ),
    "GuidedLogits": Case(
        lambda reference, conditional, w: (
            discrete.Unmask(MASK, 2)
            .move(
                discrete.GuidedLogits(reference, conditional, w),
                np.full((4, 2), V),
                TIMES_OF_4,
                TIMES_OF_4 + 0.1,
                jax.random.split(jax.random.key(0), 4),
            )
            .astype(float)
        ),
        {
            "reference": Argument(POINTS.right),
            "conditional": Argument(POINTS.right),
            "w": Argument(st.just(jnp.full(4, 1.5))),
        },
        lambda given: (4, 2),
    ),
    "JointSteps": Case(
        joined,
        {
            "movers": Argument(
                st.just({"a": discrete.Unmask(MASK)}), "object", wrong=({}, {"a": discrete.Unmask})
            ).needed,
            "steps": OF_A_SOLVER["steps"],
            "grid": GRID,
            "x0": X,
            "keys": SOLVED["keys"],
        },
        of("x0"),
        slow=True,
    ),
    "MaskTokens": source(discrete.MaskTokens, vocabulary=VOCABULARY),
    "Masked": lossy(discrete.Masked()),
    "MetricPath": Case(
        on_path(discrete.MetricPath),
        {
            "distances": Argument(
                st.just(DISTANCES),
                "object",
                wrong=(np.ones((3, 3)), np.zeros((3, 3)), DISTANCES * NAN),
            ).needed,
            "c": Argument(POSITIVE, "positive number").needed,
            "a": Argument(st.floats(0.3, 2), "positive number").needed,
            "loss": LOSS._replace(wrong=(*LOSS.wrong, discrete.Masked(), discrete.ScoreEntropy())),
            "add_likelihood": YES._replace(word="add_likelihood"),
            **OF_A_PATH,
        },
        each("x1"),
    ),
    "MixturePath": Case(
        on_path(discrete.MixturePath),
        {
            "vocabulary": VOCABULARY,
            "start": Argument(
                st.sampled_from(["mask", "uniform", discrete.CategoricalTokens(P0)]),
                "object",
                "source",
                wrong=(discrete.UniformTokens, discrete.UniformTokens(4)),
            ).needed,
            "kappa": KAPPA,
            "loss": LOSS,
            "add_likelihood": YES,
            **OF_A_PATH,
        },
        each("x1"),
    ),
    "OwnPath": Case(
        on_path(discrete.OwnPath),
        {
            "vocabulary": VOCABULARY,
            "weights_fn": Argument(st.just(curved), "function").needed,
            "loss": LOSS,
            "add_likelihood": YES,
            **OF_A_PATH,
        },
        each("x1"),
    ),
    "Purity": solver(
        discrete.Purity,
        randomness=Argument(st.floats(0, 3), "number of at least 0").needed,
        path=PATH._replace(wrong=(*PATH.wrong, UNIFORM)),
    ),
    "ScoreEntropy": lossy(discrete.ScoreEntropy()),
    "SimplexPath": Case(
        lambda x0, x1, t, **how: discrete.SimplexPath(**how).sample(x0, x1, t).x_t,
        {
            "vocabulary": VOCABULARY,
            "geometry": Argument(st.sampled_from(["linear", "fisher"]), "choice").needed,
            "kappa": KAPPA,
            "x0": POINTS._replace(kind=""),
            "x1": POINTS._replace(kind=""),
            "t": Argument(st.just(TIMES_OF_4), "times"),
        },
        of("x1"),
    ),
    "TauLeap": solver(discrete.TauLeap),
    "TokenLikelihood": Case(
        lambda **given: discrete.TokenLikelihood(**given).log_p,
        {"log_p": Argument(T), "std_error": Argument(st.none()), "nfe": Argument(st.none())},
        of("log_p"),
    ),
    "UniformTokens": source(discrete.UniformTokens, vocabulary=VOCABULARY),
    "Unmask": solver(discrete.Unmask),
    "corners": Case(
        discrete.corners,
        {
            "tokens": X1,
            "vocabulary": VOCABULARY,
            "smoothing": Argument(st.floats(0, 0.9), "number in [0, 1]", wrong=(1.0,)).needed,
        },
        lambda given: (*np.shape(given["tokens"]), V),
    ),
    "embedding_distances": Case(
        discrete.embedding_distances,
        {
            "embedding": Argument(
                st.integers(0, 9).map(lambda s: np.random.default_rng(s).normal(size=(4, 2))),
                "object",
                wrong=(np.ones(3), np.ones((1, 2)), np.full((3, 2), NAN), np.ones((3, 2))),
            ).needed,
            "power": Argument(POSITIVE, "positive number").needed,
        },
        lambda given: (4, 4),
    ),
    "exact_probabilities": Case(
        discrete.exact_probabilities,
        {
            "denoiser": NETWORK,
            "path": PATH,
            "length": Argument(st.just(1), "count").needed,
            "label": Argument(st.none()),
            "t": Argument(st.sampled_from([0.0, 0.5, 1.0]), "number in [0, 1]").needed,
            "steps": Argument(st.just(10), "count").needed,
        },
        lambda given: (V + 1,),
        slow=True,
    ),
    "infilling": Case(
        lambda x0, keys, **how: filled(
            x0, keys, np.zeros(np.shape(x0), int), np.ones(np.shape(x0), bool), **how
        ),
        {"denoiser": NETWORK, "path": PATH, "x0": X, "keys": Argument(KEYS)},
        of("x0"),
        slow=True,
    ),
    "nearest_corners": Case(
        lambda x: discrete.nearest_corners(x).astype(float), {"x": POINTS}, lambda given: (4, 2)
    ),
    "predictor_free": Case(
        guided,
        {
            "denoiser": NETWORK,
            "null_labels": Argument(st.just(3), "labels", "null (or negative) condition").needed,
            "schedule": Argument(st.sampled_from(["constant", "cosine"]), "choice").needed,
            "interval": Argument(st.just((0.2, 0.8)), "times on the way").optional,
            "x": Argument(X.right),
            "t": Argument(T, "times"),
            "labels": LABEL.needed,
            "w": Argument(SCALE.map(abs), "scales", wrong=(-1.0,)).needed,
        },
        slow=True,
    ),
    "simplex_velocity": Case(
        lambda x, **how: discrete.simplex_velocity(**how)(x, TIMES_OF_4, None),
        {
            "denoiser": Argument(st.just(lambda x, t, labels: 2 * x), "function", "network").needed,
            "path": Argument(st.just(discrete.SimplexPath(V)), "object", "simplex").needed,
            "x": POINTS._replace(kind=""),
        },
        of("x"),
    ),
    "token_log_likelihood": Case(
        lambda **given: discrete.token_log_likelihood(**given).log_p,
        {
            "denoiser": NETWORK,
            "path": PATH,
            "x1": X1,
            "labels": LABEL,
            "key": Argument(KEY, "key").needed,
            "times": Argument(COUNT, "count").needed,
            "bound": Argument(
                st.just(discrete.GeneralisedKL()),
                "object",
                wrong=(discrete.GeneralisedKL, discrete.CrossEntropy()),
            ).optional,
        },
        each("x1"),
        slow=True,
    ),
}

ABSTRACT = {"TokenLoss", "TokenPath", "TokenSolver"}
"""What the others are made of, tested through them."""


def fields(value):
    """The names of the arguments of a public name."""
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value) if field.init]
    code = getattr(value, "__code__", None)
    if code is None:
        return list(getattr(value, "_fields", ()))
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def test_every_public_name_and_each_of_its_arguments_is_in_the_table():
    found = {k: v for k, v in public(discrete).items() if k not in ABSTRACT}
    assert found.keys() == TABLE.keys()
    for name, value in found.items():
        missing = set(fields(value)) - set(TABLE[name].arguments)
        assert missing <= {"labels"}, (name, missing)


@pytest.mark.day_cases(10)
@pytest.mark.slow
@pytest.mark.parametrize("case", cases(TABLE))
def test_right_arguments_give_finite_floats_of_the_right_shape(case):
    check_right(case)


@pytest.mark.quick_cases(12)
@pytest.mark.parametrize(("case", "argument"), made_wrong(TABLE))
def test_one_wrong_argument_is_refused_by_its_name(case, argument):
    check_refused(case, argument)
