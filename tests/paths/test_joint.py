"""The joint path, times of its own for each part, and times of each element."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.draws import Draw
from fmjax.errors import InputError
from fmjax.losses import make_loss_fn, make_per_example_loss_fn
from fmjax.paths import AffinePath, BrownianBridge, Joint
from fmjax.schedules import Cosine, Linear
from fmjax.times import LogitNormal, PerElement, Uniform

KEY, INDEX = jax.random.key(0), jnp.arange(8)
PATH = Joint({"position": BrownianBridge(0.5), "colour": AffinePath(Cosine())})
RNG = np.random.default_rng(1)


def batch():
    shapes = {"position": (8, 3), "colour": (8, 4, 4)}
    return {name: RNG.normal(size=shape).astype("float32") for name, shape in shapes.items()}


X1 = batch()
TIMES = {"position": Uniform(), "colour": PerElement(LogitNormal())}
DRAW = Draw(noise=PATH.noise, time_distribution=TIMES)


def drawn(draw=DRAW):
    return draw(KEY, INDEX, X1)


@pytest.mark.slow
def test_each_part_is_its_own_path_at_its_own_time():
    args = drawn()
    assert args.t["position"].shape == (8,)
    assert args.t["colour"].shape == (8, 4)  # one for each row of the picture
    found = PATH.sample(*list(args)[:3], args.noise)
    for name, noise in (("position", {"z": args.noise["position/z"]}), ("colour", {})):
        alone = PATH.paths[name].sample(args.x0[name], args.x1[name], args.t[name], noise)
        np.testing.assert_array_equal(found.x_t[name], alone.x_t)
        np.testing.assert_array_equal(found.target[name], alone.target)


@pytest.mark.slow
def test_one_time_serves_all_parts():
    args = drawn(Draw(noise=PATH.noise))
    everywhere = dict.fromkeys(PATH.paths, args.t)
    samples = [PATH.sample(args.x0, X1, t, args.noise) for t in (args.t, everywhere)]
    jax.tree.map(np.testing.assert_array_equal, *samples)


def test_the_times_and_the_noise_of_the_parts_are_independent():
    n = 4096
    x1 = {"position": jnp.zeros((n, 1)), "colour": jnp.zeros((n, 1))}
    path = Joint({name: BrownianBridge() for name in x1})
    draw = Draw(noise=path.noise, time_distribution={name: Uniform() for name in x1})
    args = draw(KEY, jnp.arange(n), x1)
    assert set(args.noise) == {"position/z", "colour/z"}
    columns = [*args.t.values(), *(z[:, 0] for z in args.noise.values())]
    columns += [x[:, 0] for x in args.x0.values()]
    correlation = np.corrcoef(np.stack(columns))
    assert np.abs(correlation - np.eye(6)).max() < 5 / np.sqrt(n)


def network(params, x, t, labels):
    return jax.tree.map(lambda leaf: params * leaf, x)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, {"position": 2.0, "colour": 0.5}])
def test_the_loss_is_the_weighted_sum_of_the_losses_of_the_parts(weights):
    args, path = drawn(), Joint(PATH.paths, weights)
    losses = make_per_example_loss_fn(network, path)(1.5, *args, noise=args.noise)
    expected = 0.0
    for name, noise in (("position", {"z": args.noise["position/z"]}), ("colour", {})):
        one = make_per_example_loss_fn(lambda p, x, t, _: p * x, PATH.paths[name])
        weight = 1.0 if weights is None else weights[name]
        part = (args.x0[name], args.x1[name], args.t[name], None)
        expected += weight * one(1.5, *part, noise=noise)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    value, gradient = jax.value_and_grad(make_loss_fn(network, path))(1.5, *args, noise=args.noise)
    assert jnp.isfinite(value)
    assert gradient != 0


def test_a_path_at_times_of_its_elements_is_the_path_of_each_element():
    x0, x1 = RNG.normal(size=(2, 8, 4, 3)).astype("float32")
    t = jnp.asarray(RNG.uniform(size=(8, 4)), jnp.float32)
    for path in (AffinePath(Cosine()), BrownianBridge(0.3)):
        z = {"z": RNG.normal(size=x0.shape).astype("float32")} if path.noise else {}
        whole = path.sample(x0, x1, t, z)
        flat = [jnp.reshape(x, (32, 3)) for x in (x0, x1)]
        rows = path.sample(*flat, t.ravel(), {k: v.reshape(32, 3) for k, v in z.items()})
        np.testing.assert_array_equal(whole.x_t.reshape(32, 3), rows.x_t)
        np.testing.assert_array_equal(whole.target.reshape(32, 3), rows.target)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Joint(PATH.paths, {"position": 1.0}), "weights must be built as the paths are"),
        (lambda: Joint(PATH.paths, {"position": 1.0, "colour": 0.0}), "must be a positive number"),
        (lambda: PATH.sample(X1, X1, jnp.zeros(8)), "takes the noise position/z; got none"),
        (
            lambda: Joint({"a": AffinePath(Linear())}).sample(X1, X1, jnp.zeros(8)),
            "x0 must be built as the paths are",
        ),
        (
            lambda: PATH.sample(X1, X1, {"position": jnp.zeros(8)}, drawn().noise),
            "a prefix of x",
        ),
        (
            lambda: make_loss_fn(lambda p, x, t, y: x["colour"], PATH)(
                None, *drawn(), noise=drawn().noise
            ),
            "what apply_fn returns must be built as the paths are",
        ),
        (lambda: drawn(Draw(time_distribution={"a": Uniform()})), "must be a prefix of x1"),
        (lambda: PerElement(Uniform(), 0), "axes of PerElement"),
        (
            lambda: Draw(time_distribution=PerElement(Uniform(), 3))(KEY, INDEX, X1["colour"]),
            "needs examples of as many axes",
        ),
        (
            lambda: Draw(time_distribution=PerElement(Uniform()), stratify=8)(
                KEY, INDEX, X1["colour"]
            ),
            "cannot be stratified",
        ),
    ],
)
def test_what_does_not_fit_a_joint_path_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
