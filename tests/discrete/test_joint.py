"""A pair of a number and a token, and of an angle and a token, whose joint law is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fmjax import AffinePath, Draw, InputError, Joint, make_loss_fn, solve_sde
from fmjax.discrete import EulerStep, JointSteps, MixturePath, Unmask
from fmjax.manifolds import Sphere, Torus, UniformOn
from fmjax.paths import GeodesicPath
from fmjax.sources import JointSource, StandardNormal

SHARES = np.array([0.5, 0.3, 0.2])
MEANS, SPREAD = np.array([-2.0, 0.5, 2.0], np.float32), 0.3
PATH = Joint({"number": AffinePath(), "kind": MixturePath(3)})
KINDS = PATH.paths["kind"]


def exact(x, t, labels=None):
    """The velocity of the number and the logits of the kind, given both parts of the state.

    Given the kind k, x1 is N(m_k, s^2) and x0 is N(0, 1), so that x_t is N(t m_k, t^2 s^2 +
    (1 - t)^2). A mask says nothing of the kind.
    """
    place, kind = x["number"], x["kind"]  # (batch, 1) both
    t = t[:, None]
    variance = t**2 * SPREAD**2 + (1 - t) ** 2
    means = jnp.asarray(MEANS)[None]
    logits = jnp.log(jnp.asarray(SHARES, t.dtype))[None] - (place - t * means) ** 2 / (2 * variance)
    known = jnp.where(jax.nn.one_hot(kind[:, 0], 3) > 0, 0.0, -1e9)
    weights = jax.nn.softmax(jnp.where(kind == 3, logits, known))
    centred = (t * SPREAD**2 - (1 - t)) / variance * (place - t * means)
    velocity = jnp.sum(weights * (means + centred), axis=-1, keepdims=True)
    return {"number": velocity, "kind": logits[:, None]}


@pytest.mark.slow
def test_both_parts_have_their_joint_law():
    n = 20_000
    solver = JointSteps({"number": EulerStep(), "kind": Unmask(KINDS)}, 200)
    source = JointSource({"number": StandardNormal(), "kind": KINDS.source})
    shape = {"number": (1,), "kind": (1,)}
    x0 = source.sample(jax.random.key(0), jnp.arange(n), shape)
    keys = jax.random.split(jax.random.key(1), n)
    solution = jax.jit(
        lambda x: solve_sde(exact, x, keys, None, solver.on_path(PATH), save_at=[0.5, 1.0])
    )(x0)
    number, kind = (np.asarray(solution.x1[part])[:, 0] for part in ("number", "kind"))
    assert stats.chisquare(np.bincount(kind, minlength=3), n * SHARES).pvalue > 1e-3
    for k in range(3):
        of_kind = number[kind == k]
        np.testing.assert_allclose(of_kind.mean(), MEANS[k], atol=0.03)
        np.testing.assert_allclose(of_kind.std(), SPREAD, atol=0.03)
    half = np.asarray(solution.trajectory["kind"])[0]
    np.testing.assert_allclose(np.mean(half == 3), 0.5, atol=0.02)
    assert solution.x1["kind"].dtype == jnp.int32
    np.testing.assert_array_equal(solution.nfe, 200)


@pytest.mark.slow
def test_one_network_is_trained_by_one_loss():
    """The loss is the sum of those of the parts, and its gradient reaches both."""
    n = 64
    x1 = {
        "number": jax.random.normal(jax.random.key(2), (n, 1)),
        "kind": jnp.asarray(np.random.default_rng(0).integers(0, 3, (n, 1))),
    }

    def apply_fn(params, x, t, labels):
        found = exact(x, t)
        return {"number": params[0] * found["number"], "kind": params[1] * found["kind"]}

    loss_fn = make_loss_fn(apply_fn, PATH)
    source = JointSource({"number": StandardNormal(), "kind": KINDS.source})
    args = Draw(source=source, noise=loss_fn.noise)(jax.random.key(0), jnp.arange(n), x1)
    assert set(args.noise) == {"kind/jump"}
    loss, grad = jax.jit(jax.value_and_grad(loss_fn))(jnp.ones(2), *args, noise=args.noise)
    assert np.all(np.abs(grad) > 1e-3)
    parts = []
    for name, path in PATH.paths.items():
        noise = {"jump": args.noise["kind/jump"]} if name == "kind" else {}
        x_t = PATH.sample(args.x0, args.x1, args.t, args.noise).x_t
        target = path.sample(args.x0[name], args.x1[name], args.t, noise).target
        parts.append(path.distance(exact(x_t, args.t)[name], target, x_t[name], args.t).mean())
    np.testing.assert_allclose(loss, sum(parts), rtol=1e-5)


@pytest.mark.slow
def test_a_point_of_a_manifold_moves_along_geodesics_beside_a_token():
    sphere = Sphere(2)
    path = Joint({"place": GeodesicPath(sphere), "kind": MixturePath(2)})
    ends = jnp.asarray([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])

    def network(x, t, labels):
        """Kind 0 lies at one end and kind 1 at the other; a mask is led to the middle."""
        kind = x["kind"][:, 0]
        to = jnp.where((kind == 2)[:, None], sphere.project(ends.sum(0))[None], ends[kind % 2])
        u = sphere.log(x["place"], to) / (1 - t)[:, None]
        return {"place": u, "kind": jnp.zeros((len(kind), 1, 2))}

    n = 500
    kinds = path.paths["kind"]
    source = JointSource({"place": UniformOn(sphere), "kind": kinds.source})
    x0 = source.sample(jax.random.key(0), jnp.arange(n), {"place": (3,), "kind": (1,)})
    solver = JointSteps({"place": EulerStep(sphere), "kind": Unmask(kinds)}, 100)
    keys = jax.random.split(jax.random.key(1), n)
    x = solve_sde(network, x0, keys, None, solver).x1
    np.testing.assert_allclose(np.linalg.norm(x["place"], axis=1), 1, atol=1e-5)
    kind = np.asarray(x["kind"])[:, 0]
    near = np.asarray(sphere.dist(x["place"], ends[kind]))
    assert np.mean(near < 1e-2) > 0.97  # but those that turned in the last step
    assert 0.4 < kind.mean() < 0.6


@pytest.mark.slow
def test_a_part_draws_by_the_key_of_its_example():
    solver = JointSteps({"number": EulerStep(), "kind": Unmask(KINDS)}, 5)
    x0 = {"number": jnp.linspace(-1, 1, 6)[:, None], "kind": jnp.full((6, 1), 3)}
    keys = jax.random.split(jax.random.key(0), 6)
    whole = solve_sde(exact, x0, keys, None, solver).x1
    part = jax.tree.map(lambda leaf: leaf[2:4], x0)
    part = solve_sde(exact, part, keys[2:4], None, solver).x1
    np.testing.assert_array_equal(whole["kind"][2:4], part["kind"])
    np.testing.assert_allclose(whole["number"][2:4], part["number"], rtol=1e-5, atol=1e-6)


def test_it_says_what_it_is():
    solver = JointSteps({"number": EulerStep(Torus(1)), "kind": Unmask(KINDS)}, 5)
    said = solver.describe()
    assert said["solver"] == "joint"
    assert said["movers"]["kind"]["solver"] == "unmask"
    assert "Torus" in said["movers"]["number"]
    assert len(solver.evaluation_times()) == 5


X0 = {"number": jnp.zeros((2, 1)), "kind": jnp.full((2, 1), 3)}
KEYS = jax.random.split(jax.random.key(0), 2)
NO_PATH = Unmask(None)  # which `on_path` of a solver of tokens alone would have given
SOLVER = JointSteps({"number": EulerStep(), "kind": Unmask(KINDS)}, 2)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: JointSteps({}), "must have at least one"),
        (lambda: JointSteps({"a": EulerStep}), "is the class EulerStep"),
        (lambda: JointSteps({"a": "euler"}), "a of the movers must be an object with move"),
        (lambda: EulerStep("sphere"), "the manifold must be an object with exp"),
        (lambda: SOLVER.on_path(AffinePath()), "a joint solver follows a Joint path"),
        (
            lambda: SOLVER.on_path(Joint({"number": AffinePath()})),
            "the paths must be built as the movers are",
        ),
        (
            lambda: SOLVER.on_path(Joint({"number": AffinePath(), "kind": AffinePath()})),
            "the path of a token solver must be a path of tokens",
        ),
        (
            lambda: solve_sde(exact, {"number": X0["number"]}, KEYS, None, SOLVER),
            "x0 must be built as the movers are",
        ),
        (
            lambda: solve_sde(exact, X0 | {"kind": X0["number"]}, KEYS, None, SOLVER),
            "x0 must be tokens, integers from 0 to 3",
        ),
        (
            lambda: solve_sde(lambda x, t, y: x["number"], X0, KEYS, None, SOLVER),
            "what the network gives must be built as the movers are",
        ),
        (lambda: solve_sde(exact, X0, None, None, SOLVER), "takes one random key per example"),
        (
            lambda: solve_sde(exact, X0, KEYS, None, JointSteps(SOLVER.movers | {"kind": NO_PATH})),
            "the path of the solver must be an object with sample, such as MixturePath",
        ),
    ],
)
def test_what_is_wrong_is_said(wrong, sentence):
    with pytest.raises(InputError) as caught:
        wrong()
    assert sentence in str(caught.value), str(caught.value)
