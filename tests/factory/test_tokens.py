"""What a configuration names where states are tokens, and what it must not name there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fmjax.conditions import ClassIds
from fmjax.data.codecs import Pixels, Vectors
from fmjax.data.token_codecs import Levels, Text, Tokens
from fmjax.discrete import (
    CosineKappa,
    CrossEntropy,
    CubicKappa,
    GeneralisedKL,
    Masked,
    MixturePath,
    Purity,
    ScoreEntropy,
    TauLeap,
    Unmask,
)
from fmjax.errors import InputError
from fmjax.factory import DataSpec, make_experiment, tokens
from fmjax.factory.generation import Guidance, Recipe, check_guidance, check_scales, make_sampler
from fmjax.factory.registry import TOKEN_PATHS, TOKEN_SOLVERS, make_solver
from fmjax.samplers import sde_spec, solver_spec
from fmjax.schedules import Linear, Polynomial
from tests.factory.test_experiment import config

IMAGES = DataSpec(Levels((4, 4, 1), 5), ClassIds(3))
TEXTS = DataSpec(Text(6, tuple("abcd")))
CODES = DataSpec(Tokens((3,), 7), ClassIds(3))
NUMBERS = DataSpec(Vectors(2), ClassIds(3))
DIT = {"model__name": "dit", "model__heads": 2, "model__patch_size": 2, "model__width": 16}
TRANSFORMER = {"model__name": "token_transformer", "model__heads": 2, "model__width": 16}
CASES = {
    "a DiT on images": (IMAGES, DIT),
    "a transformer on texts": (TEXTS, TRANSFORMER | {"labels__conditional": False}),
    "an MLP on codes": (CODES, {}),
}


def experiment(spec, **changes):
    return make_experiment(config(**{"path__name": "mask"} | changes), spec)


def batch_of(spec, n=16):
    rng = np.random.default_rng(0)
    x1 = rng.integers(0, spec.codec.vocabulary, (n, *spec.shape)).astype(np.int32)
    data = np.asarray(spec.codec.decode(x1))
    batch = {"x1": data, "index": np.arange(n, dtype=np.int32)}
    if spec.conditions is not None:
        batch["labels"] = np.arange(n, dtype=np.int32) % 3
    return batch


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize(("spec", "changes"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("name", TOKEN_PATHS)
def test_a_configuration_trains_and_samples_tokens(spec, changes, name):
    built = experiment(spec, path__name=name, **changes)
    vocabulary = spec.codec.vocabulary
    assert built.vocabulary == vocabulary
    assert built.path.vocabulary == vocabulary
    assert not built.has_score
    assert built.source_codec == Tokens(spec.shape, built.path.states)
    assert built.flops > 0
    params = built.init_params(jax.random.key(0))
    args = built.draw(jax.random.key(1), batch_of(spec))
    assert args.x0.dtype == args.x1.dtype == jnp.int32
    loss = jax.jit(built.loss_fn)(params, *args, noise=args.noise)
    # Fresh logits are 0: the mean over masks of log V, times its weight or share.
    assert 0.2 * np.log(vocabulary) < loss < 2 * np.log(vocabulary)
    n = len(args.x1)
    sampler = jax.jit(make_sampler(built, Recipe(make_solver("tau_leap", 4), None)))
    ones = jnp.ones(n)
    index = jnp.arange(n)
    drawn = sampler(params, args.x0, jax.random.key(2), index, args.labels, ones).x1
    assert drawn.dtype == jnp.int32
    assert 0 <= drawn.min() <= drawn.max() < vocabulary


def test_every_name_makes_what_it_says():
    expected = {
        "linear": Linear(), "polynomial": Polynomial(3.0),
        "cosine": CosineKappa(), "cubic": CubicKappa(),
    }  # fmt: skip
    assert tokens.KAPPAS.keys() == expected.keys()
    for name, kappa in expected.items():
        path = tokens.make_token_path(
            config(path__name="mask", path__kappa=name, path__power=3.0), 5
        )
        assert path == MixturePath(5, "mask", kappa, Masked())
    losses = {
        "cross_entropy": CrossEntropy(), "masked": Masked(),
        "score_entropy": ScoreEntropy(), "generalised_kl": GeneralisedKL(),
    }  # fmt: skip
    assert tokens.LOSSES.keys() == losses.keys()
    for name, loss in losses.items():
        path = tokens.make_token_path(config(path__name="mask", loss__tokens=name), 5)
        assert path.loss == loss
    uniform = tokens.make_token_path(config(path__name="uniform"), 5)
    assert uniform == MixturePath(5, "uniform", Linear(), CrossEntropy())


def test_solvers_of_tokens_have_names():
    assert {"unmask": Unmask, "purity": Purity, "tau_leap": TauLeap} == TOKEN_SOLVERS
    for name, kind in TOKEN_SOLVERS.items():
        solver = make_solver(name, 8, temperature=0.5, top_p=0.9, redraws=2.0)
        assert isinstance(solver, kind)
        found = (solver.steps, solver.temperature, solver.top_p, solver.corrector.redraws)
        assert found == (8, 0.5, 0.9, 2.0)
    built = experiment(CODES)
    assert built.solver.describe()["solver"] == "unmask"
    assert built.solver.steps == 64
    with pytest.raises(InputError, match="tokens jump at fixed steps of a grid: leave rtol out"):
        make_solver("unmask", rtol=1e-3)


@pytest.mark.slow
def test_the_network_is_not_told_the_time_where_that_is_asked():
    for told in (True, False):
        built = experiment(CODES, model__time=told)
        params = jax.tree.map(
            lambda a: np.random.default_rng(0).normal(0, 0.3, a.shape).astype(a.dtype),
            jax.eval_shape(built.init_params, jax.random.key(0)),
        )
        x = jnp.full((2, 3), 7)
        logits = built.apply_fn(params, x, jnp.array([0.1, 0.9]), jnp.zeros(2, jnp.int32))
        assert (np.abs(logits[0] - logits[1]).max() > 1e-4) == told
        assert dict(built.architecture)["model.time"] == str(told)


def own_path(c, vocabulary):
    return MixturePath(vocabulary, "uniform", Polynomial(c.power), GeneralisedKL())


def no_path(c, vocabulary):
    return Linear()


class OwnNetwork(nn.Module):
    vocabulary: int = 0

    @nn.compact
    def __call__(self, x, t, labels=None):
        table = self.param("table", nn.initializers.zeros_init(), (self.vocabulary,))
        return jnp.broadcast_to(table, (*x.shape, self.vocabulary))


def own_network(c, conditions):
    return OwnNetwork()


def test_a_path_and_a_network_of_ones_own():
    here = "tests.factory.test_tokens"
    built = experiment(CODES, path__name=f"{here}:own_path", sample__solver="tau_leap")
    assert built.path == own_path(config().path, 7)
    built = experiment(CODES, model__name=f"{here}:own_network")
    assert jax.eval_shape(built.init_params, jax.random.key(0))["table"].shape == (7,)
    with pytest.raises(InputError, match=r"path.name='.*no_path' must be an object with sample"):
        experiment(CODES, path__name=f"{here}:no_path")
    with pytest.raises(InputError, match="takes tokens, and the data are numbers"):
        make_experiment(config(model__name=f"{here}:own_network"), NUMBERS)


REFUSED = {
    "a path of numbers": (CODES, {"path__name": "linear"}, "which take the path mask or uniform"),
    "a path of tokens": (
        NUMBERS,
        {},
        "path.name='mask' is of tokens, and data.name='digits' has v",
    ),
    "a source": (CODES, {"source__name": "uniform"}, "a flow of tokens .* has no source.name"),
    "a coupling": (CODES, {"coupling__name": "ot"}, "has no coupling.name; got 'ot'"),
    "a flow map": (CODES, {"flow_map__name": "meanflow"}, "has no flow_map.name; got 'meanflow'"),
    "a prediction": (CODES, {"loss__prediction": "x1"}, "has no loss.prediction"),
    "a score": (CODES, {"loss__prediction": "score"}, "has no loss.prediction; got 'score'"),
    "a target": (CODES, {"loss__target": "rf"}, "has no loss.target"),
    "a distance": (CODES, {"loss__distance": "adaptive"}, "has no loss.distance"),
    "a weight": (CODES, {"loss__weight": "velocity"}, "has no loss.weight"),
    "dequantised": (IMAGES, DIT | {"data__dequantize": True}, "no pixels to dequantise"),
    "masks that are none": (
        CODES,
        {"path__name": "uniform", "loss__tokens": "masked"},
        r"Masked\(\) is a loss of paths that start from masks",
    ),
    "an unknown loss": (CODES, {"loss__tokens": "mask"}, "unknown loss of tokens 'mask'. Did you"),
    "an unknown kappa": (CODES, {"path__kappa": "square"}, "unknown kappa 'square'"),
    "a solver of velocities": (
        CODES,
        {"sample__solver": "heun"},
        "heun follows a velocity or a score, and this run is of tokens, .*: take --solver=unmask",
    ),
    "a solver of a score": (
        CODES,
        {"sample__solver": "churn"},
        "churn follows a velocity or",
    ),
    "jumps": (CODES, {"sample__solver": "jumps"}, "jumps follows a velocity or a score"),
    "a solver of tokens": (
        NUMBERS,
        {"path__name": "linear", "sample__solver": "unmask"},
        "unmask draws tokens, and this run is of numbers",
    ),
    "a loss of tokens": (
        NUMBERS,
        {"path__name": "linear", "loss__tokens": "masked"},
        "a flow of numbers .* has no loss.tokens; got 'masked'",
    ),
    "a kappa": (NUMBERS, {"path__name": "linear", "path__kappa": "cosine"}, "has no path.kappa"),
    "no time": (NUMBERS, {"path__name": "linear", "model__time": False}, "has no model.time"),
    "a transformer of tokens": (
        NUMBERS,
        {"path__name": "linear"} | TRANSFORMER,
        "model.name='token_transformer' takes tokens, and the data are numbers",
    ),
    "patches of a text": (
        TEXTS,
        TRANSFORMER | {"model__patch_size": 2, "labels__conditional": False},
        "has no such fields; leave out model.patch_size",
    ),
    "a transformer on images": (IMAGES, TRANSFORMER, r"expected \(batch, places\)"),
    "a DiT on a text": (
        TEXTS,
        DIT | {"labels__conditional": False},
        r"expected \(batch, height, width, channels\)",
    ),
    "a size that is missing": (
        TEXTS,
        {"model__name": "token_transformer", "labels__conditional": False},
        "needs model.heads; or take a preset: TokenTransformer-B",
    ),
}


@pytest.mark.parametrize(("spec", "changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_with_tokens_is_refused(spec, changes, message):
    with pytest.raises(InputError, match=message):
        experiment(spec, **changes)


def test_pixels_are_told_how_they_become_tokens():
    with pytest.raises(InputError, match=r"for images data.levels=256, which makes tokens of"):
        experiment(DataSpec(Pixels((4, 4, 1)), ClassIds(3)), **DIT)


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (solver_spec("heun", 5), "heun follows a velocity or a score, and this run is of tokens"),
        (
            sde_spec("stochastic_heun", 5),
            "follows a velocity or a score, and this run is of tokens",
        ),
    ],
)
def test_a_continuous_solver_or_score_is_refused_of_a_run_on_tokens(solver, message):
    with pytest.raises(InputError, match=message):
        make_sampler(experiment(CODES), Recipe(solver))


def test_a_solver_of_tokens_is_refused_of_a_run_on_numbers():
    built = make_experiment(config(), NUMBERS)
    with pytest.raises(InputError, match="purity draws tokens, and this run is of numbers"):
        make_sampler(built, Recipe(make_solver("purity", 4)))


def test_purity_needs_masks():
    with pytest.raises(InputError, match="Purity orders the unmasking of masks"):
        make_sampler(experiment(CODES, path__name="uniform"), Recipe(make_solver("purity", 4)))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"rule": "apg"}, "rule"),
        ({"zero_until": 0.1}, "zero_until"),
        ({"weak": True}, "weak"),
        ({"scales": (("label", 2.0),)}, "scales"),
    ],
)
def test_guidance_of_velocities_is_refused_of_tokens(changes, name):
    message = f"{name} is of guided velocities, and this run is of tokens"
    with pytest.raises(InputError, match=message):
        check_guidance(Guidance(**changes), experiment(CODES))


def test_tokens_take_no_scale_below_0():
    check_scales([0.0, 1.5], experiment(CODES))
    with pytest.raises(InputError, match="tokens take scales of guidance of at least 0; got -1"):
        check_scales([1.0, -1.0], experiment(CODES))


@pytest.mark.slow
def test_guidance_leads_to_the_condition_and_the_negative_one_away():
    """With a network whose logits are its labels, a scale moves the draws as the rates say."""
    built = experiment(CODES, sample__solver="unmask")

    def apply_fn(params, x, t, labels):
        table = jnp.array([[3.0, 0, 0, 0, 0, 0, 0], [0, 3.0, 0, 0, 0, 0, 0], [0.0] * 7, [0.0] * 7])
        return jnp.broadcast_to(table[labels][:, None], (*x.shape, 7))

    built = dataclasses.replace(built, apply_fn=apply_fn)
    n, share = 3000, {}
    for w, negative in ((0.0, None), (1.0, None), (2.0, None), (2.0, 1)):
        sampler = jax.jit(make_sampler(built, Recipe(built.solver, Guidance(negative=negative))))
        x0 = jnp.full((n, 3), 7)
        index, labels = jnp.arange(n), jnp.zeros(n, jnp.int32)
        drawn = sampler({}, x0, jax.random.key(0), index, labels, jnp.full(n, w)).x1
        share[w, negative] = [float(np.mean(drawn == k)) for k in (0, 1)]
    odds = np.exp(3.0)
    for (w, negative), found in share.items():
        away = 1 - w if negative is not None else 0
        weights = np.array([odds**w, odds**away, *[1.0] * 5])
        np.testing.assert_allclose(found, (weights / weights.sum())[:2], atol=0.02)


@pytest.mark.slow
def test_solvers_of_tokens_are_named_before_any_device_is_asked(run_python):
    """Several processes join each other after the flags are read, and before a backend starts."""
    out = run_python(
        """
        from jax._src.xla_bridge import backends_are_initialized
        import fmjax.run.sample.to_disk
        from fmjax.factory.registry import make_solver
        make_solver("unmask", 8, grid="cosine", redraws=1.0, temperature=0.5)
        print(backends_are_initialized())
        """,
        devices=1,
    )
    assert out == "False\n"


def test_a_solver_without_a_path_solves_nothing():
    solver = make_solver("unmask", 2)
    assert solver.path is None
    with pytest.raises(InputError, match="the path of the solver must be"):
        solver.solve(lambda x, t, labels: x, jnp.zeros((1, 2), int))
    assert solver.on_path(MixturePath(5)).path == MixturePath(5)
