"""What is frozen stays to the bit and costs the optimiser nothing; what is not is trained alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax import Draw, InputError, make_loss_fn
from fmjax.names import named_leaves
from fmjax.training import fit
from fmjax.training.frozen import joined, split
from fmjax.training.optimizer import make_optimizer
from fmjax.training.state import init_state
from fmjax.training.step import make_step
from tests.training.test_fit import PARAMS, USUAL, apply_fn, points

FROZEN = ("a", "[ce]")
LOSS = make_loss_fn(apply_fn)
BATCH = {"index": jnp.arange(8), "x1": jnp.asarray(points(8)["x"], jnp.float32)}
BATCH["labels"] = jnp.asarray(points(8)["labels"])


def draw(key, batch):
    return Draw()(key, batch["index"], batch["x1"], batch["labels"])


def trained(**changes):
    return fit(apply_fn, PARAMS, points(), **{**USUAL, "frozen": FROZEN, **changes})


def test_a_split_tree_comes_together_again():
    tree = {"a": {"x": 1, "y": 2}, "b": 3}
    one, other = split(tree, ("a/x", "b"))
    assert (jax.tree.leaves(one), jax.tree.leaves(other)) == ([2], [1, 3])
    assert joined(one, other) == tree
    assert joined(*split(tree, ())) == tree


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"accumulate": 2},
        {"parallel": "pmap"},
        {"optimizer": make_optimizer(3e-3, weight_decay=0.1, skip_above=9.0)},
        {"steps_per_call": 2},
    ],
    ids=["plain", "accumulated", "pmap", "all that make_optimizer does", "two in a call"],
)
def test_what_is_frozen_stays_to_the_bit(how):
    # -0 + 0 is 0: an update of zero would not leave it as it is.
    given = {**PARAMS, "a": PARAMS["a"].at[0, 0].set(-0.0)}
    state = fit(apply_fn, given, points(), **{**USUAL, "frozen": FROZEN, **how})
    for params in (state.params, state.ema_params):
        for name, leaf in params.items():
            same = np.asarray(leaf).tobytes() == np.asarray(given[name]).tobytes()
            assert same == (name != "b"), name


def test_the_average_of_what_is_trained_is_as_ever():
    state, ema = init_state(PARAMS, optax.sgd(0.1), frozen=FROZEN), PARAMS["b"]
    step = jax.jit(make_step(LOSS, draw, optax.sgd(0.1), ema=0.9, frozen=FROZEN))
    for k in range(3):
        state, _ = step(state, jax.random.key(1), BATCH)
        d = min(0.9, (1 + k) / (10 + k))
        ema = d * ema + (1 - d) * state.params["b"]
    np.testing.assert_allclose(state.ema_params["b"], ema, rtol=1e-6)


def test_an_average_that_is_not_yet_there_goes_on_to_what_is_frozen():
    state = init_state(PARAMS, optax.sgd(0.1), frozen=FROZEN)
    state = state._replace(ema_params={**state.ema_params, "c": jnp.zeros(16)})
    step = jax.jit(make_step(LOSS, draw, optax.sgd(0.1), ema=0.5, frozen=FROZEN))
    for _ in range(9):
        state, _ = step(state, jax.random.key(1), BATCH)
    assert np.all(np.abs(state.ema_params["c"] - PARAMS["c"]) < 0.1)


@pytest.mark.slow
def test_the_optimiser_has_moments_of_what_is_trained_alone():
    def bytes_of(state):
        return sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state))

    extra = bytes_of(trained()) - 2 * PARAMS["b"].nbytes
    assert extra <= 8  # counts of steps
    assert set(named_leaves(trained().opt_state[0].mu)) == {"b"}


@pytest.mark.slow
def test_the_norm_is_that_of_the_trained_gradient():
    args = tuple(draw(jax.random.fold_in(jax.random.key(1), 0), BATCH))
    grads = jax.grad(LOSS)(PARAMS, *args)
    norm = float(jnp.linalg.norm(grads["b"]))
    assert norm < 0.99 * float(optax.tree.norm(grads))
    for clip in (None, norm / 2):
        chain = optax.sgd(1.0)
        if clip is not None:
            chain = optax.chain(optax.clip_by_global_norm(clip), chain)
        state = init_state(PARAMS, chain, frozen=FROZEN)
        new, metrics = make_step(LOSS, draw, chain, frozen=FROZEN)(state, jax.random.key(1), BATCH)
        moved = np.linalg.norm(new.params["b"] - PARAMS["b"])
        assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-5)
        assert moved == pytest.approx(norm if clip is None else clip, rel=1e-4)


@pytest.mark.slow
def test_the_others_are_trained_as_if_the_frozen_were_numbers():
    state, b = trained(), PARAMS["b"]

    def apply_b(params, x, t, labels):
        return apply_fn({**PARAMS, "b": params}, x, t, labels)

    alone = fit(apply_b, b, points(), **{**USUAL, "loss_fn": make_loss_fn(apply_b)})
    np.testing.assert_allclose(state.params["b"], alone.params, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_bit_and_with_the_same_frozen(tmp_path):
    how = {"workdir": tmp_path / "run", "checkpoint_every": 2}
    trained(steps=4, **how)
    found, expected = trained(steps=6, **how), trained(steps=6)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    for other in ((), ("a",)):
        with pytest.raises(InputError, match=r"holds another training, with .*frozen"):
            trained(steps=8, frozen=other, **how)


def test_a_state_of_other_frozen_parameters_is_refused():
    state = trained()
    with pytest.raises(InputError, match="or of other frozen parameters"):
        fit(apply_fn, state, points(), **{**USUAL, "steps": 8})


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (("b", "d*"), r"frozen: no parameter matches 'd\*'; there are a, b, c, e and 4 in all"),
        ("a", "frozen must be a tuple of patterns"),
        (("*",), r"frozen=\('\*',\) matches all 4 parameters, and nothing is left to train"),
    ],
)
def test_wrong_patterns_are_refused(frozen, message, tmp_path):
    with pytest.raises(InputError, match=message):
        trained(frozen=frozen, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
