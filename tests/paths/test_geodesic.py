"""The geodesic path: on it, at the right pace, with the velocity that is its derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.draws import Draw
from fmjax.errors import InputError
from fmjax.losses import make_loss_fn, make_per_example_loss_fn
from fmjax.manifolds import (
    SO3,
    SPD,
    Euclidean,
    FlatProduct,
    Hyperbolic,
    Product,
    Simplex,
    Sphere,
    Torus,
    UniformOn,
    WrappedNormal,
    in_tangent_space,
)
from fmjax.paths import Adaptive, AffinePath, GeodesicPath, Joint, PseudoHuber, manifold_of
from fmjax.predictions import as_velocity, change_path, convert
from fmjax.schedules import VP, Cosine, Linear
from fmjax.sources import JointSource, StandardNormal

POSE = Product({"position": Euclidean(3), "rotation": SO3()})
MANIFOLDS = {
    "euclidean": Euclidean(3),
    "sphere": Sphere(2),
    "torus": Torus(3),
    "so3": SO3(),
    "hyperbolic": Hyperbolic(2),
    "spd": SPD(2),
    "simplex": Simplex(2),
    "pose": POSE,
    "flat pose": FlatProduct((Euclidean(3), SO3())),
}
EVERY = pytest.mark.parametrize("name", MANIFOLDS)
SPHERE, PATH = Sphere(2), GeodesicPath(Sphere(2))
KEY, INDEX = jax.random.key(0), jnp.arange(6)
T = jnp.asarray([0.0, 0.1, 0.35, 0.6, 0.9, 1.0])


def points(manifold, seed, scale=0.7):
    return WrappedNormal(manifold, scale=scale).sample(jax.random.key(seed), INDEX, manifold.shape)


def near(found, expected, atol=2e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4), found, expected
    )


@pytest.mark.day_cases(6)
@pytest.mark.slow
@EVERY
@pytest.mark.parametrize("kappa", [Linear(), Cosine()], ids=["linear", "cosine"])
def test_the_velocity_is_the_logarithm_carried_along_and_as_fast_as_kappa_says(name, kappa):
    manifold = MANIFOLDS[name]
    x0, x1 = points(manifold, 0), points(manifold, 1)
    x_t, target = GeodesicPath(manifold, kappa).sample(x0, x1, T)
    direction = manifold.log(x0, x1)
    carried = manifold.transport(x0, x_t, direction)
    rate = jnp.broadcast_to(kappa.d_alpha(T), T.shape)
    expected = jax.tree.map(lambda u: rate.reshape(-1, *[1] * (u.ndim - 1)) * u, carried)
    near(target, expected)
    manifold.check("x_t", x_t)
    near(manifold.dist(x0, x_t), kappa.alpha(T) * manifold.dist(x0, x1), 1e-4)
    near(jax.tree.map(lambda x: x[0], x_t), jax.tree.map(lambda x: x[0], x0))
    near(jax.tree.map(lambda x: x[-1], x_t), jax.tree.map(lambda x: x[-1], x1))


@pytest.mark.slow
def test_on_euclidean_space_it_is_the_straight_path_and_measures_as_it_does():
    manifold, shape = Euclidean((4, 4, 1)), (4, 4, 1)
    draw = Draw()(KEY, INDEX, jax.random.normal(jax.random.key(1), (6, *shape)))
    straight, geodesic = AffinePath(), GeodesicPath(manifold)
    found, expected = (path.sample(draw.x0, draw.x1, draw.t) for path in (geodesic, straight))
    near(found, expected, 1e-6)
    wrong = expected.target + 0.3 * draw.x0
    args = (wrong, expected.target, expected.x_t, draw.t)
    np.testing.assert_array_equal(geodesic.distance(*args), straight.distance(*args))


@pytest.mark.slow
@EVERY
def test_values_and_gradients_are_finite_at_coincident_and_farthest_points(name):
    manifold = MANIFOLDS[name]
    x0 = points(manifold, 0)
    ends = [x0]
    if isinstance(manifold, Sphere):
        ends.append(-x0)
    if isinstance(manifold, Torus):
        ends.append(manifold.project(x0 + jnp.pi))
    if isinstance(manifold, SO3):
        ends.append(x0 @ jnp.diag(jnp.asarray([1.0, -1.0, -1.0])))
    for x1 in ends:
        found = GeodesicPath(manifold).sample(x0, x1, T)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(found))
        manifold.check("x_t", found.x_t)
        speed = jnp.sqrt(manifold.inner(found.x_t, found.target, found.target))
        near(speed, manifold.dist(x0, x1), 1e-4)


@pytest.mark.slow
def test_an_antipodal_pair_is_joined_along_the_direction_that_log_takes():
    x0 = points(SPHERE, 0)
    x_t = PATH.sample(x0, -x0, jnp.full(6, 0.5)).x_t
    near(x_t, SPHERE.exp(x0, SPHERE.log(x0, -x0) / 2))
    near(SPHERE.dist(x0, x_t), jnp.full(6, jnp.pi / 2))


@pytest.mark.slow
def test_a_distance_is_a_squared_length_in_the_metric_over_the_dimension():
    manifold = Hyperbolic(2)
    x, u, v = points(manifold, 0), *jax.random.normal(KEY, (2, 6, 2))
    expected = 4 * np.sum(np.square(u - v), axis=1) / (1 - np.sum(np.square(x), axis=1)) ** 2 / 2
    near(GeodesicPath(manifold).distance(u, v, x, T), expected)


@pytest.mark.slow
def test_several_points_of_one_example_have_times_of_their_own_and_one_distance():
    x0, x1 = (SPHERE.uniform(jax.random.key(i), (6, 4)) for i in (0, 1))
    t = jax.random.uniform(KEY, (6, 4))
    found = PATH.sample(x0, x1, t)
    alone = PATH.sample(*(x.reshape(24, 3) for x in (x0, x1)), t.reshape(24))
    near(found.x_t.reshape(24, 3), alone.x_t)
    near(found.target.reshape(24, 3), alone.target)
    wrong = 1.2 * found.target
    each = PATH.distance(wrong.reshape(24, 3), alone.target, alone.x_t, t.reshape(24))
    near(PATH.distance(wrong, found.target, found.x_t, t), each.reshape(6, 4).mean(axis=1))


def tree_network(params, x, t, labels):
    return jax.tree.map(lambda leaf: params * leaf + 0.1, x)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", ["velocity", "x1"])
def test_losses_draws_and_gradients_know_nothing_of_the_manifold(prediction):
    path = GeodesicPath(POSE)
    source = JointSource({"position": StandardNormal(), "rotation": UniformOn(SO3())})
    args = Draw(source=source)(KEY, INDEX, points(POSE, 3))
    apply_fn = in_tangent_space(tree_network, POSE) if prediction == "velocity" else tree_network
    loss_fn = make_loss_fn(apply_fn, path, prediction=prediction)
    value, slope = jax.jit(jax.value_and_grad(loss_fn))(1.5, *args)
    step = 1e-2
    difference = (loss_fn(1.5 + step, *args) - loss_fn(1.5 - step, *args)) / (2 * step)
    assert np.isfinite(value)
    np.testing.assert_allclose(slope, difference, rtol=5e-2, atol=1e-3)


@pytest.mark.slow
def test_a_joint_path_of_geodesics_is_the_geodesic_of_the_product():
    x0, x1 = points(POSE, 0), points(POSE, 1)
    joint = Joint({"position": AffinePath(), "rotation": GeodesicPath(SO3())})
    near(joint.sample(x0, x1, T), GeodesicPath(POSE).sample(x0, x1, T))
    assert manifold_of(Joint({"a": AffinePath()})) is None
    with pytest.raises(InputError, match="position of this joint path has no manifold"):
        manifold_of(joint)
    curved = Joint({"position": GeodesicPath(Euclidean(3)), "rotation": GeodesicPath(SO3())})
    assert manifold_of(curved).shape == POSE.shape


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", ["sphere", "torus", "so3", "hyperbolic", "pose"])
@pytest.mark.parametrize("kappa", [Linear(), Cosine()], ids=["linear", "cosine"])
def test_a_network_that_knows_the_end_of_the_path_has_its_velocity(name, kappa):
    manifold = MANIFOLDS[name]
    x0, x1 = points(manifold, 0), points(manifold, 1)
    path = GeodesicPath(manifold, kappa)
    x_t, target = path.sample(x0, x1, 0.9 * T)
    velocity = as_velocity(lambda p, x, t, c: x1, kappa, "x1", manifold=manifold)
    near(velocity(None, x_t, 0.9 * T, None), target, 2e-4)
    losses = make_per_example_loss_fn(lambda p, x, t, c: x1, path, prediction="x1")
    near(losses(None, x0, x1, T, None), jnp.zeros(6), 1e-6)
    other = make_per_example_loss_fn(lambda p, x, t, c: x0, path, prediction="x1")
    near(other(None, x0, x1, T, None), manifold.dist(x0, x1) ** 2 / manifold.dim, 1e-4)


def test_near_the_data_the_velocity_of_an_end_is_bounded():
    x, end = points(SPHERE, 0), points(SPHERE, 1)
    velocity = as_velocity(lambda p, x, t, c: end, Linear(), "x1", 0.05, manifold=SPHERE)
    near(velocity(None, x, jnp.ones(6), None), SPHERE.log(x, end) / 0.05, 1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeodesicPath(Sphere), "manifold is the class Sphere"),
        (lambda: GeodesicPath(3), "manifold must be an object with exp, log"),
        (lambda: GeodesicPath(SPHERE, "linear"), "kappa must be an object"),
        (lambda: GeodesicPath(SPHERE, VP()), "from 0 at t = 0 to 1 at t = 1; got 0.00657"),
        (lambda: PATH.predicting("score"), "unknown prediction on a manifold 'score'"),
        (
            lambda: make_loss_fn(tree_network, PATH, prediction="x0"),
            "prediction on a manifold 'x0'",
        ),
        (lambda: make_loss_fn(tree_network, PATH, "rf"), "it takes no other path"),
        (
            lambda: as_velocity(tree_network, Linear(), "v", manifold=SPHERE),
            "unknown prediction on a manifold 'v'",
        ),
    ],
)
def test_what_makes_no_path_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


GOOD = SPHERE.uniform(KEY, (6,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x1": 1.1 * GOOD}, r"x1 must be points of Sphere\(n=2\), unit vectors.*off by up to 0.1"),
        ({"x0": 1.1 * GOOD}, r"x0 must be points of Sphere\(n=2\).*manifold.project\(x0\)"),
        ({"x1": GOOD[:, :2]}, r"x1 must have shape \(..., 3\)"),
        ({"x1": GOOD[:4]}, "x0 and x1 must have one shape"),
        ({"x1": {"a": GOOD}}, "x1 must be of floats; got dict"),
        ({"t": jnp.zeros((6, 3))}, "t must have shape"),
        ({"noise": {"z": GOOD}}, "takes no noise"),
    ],
)
def test_points_that_are_none_of_the_manifold_are_refused(change, message):
    args = {"x0": GOOD, "x1": GOOD, "t": T, "noise": None} | change
    with pytest.raises(InputError, match=message):
        PATH.sample(**args)


def test_points_of_another_product_are_refused():
    with pytest.raises(InputError, match="x1 must be built as the product is"):
        GeodesicPath(POSE).sample(points(POSE, 0), {"position": jnp.zeros((6, 3))}, T)


@pytest.mark.slow
def test_matrices_that_are_not_positive_are_refused():
    with pytest.raises(InputError, match=r"x1 must be points of SPD.*positive definite"):
        GeodesicPath(SPD(2)).sample(points(SPD(2), 0), -points(SPD(2), 0), T)


def test_a_network_of_another_shape_is_refused():
    with pytest.raises(InputError, match="apply_fn must return"):
        PATH.distance(GOOD[:, :2], GOOD, GOOD, T)


@pytest.mark.parametrize(
    "call",
    [
        lambda: convert(GOOD, GOOD, T, PATH, source="velocity", target="score"),
        lambda: change_path(lambda x, t, c: x, PATH, Linear()),
        lambda: as_velocity(tree_network, PATH, "x1"),
    ],
)
def test_tools_of_affine_paths_refuse_a_geodesic_path_for_a_schedule(call):
    with pytest.raises(InputError, match=r"schedule.* must be an object with alpha.*GeodesicPath"):
        call()


@pytest.mark.slow
def test_distances_by_length_take_the_metric_of_the_manifold():
    """A loss takes it by itself, of a velocity and of the end of the path."""
    ball = Hyperbolic(2)
    path = GeodesicPath(ball)
    mean = jnp.broadcast_to(ball.origin, (16, 2))
    x0, x1 = (ball.wrapped_normal(jax.random.key(k), mean) for k in (0, 1))
    t = jnp.linspace(0, 0.9, 16)
    x_t, target = path.sample(x0, x1, t)
    error = jnp.full((16, 2), 0.1)
    square = ball.inner(x_t, error, error)

    def apply_fn(params, x, t, labels):
        return target + error

    for distance, expected in (
        (PseudoHuber(0.3), jnp.sqrt(square + 0.09) - 0.3),
        (PseudoHuber(), jnp.sqrt(square + 2 * 0.00054**2) - 0.00054 * 2**0.5),
        (Adaptive(0.5, 1e-2), square / jnp.sqrt(square + 1e-2)),
    ):
        losses = make_per_example_loss_fn(apply_fn, path, distance=distance)
        found = losses({}, x0, x1, t, None)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    end = 0.5 * x1
    losses = make_per_example_loss_fn(
        lambda params, x, t, labels: end, path, prediction="x1", distance=PseudoHuber(0.3)
    )
    square = jnp.square(ball.dist(end, x1))
    expected = jnp.sqrt(square + 0.09) - 0.3
    np.testing.assert_allclose(losses({}, x0, x1, t, None), expected, rtol=1e-4)


def test_a_distance_of_ones_own_sees_what_it_is_given():
    path = GeodesicPath(Sphere(2))
    x0, x1 = (Sphere(2).uniform(jax.random.key(k), (4,)) for k in (0, 1))
    losses = make_per_example_loss_fn(
        lambda params, x, t, labels: 0 * x, path, distance=lambda u, v, x, t: x[:, 0] + t
    )
    t = jnp.full(4, 0.5)
    expected = path.sample(x0, x1, t).x_t[:, 0] + 0.5
    np.testing.assert_allclose(losses({}, x0, x1, t, None), expected, rtol=1e-6)
