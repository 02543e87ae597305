"""What a configuration names where states are points on a manifold, and what it must not name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import ClassIds
from fmjax.data.codecs import Vectors
from fmjax.data.points import Points
from fmjax.discrete import CosineKappa, CubicKappa
from fmjax.errors import InputError
from fmjax.factory import DataSpec, make_experiment, registry
from fmjax.factory.generation import Guidance, Recipe, check_guidance, make_sampler
from fmjax.likelihood import log_likelihood
from fmjax.losses import make_loss_fn
from fmjax.manifolds import Sphere, Torus, UniformOn, WrappedNormal, in_tangent_space
from fmjax.models.adapters import from_linen
from fmjax.models.fourier_mlp import FourierMLP
from fmjax.paths import GeodesicPath
from fmjax.samplers import sde_spec, solver_spec
from fmjax.schedules import Linear, Polynomial
from tests.factory.test_experiment import config

SPHERE = DataSpec(Points("sphere", 3), ClassIds(3))
TORUS = DataSpec(Points("torus", 2), ClassIds(3))
BALL = DataSpec(Points("hyperbolic", 2), ClassIds(3))
POSE = DataSpec(Points("so3,euclidean3,torus2", 14), ClassIds(3))
FLAT = DataSpec(Vectors(3), ClassIds(3))
COMPACT = {
    "sphere": SPHERE,
    "torus": TORUS,
    "so3": DataSpec(Points("so3", 9), ClassIds(3)),
    "simplex": DataSpec(Points("simplex", 3), ClassIds(3)),
}
OPEN = {
    "hyperbolic": BALL,
    "spd": DataSpec(Points("spd", 4), ClassIds(3)),
    "pose": POSE,
}
ALL = COMPACT | OPEN
GEODESIC = {"path__name": "geodesic", "source__name": "uniform"}


def experiment(spec, **changes):
    usual = GEODESIC if spec in COMPACT.values() else GEODESIC | {"source__name": "wrapped_normal"}
    return make_experiment(config(**usual | changes), spec)


def points(spec, n, seed=0):
    manifold = spec.codec.manifold
    mean = jnp.broadcast_to(manifold.origin, (n, *manifold.shape))
    return np.asarray(manifold.wrapped_normal(jax.random.key(seed), mean, 0.4))


def batch_of(spec, n=8):
    labels = np.arange(n, dtype=np.int32) % 3
    return {"x1": points(spec, n), "index": np.arange(n, dtype=np.int32), "labels": labels}


def five(args):
    return args.x0, args.x1, args.t, args.labels


def perturbed(built):
    """Parameters that are not zero anywhere."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(built.init_params, jax.random.key(0))
    return jax.tree.map(lambda a: rng.normal(0, 0.3, a.shape).astype(a.dtype), shapes)


QUICK = ("sphere", "torus")


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, id=name, marks=() if name in QUICK else pytest.mark.nightly)
        for name, spec in ALL.items()
    ],
)
def test_a_configuration_trains_and_samples_points_of_a_manifold(spec):
    manifold = spec.codec.manifold
    built = experiment(spec, model__name="fourier_mlp", model__features=4, model__frequency=3.0)
    assert built.manifold == manifold
    assert built.path == GeodesicPath(manifold)
    assert built.source_codec == spec.codec
    assert not built.has_score
    assert built.flops > 0
    params = perturbed(built)
    args = built.draw(jax.random.key(1), batch_of(spec))
    manifold.check("x0", args.x0)
    assert np.isfinite(jax.jit(built.loss_fn)(params, *args, noise=args.noise))
    u = built.apply_fn(params, args.x1, jnp.full(8, 0.3), args.labels)
    scale = 1 + np.abs(u).max()
    np.testing.assert_allclose(u, manifold.to_tangent(args.x1, u), atol=1e-5 * scale)
    sampler = jax.jit(make_sampler(built, Recipe(registry.make_solver("geodesic_euler", 2))))
    drawn = sampler(params, args.x0, jax.random.key(2), jnp.arange(8), args.labels, jnp.ones(8)).x1
    manifold.check("the samples", drawn)


@pytest.mark.slow
def test_the_loss_is_the_one_of_the_package():
    built = experiment(SPHERE)
    args = built.draw(jax.random.key(1), batch_of(SPHERE))
    params = perturbed(built)
    apply_fn = in_tangent_space(from_linen(built.model), Sphere(2))
    expected = make_loss_fn(apply_fn, GeodesicPath(Sphere(2)))(params, *five(args))
    np.testing.assert_allclose(built.loss_fn(params, *five(args)), expected, rtol=1e-6)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("spec", [TORUS, POSE], ids=["torus", "pose"])
@pytest.mark.parametrize("prediction", ["velocity", "x1"])
def test_angles_have_no_seam(spec, prediction):
    """A whole turn more of an angle is the same point, and has the same velocity."""
    built = experiment(spec, loss__prediction=prediction)
    params, labels = perturbed(built), jnp.zeros(4, jnp.int32)
    x, t = points(spec, 4), jnp.full(4, 0.4)
    turned = x - 2 * np.pi * (np.arange(x.shape[1]) >= x.shape[1] - 2) * np.sign(x)
    u, same = (built.apply_fn(params, one, t, labels) for one in (x, turned))
    assert np.abs(u).max() > 1e-3
    np.testing.assert_allclose(u, same, atol=2e-4)


def test_every_name_of_a_pace_makes_its_path():
    expected = {
        "linear": Linear(), "polynomial": Polynomial(3.0),
        "cosine": CosineKappa(), "cubic": CubicKappa(),
    }  # fmt: skip
    for name, kappa in expected.items():
        built = experiment(SPHERE, path__kappa=name, path__power=3.0)
        assert built.path == GeodesicPath(Sphere(2), kappa)


def test_every_source_has_a_name(tmp_path):
    assert experiment(SPHERE).source == UniformOn(Sphere(2))
    found = experiment(SPHERE, source__name="wrapped_normal", source__scale=0.5).source
    assert isinstance(found, WrappedNormal)
    assert (found.manifold, found.scale) == (Sphere(2), 0.5)
    found = experiment(TORUS, source__name="data", source__data="toy/torus_checkerboard")
    assert found.source.points.shape == (10_000, 2)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", ["ot", "sinkhorn", "unbalanced", "partial"])
def test_couplings_pair_by_the_length_of_geodesics(name):
    built = experiment(TORUS, coupling__name=name, coupling__by_label=False)
    found = registry.make_coupling(
        config(coupling__name=name, coupling__by_label=False), None, built.manifold
    )
    assert found.manifold == Torus(2)
    assert not built.independent
    # Half of the points lie just before the seam, half just behind it: near to each other.
    x0 = jnp.asarray([[3.1, 0.0], [0.1, 0.0]])
    x1 = jnp.asarray([[0.0, 0.0], [-3.1, 0.0]])
    if name == "ot":
        paired = found(jax.random.key(0), x0, x1)[0]
        np.testing.assert_array_equal(paired, x0[::-1])


@pytest.mark.parametrize("name", ["heun", "geodesic_heun", "tsit5", "ab2"])
def test_solvers_of_the_ode_take_the_manifold_of_the_run(name):
    built = experiment(SPHERE, sample__solver=name, sample__steps=3)
    assert built.solver.on_path(built.path).manifold == Sphere(2)


@pytest.mark.slow
def test_a_density_is_that_of_the_source_where_nothing_moves():
    built = experiment(SPHERE)
    params = built.init_params(jax.random.key(0))
    labels = jnp.zeros(8, jnp.int32)
    spec = solver_spec("heun", 2).on_path(built.path)

    def velocity(x, t, labels):
        return built.apply_fn(params, x, t, labels)

    found = log_likelihood(velocity, points(SPHERE, 8), labels, spec, source=built.source)
    np.testing.assert_allclose(found.log_p, -np.log(4 * np.pi), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lagrangian", "meanflow", "semigroup"])
def test_a_flow_map_on_a_manifold(name):
    built = experiment(SPHERE, flow_map__name=name)
    params = perturbed(built)
    args = built.draw(jax.random.key(1), batch_of(SPHERE))
    assert np.isfinite(jax.jit(built.loss_fn)(params, *five(args), noise=args.noise))
    sampler = make_sampler(built, Recipe(registry.make_solver("jumps", 2), None))
    labels = args.labels
    drawn = sampler(params, args.x0, jax.random.key(2), jnp.arange(8), labels, jnp.ones(8)).x1
    Sphere(2).check("the samples", drawn)


def own_path(c, manifold):
    return GeodesicPath(manifold, Polynomial(c.power))


def path_elsewhere(c, manifold):
    return GeodesicPath(Torus(3))


def own_source(c, spec):
    return WrappedNormal(spec.codec.manifold, scale=c.scale)


def test_a_path_and_a_source_of_ones_own():
    here = "tests.factory.test_manifolds"
    built = experiment(SPHERE, path__name=f"{here}:own_path", source__name=f"{here}:own_source")
    assert built.path == GeodesicPath(Sphere(2), Polynomial(2.0))
    assert isinstance(built.source, WrappedNormal)
    with pytest.raises(InputError, match=r"must give a path with the manifold of the data, Sphere"):
        experiment(SPHERE, path__name=f"{here}:path_elsewhere")


REFUSED = {
    "an affine path": (
        SPHERE,
        {"path__name": "linear"},
        r"data.name='digits' is on Sphere\(n=2\), which takes path.name=geodesic",
    ),
    "a geodesic in flat space": (
        FLAT,
        {},
        "path.name='geodesic' is of points on a manifold, and data.name='digits' has vectors",
    ),
    "a normal source": (SPHERE, {"source__name": "normal"}, "write source.name=uniform"),
    "a normal source in the ball": (
        BALL,
        {"source__name": "normal"},
        "write source.name=wrapped_normal",
    ),
    "a uniform source in the ball": (BALL, {"source__name": "uniform"}, "has an infinite volume"),
    "an unknown source": (SPHERE, {"source__name": "box"}, "unknown source on a manifold 'box'"),
    "the ends of a box": (SPHERE, {"source__low": 0.0}, "source.low is of flat space; got 0.0"),
    "a scale in flat space": (
        FLAT,
        {"path__name": "linear", "source__name": "normal", "source__scale": 2.0},
        "source.scale is of points on a manifold; got 2.0",
    ),
    "data of flat space for a source": (
        TORUS,
        {"source__name": "data", "source__data": "toy/moons"},
        "source.data='toy/moons' is on no manifold, and the data on Torus",
    ),
    "an unknown kappa": (SPHERE, {"path__kappa": "square"}, "unknown kappa 'square'"),
    "a kappa in flat space": (
        FLAT,
        {"path__name": "linear", "source__name": "normal", "path__kappa": "cosine"},
        "has no path.kappa",
    ),
    "a bridge": (
        SPHERE,
        {"coupling__name": "schroedinger_bridge"},
        "coupling.name='schroedinger_bridge' is of flat space: write coupling.name=ot or sinkhorn",
    ),
    "on the host": (SPHERE, {"coupling__name": "host_ot"}, "coupling.name='host_ot' is of flat"),
    "another prediction": (
        SPHERE,
        {"loss__prediction": "score"},
        "unknown prediction on a manifold 'score'",
    ),
    "rectified flow": (SPHERE, {"loss__target": "rf"}, "loss.target is of flat space; got 'rf'"),
    "a weight": (SPHERE, {"loss__weight": "velocity"}, "loss.weight is of flat space"),
    "dequantised": (SPHERE, {"data__dequantize": True}, "has no pixels to dequantise"),
    "an SDE": (
        SPHERE,
        {"sample__solver": "churn"},
        "churn adds noise by the score, which a flow on a manifold does not tell: take --solver=ge",
    ),
    "the signal-to-noise ratio": (
        SPHERE,
        {"sample__solver": "dpmpp_2m"},
        "dpmpp_2m steps in the signal-to-noise ratio of an affine path, and GeodesicPath has none",
    ),
    "geodesics in flat space": (
        FLAT,
        {"path__name": "linear", "source__name": "normal", "sample__solver": "geodesic_heun"},
        "geodesic_heun steps along the geodesics of a manifold, and this run is in flat space",
    ),
    "tokens": (SPHERE, {"path__name": "mask"}, "path.name='mask' is of tokens"),
    "a frequency of an mlp": (
        SPHERE,
        {"model__frequency": 3.0},
        r"model.name='mlp' has no such fields; leave out model.frequency=3.0",
    ),
    "a time scale": (
        SPHERE,
        {"model__name": "fourier_mlp", "model__time_scale": 2.0},
        "model.name='fourier_mlp' has no such fields; leave out model.time_scale=2.0",
    ),
}


@pytest.mark.parametrize(("spec", "changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_with_a_manifold_is_refused(spec, changes, message):
    with pytest.raises(InputError, match=message):
        experiment(spec, **GEODESIC | changes if spec is FLAT else changes)


@pytest.mark.parametrize("rule", ["rescale", "zero_star", "apg"])
def test_rules_that_measure_in_flat_space_are_refused(rule):
    built = experiment(SPHERE)
    message = "apg' needs an affine path" if rule == "apg" else "measures velocities in flat space"
    with pytest.raises(InputError, match=message):
        check_guidance(Guidance(rule=rule), built)
    check_guidance(Guidance(), built)


def test_noise_is_refused_when_it_is_asked_of_a_run():
    with pytest.raises(InputError, match="adds noise by the score, which a flow on a manifold"):
        make_sampler(experiment(SPHERE), Recipe(sde_spec("stochastic_heun", 5)))


def test_the_network_by_name_has_the_sizes_that_are_named():
    built = experiment(SPHERE, model__name="fourier_mlp", model__features=5, model__frequency=7.0)
    assert built.model == FourierMLP(5, 7.0, 8, 1, ClassIds(3, drop_rate=0.1))
    assert dict(built.architecture)["model.frequency"] == "7.0"
