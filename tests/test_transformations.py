"""Every public function of the mathematics under jit, vmap and grad.

Inside a compiled program a function gives what it gives outside; mapped over a new axis, what a
loop gives; and its gradient is the slope that differences show. The table has one use of each
public function and class, or the reason why it takes no traced arrays.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import (
    conditions,
    conventions,
    couplings,
    drifting,
    flow_maps,
    guidance,
    likelihood,
    losses,
    manifolds,
    metrics,
    paths,
    predictions,
    samplers,
    schedules,
    sources,
    testing,
    times,
)
from fmjax.conventions import Span
from fmjax.draws import Draw
from fmjax.guidance import Between, Guided
from fmjax.likelihood.divergence import EXACT_TRACE
from tests.conftest import rounding
from tests.test_functions import PACKAGES

B, D = 4, 2
RNG = np.random.default_rng(0)
X, Y, Z = (jnp.asarray(RNG.normal(size=(B, D)), jnp.float32) for _ in range(3))
T = jnp.asarray([0.15, 0.4, 0.6, 0.85], jnp.float32)
W = jnp.asarray([0.0, 1.0, 1.5, 3.0], jnp.float32)
LABELS = jnp.arange(B) % 3
INDEX = jnp.arange(B)
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, B)
MATRIX = jnp.asarray([[0.3, -1.0], [0.8, 0.1]], jnp.float32)


class Use(NamedTuple):
    """One use of a function.

    Attributes:
        call: a function of arrays.
        args: the arrays.
        grad: whether it claims a gradient with respect to the first one.
        slow: whether it compiles for seconds.
    """

    call: Callable[..., Any]
    args: tuple
    grad: bool = True
    slow: bool = False


def velocity(x, t, labels=None):
    shift = 0.0 if labels is None else 0.1 * labels.astype(x.dtype)[:, None]
    return jnp.tanh(x @ MATRIX) * (1 + jnp.sin(t))[:, None] + shift


def network(params, x, t, labels=None):
    return params * velocity(x, t, labels)


def of_a_span(params, x, span, labels=None):
    return params * velocity(x, span.s, labels) + (span.t - span.s)[:, None] * x


def log_density(x, t=None, labels=None):
    return -0.5 * jnp.sum(x**2, axis=1)


ONE = jnp.ones(())
TWO = samplers.solver_spec("heun", 2)
BRIDGE = paths.BrownianBridge(0.5)
JOINT = paths.Joint({"a": paths.AffinePath(), "b": paths.AffinePath(schedules.Cosine())})
MOONS = testing.FiniteDataFlow(np.asarray(Y))
GAUSS = testing.GaussianFlow(np.ones(D), np.eye(D))
MAP = testing.GaussianMap(np.zeros(D), 1.0, np.ones(D), 0.5)
MIXTURE = testing.MixtureFlow([0.4, 0.6], [[-1.0, 0.0], [1.0, 0.5]], 0.5)
MESH = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("data",))

HOST = "takes concrete arrays, on the host"
MAKES = "makes or checks an object, before any array is traced"
RESULT = "a result: its functions make it"


def couple(coupling, slow=False):
    return Use(
        lambda key, x0, x1: coupling(key, x0, x1, LABELS), (KEY, X, Y), grad=False, slow=slow
    )


def law(distribution):
    return Use(lambda t: (distribution.density(t), distribution.quantile(t)), (T,))


def spans(distribution):
    return Use(lambda keys: tuple(distribution.spans(keys)), (KEYS,), grad=False)


def schedule(one):
    return Use(lambda t: (one.alpha(t), one.sigma(t), one.d_alpha(t), one.d_sigma(t)), (T,))


def geometry(one, **how):
    """Of tangent coordinates at the origin, from which all else is made."""

    def call(c):
        x = jnp.broadcast_to(one.origin, (B, *one.shape))
        u = one.tangent(x, c)
        y = one.exp(x, u)
        parts = one.log(y, x), one.transport(x, y, u), one.project(y), one.to_tangent(y, u)
        return *parts, one.dist(x, y), one.inner(x, u, u)

    return Use(call, (0.3 * jnp.ones((B, one.dim)) + 0.1 * T[:, None],), **how)


def flow(one):
    def call(x, t):
        return one.velocity(x, t), one.score(x, t), one.log_density(x, t)

    return Use(call, (X, T))


def stochastic(path):
    return Use(lambda x0, x1, t, z: tuple(path.sample(x0, x1, t, {"z": z})), (X, Y, T, Z))


def distance(one, **how):
    return Use(lambda predicted, target: one(predicted, target, X, T), (X, Y), **how)


def guided(velocity_fn, **how):
    return Use(lambda x, t, w: velocity_fn(x, t, Guided(LABELS, w)), (X, T, W), **how)


def named(build):
    two = {"a": conditions.ClassIds(3), "b": conditions.Vector(1)}
    field = guidance.classifier_free(
        lambda x, t, labels: velocity(x, t, labels["a"]) + labels["b"] * x,
        conditions.null_labels(two),
    )

    def call(x, t, b, w):
        return field(x, t, build(two, {"a": LABELS, "b": b}, {"a": w, "b": 2.0}))

    return Use(call, (X, T, T[:, None], W))


def rule(one):
    return Use(one, (X, Y, W, Z, T))


def loss(loss_fn, **how):
    return Use(lambda params, x0, x1, t: loss_fn(params, x0, x1, t, **how), (ONE, X, Y, T))


def flow_map(identity, grad=True, **how):
    def call(params, x0, x1, s, t, noise):
        loss_fn = flow_maps.make_flow_map_loss_fn(of_a_span, identity, averaged=True, **how)
        given = dict.fromkeys(loss_fn.noise, noise)
        span, half = Span(s, t), ONE / 2
        return loss_fn(params, x0, x1, span, LABELS, noise=given, target_params=half)

    return Use(call, (ONE, X, Y, T, T[::-1], T), grad=grad)


TABLE = {
    "conditions.ClassIds": MAKES,
    "conditions.Vector": MAKES,
    "conditions.Sequence": MAKES,
    "conditions.Mask": MAKES,
    "conditions.ImageCondition": MAKES,
    "conditions.as_labels": HOST,
    "conditions.check_values": HOST,
    "conditions.check_conditions": MAKES,
    "conditions.check_labels": MAKES,
    "conditions.null_labels": MAKES,
    "conditions.nulls": MAKES,
    "conditions.abstract_labels": MAKES,
    "conditions.conditions_of": HOST,
    "conditions.share": Use(lambda x: conditions.share(x, B), (X[:1],)),
    "conventions.Output": Use(
        lambda x: conventions.take_part(conventions.Output(velocity=x, score=2 * x), "score"), (X,)
    ),
    "conventions.Span": RESULT,
    "conventions.at_least_float32": Use(conventions.at_least_float32, (X,)),
    "conventions.check_key": MAKES,
    "conventions.check_places": MAKES,
    "conventions.diagonal": Use(conventions.diagonal(of_a_span), (ONE, X, T)),
    "conventions.example_keys": Use(
        lambda key, i: jax.random.key_data(conventions.example_keys(key, i)),
        (KEY, INDEX),
        grad=False,
    ),
    "conventions.dtype_of": MAKES,
    "conventions.expand": Use(lambda t, x: conventions.expand(t, x) * x, (T, X)),
    "conventions.per_example_sum": Use(conventions.per_example_sum, (X,)),
    "conventions.take_part": Use(
        lambda x: conventions.take_part(conventions.Output(velocity=x), "velocity"), (X,)
    ),
    "conventions.time_of": Use(
        lambda s, t: (conventions.time_of(t), conventions.time_of(Span(s, t))), (T, T[::-1])
    ),
    "couplings.HostCoupling": HOST,
    "couplings.MinibatchCoupling": couple(
        couplings.MinibatchCoupling(lambda key, cost: (jnp.argsort(cost[0]), None))
    ),
    "couplings.NearConditions": couple(couplings.exact(couplings.NearConditions())),
    "couplings.SameClass": couple(couplings.exact(couplings.SameClass())),
    "couplings.chain": Use(
        lambda key, a, b: couplings.chain(key, [a, b], couplings.exact()), (KEY, X, Y), grad=False
    ),
    "couplings.exact": couple(couplings.exact()),
    "couplings.gathered": couple(couplings.gathered(couplings.exact(), mesh=MESH), slow=True),
    "couplings.host_exact": HOST,
    "couplings.in_groups": couple(couplings.in_groups(couplings.exact(), 2)),
    "couplings.independent": couple(couplings.independent),
    "couplings.partial": couple(couplings.partial(0.5)),
    "couplings.schroedinger_bridge": couple(couplings.schroedinger_bridge(1.0), slow=True),
    "couplings.sinkhorn": couple(couplings.sinkhorn(1.0), slow=True),
    "couplings.unbalanced": couple(couplings.unbalanced(1.0, 1.0), slow=True),
    "draws.Draw": Use(
        lambda key, x1: tuple(
            Draw(conditions=conditions.ClassIds(3, drop_rate=0.5))(key, INDEX, x1, LABELS)
        ),
        (KEY, X),
        grad=False,
    ),
    "draws.LossArgs": RESULT,
    "drifting.drift_field": Use(
        lambda data, others, d, q: drifting.drift_field(d, data, others, 0.5, q),
        (X, Y, jnp.abs(RNG.normal(size=(B, 2 * B))).astype("float32"), jnp.linspace(0.5, 2, 2 * B)),
    ),
    "drifting.make_drifting_loss_fn": Use(
        lambda params, x0, x1: drifting.make_drifting_loss_fn(lambda params, x0, y: params * x0)(
            params, x0[None], x1[None]
        ),
        (ONE, X, Y),
        grad=False,  # where the points have drifted is a constant
    ),
    "flow_maps.AlphaFlow": flow_map(flow_maps.AlphaFlow(0.5)),
    "flow_maps.Consistency": Use(
        lambda params, x0, x1, s: flow_maps.make_flow_map_loss_fn(
            of_a_span, flow_maps.Consistency()
        )(params, x0, x1, Span(s, jnp.ones_like(s)), LABELS),
        (ONE, X, Y, T),
        grad=False,  # the later of the two points has constant parameters
    ),
    "flow_maps.DivergenceHead": Use(
        lambda x, t: flow_maps.DivergenceHead(trace="exact").averages(velocity, x, t, {}), (X, T)
    ),
    "flow_maps.ECTSteps": Use(
        lambda s, k: flow_maps.ECTSteps()(s, k), (T, jnp.asarray(20_000)), grad=False
    ),
    "flow_maps.FiniteDifference": flow_map(
        flow_maps.MeanFlow(derivative=flow_maps.FiniteDifference(0.01))
    ),
    "flow_maps.FixedGuidance": flow_map(
        flow_maps.MeanFlow(), guidance=flow_maps.FixedGuidance(conditions.ClassIds(3))
    ),
    "flow_maps.GuidanceInput": Use(
        lambda x, t, w: flow_maps.GuidanceInput(conditions.ClassIds(3)).guided(
            lambda x, t, c: velocity(x, t, c["labels"]) * c["guidance"][:, None],
            x,
            t,
            Y,
            LABELS,
            {"w": 1 + w},
        ),
        (X, T, W),
    ),
    "flow_maps.Jumps": Use(
        lambda x, keys: (
            flow_maps.Jumps(3, renoise=0.5)
            .solve(lambda x, span, labels: of_a_span(1.0, x, span, labels), x, LABELS, keys=keys)
            .x1
        ),
        (X, KEYS),
        slow=True,
    ),
    # The end of its jump, where the velocity is asked, is a constant.
    "flow_maps.Lagrangian": flow_map(flow_maps.Lagrangian(), grad=False),
    "flow_maps.MeanFlow": flow_map(flow_maps.MeanFlow()),
    "flow_maps.PowerLaw": Use(
        lambda key: flow_maps.PowerLaw(power=2.0).sample(key, INDEX, ()), (KEY,), grad=False
    ),
    "flow_maps.Semigroup": flow_map(flow_maps.Semigroup(split=None)),
    "flow_maps.SigmoidDecay": Use(
        lambda k: flow_maps.SigmoidDecay(100, 200)(k), (jnp.asarray(140),), grad=False
    ),
    "flow_maps.few_step_log_likelihood": Use(
        lambda x: flow_maps.few_step_log_likelihood(
            lambda x, span, labels: conventions.Output(
                velocity=of_a_span(1.0, x, span, labels), divergence=span.t * x[:, 0]
            ),
            x,
            LABELS,
            scale=2.0,
            steps=2,
        ),
        (X,),
    ),
    "flow_maps.make_flow_map_loss_fn": flow_map(
        flow_maps.MeanFlow(), teacher=velocity, weight=lambda span: 1 + span.s
    ),
    "guidance.Between": RESULT,
    "guidance.GuidanceInterval": Use(guidance.GuidanceInterval((0.3, 0.7)).level, (T,), grad=False),
    "guidance.Nested": RESULT,
    "guidance.Guided": guided(guidance.classifier_free(velocity, 3)),
    "guidance.Projected": rule(guidance.Projected()),
    "guidance.Rescale": rule(guidance.Rescale(0.5)),
    "guidance.ZeroStar": rule(guidance.ZeroStar()),
    "guidance.autoguidance": guided(guidance.autoguidance(velocity, lambda x, *_: -x)),
    "guidance.class_weights": Use(
        lambda s: guidance.class_weights(LABELS, LABELS[::-1], s, 3), (T,)
    ),
    "guidance.classifier_free": guided(
        guidance.classifier_free(velocity, 3, interval=(0.3, 0.7), zero_until=0.2)
    ),
    "guidance.distilled": Use(
        lambda x, t, w: guidance.distilled(lambda x, t, c: velocity(x, t) * c["guidance"][:, None])(
            x, t, Guided(LABELS, w)
        ),
        (X, T, W),
    ),
    "guidance.drop_labels": Use(
        lambda keys: guidance.drop_labels(keys, LABELS, conditions.ClassIds(3, drop_rate=0.5)),
        (KEYS,),
        grad=False,
    ),
    "guidance.guide_each": named(guidance.guide_each),
    "guidance.guide_in_turn": named(guidance.guide_in_turn),
    "guidance.interpolated": Use(
        lambda x, t, s: guidance.interpolated(velocity)(x, t, Between(LABELS, LABELS[::-1], s)),
        (X, T, W / 3),
    ),
    "guidance.linear": rule(guidance.linear),
    "guidance.make_distillation_loss_fn": Use(
        lambda params, x0, x1, t: guidance.make_distillation_loss_fn(
            lambda params, x, t, c: params * x * c["guidance"][:, None],
            guidance.classifier_free(velocity, 3),
        )(params, x0, x1, t, Guided(LABELS, W)),
        (ONE, X, Y, T),
    ),
    "guidance.network_calls": HOST,
    "guidance.null_like": Use(lambda labels: guidance.null_like(labels, 3), (LABELS,), grad=False),
    "guidance.over_time": Use(
        guidance.over_time(velocity, lambda labels, t: t), (X, T, jnp.zeros(B))
    ),
    "guidance.scale_from_excess": Use(guidance.scale_from_excess, (W,)),
    "guidance.slerp": Use(guidance.slerp, (X, Y, T)),
    "guidance.spherical_weights": Use(
        lambda s: guidance.spherical_weights(LABELS, LABELS[::-1], s, Z), (T,)
    ),
    "likelihood.Exact": Use(
        lambda x: likelihood.velocity_and_divergence(velocity, x, T, None, likelihood.Exact(1)),
        (X,),
    ),
    "likelihood.Hutchinson": Use(
        lambda x, key: likelihood.velocity_and_divergence(
            velocity,
            x,
            T,
            None,
            likelihood.Hutchinson(2),
            likelihood.draw_probes(likelihood.Hutchinson(2), key, x),
        ),
        (X, KEY),
    ),
    "likelihood.Likelihood": RESULT,
    "likelihood.bits_per_dim": Use(lambda log_p: likelihood.bits_per_dim(log_p, 2), (T,)),
    "likelihood.check_path": MAKES,
    "likelihood.draw_probes": Use(
        lambda key: likelihood.draw_probes(likelihood.Hutchinson(2), key, X), (KEY,), grad=False
    ),
    "likelihood.log_likelihood": Use(
        lambda x: likelihood.log_likelihood(velocity, x, LABELS, TWO).log_p, (X,), slow=True
    ),
    "likelihood.sample_with_log_prob": Use(
        lambda x: likelihood.sample_with_log_prob(velocity, x, LABELS, TWO).log_p, (X,), slow=True
    ),
    "likelihood.velocity_and_divergence": Use(
        lambda x, t: likelihood.velocity_and_divergence(velocity, x, t, None, EXACT_TRACE), (X, T)
    ),
    "losses.declare": loss(losses.declare(lambda params, x0, x1, t, labels: jnp.mean(params * x0))),
    "losses.make_flow_and_score_loss_fn": loss(
        losses.make_flow_and_score_loss_fn(network, network, BRIDGE), noise={"z": Z}
    ),
    "losses.make_loss_fn": loss(losses.make_loss_fn(network, weight=lambda t: 1 + t)),
    "losses.make_per_example_loss_fn": loss(losses.make_per_example_loss_fn(network)),
    "paths.Adaptive": distance(paths.Adaptive(), grad=False),  # its divisor is a constant
    "paths.AffinePath": Use(
        lambda x0, x1, t: tuple(paths.AffinePath().sample(x0, x1, t)), (X, Y, T)
    ),
    "paths.BrownianBridge": stochastic(BRIDGE),
    "paths.Drifts": RESULT,
    "paths.GeodesicPath": Use(
        lambda x0, x1, t: tuple(paths.GeodesicPath(manifolds.Euclidean(2)).sample(x0, x1, t)),
        (X, Y, T),
    ),
    "paths.Joint": Use(
        lambda x0, x1, t: tuple(JOINT.sample({"a": x0, "b": x1}, {"a": x1, "b": x0}, t)), (X, Y, T)
    ),
    "paths.NoisyStraight": stochastic(paths.NoisyStraight(0.5)),
    "paths.PathSample": RESULT,
    "paths.PseudoHuber": distance(paths.PseudoHuber()),
    "paths.manifold_of": MAKES,
    "paths.schedule_of": MAKES,
    "paths.sde_drifts": Use(lambda v, s, g: tuple(paths.sde_drifts(v, s, g)), (X, Y, ONE)),
    "paths.squared": distance(paths.squared),
    "predictions.Endpoints": RESULT,
    "predictions.as_velocity": Use(
        lambda params, x, t: predictions.as_velocity(network, schedules.Cosine(), "x1")(
            params, x, t, None
        ),
        (ONE, X, T),
    ),
    "predictions.change_path": Use(
        predictions.change_path(velocity, schedules.Linear(), schedules.Cosine()), (X, T)
    ),
    "predictions.coefficients": Use(
        lambda t: predictions.coefficients("velocity", schedules.VP(), t), (T,)
    ),
    "predictions.convert": Use(
        lambda p, x, t: predictions.convert(
            p, x, t, schedules.Cosine(), source="velocity", target="score"
        ),
        (X, Y, T),
    ),
    "predictions.convert_weight": Use(
        predictions.convert_weight(
            lambda t: 1 + t, schedules.Linear(), source="velocity", target="x1"
        ),
        (T,),
    ),
    "predictions.endpoints": Use(
        lambda p, x, t: tuple(
            predictions.endpoints(p, x, t, schedules.Cosine(), source="velocity")
        ),
        (X, Y, T),
    ),
    "predictions.error_ratio": Use(
        lambda t: predictions.error_ratio(t, schedules.Cosine(), source="x1", target="velocity"),
        (T,),
    ),
    "predictions.target_of": Use(
        lambda x0, x1, t: predictions.target_of("v", schedules.Cosine(), x0, x1, t), (X, Y, T)
    ),
    "manifolds.Euclidean": geometry(manifolds.Euclidean(2)),
    "manifolds.FlatProduct": geometry(
        manifolds.FlatProduct((manifolds.Sphere(1), manifolds.Euclidean(1)))
    ),
    "manifolds.Hyperbolic": geometry(manifolds.Hyperbolic(2)),
    "manifolds.Manifold": "what each manifold is made from",
    "manifolds.Product": "its points are a pytree; FlatProduct has the same parts in one array",
    "manifolds.SO3": geometry(manifolds.SO3(), slow=True),
    "manifolds.SPD": geometry(manifolds.SPD(2), slow=True),
    "manifolds.Simplex": geometry(manifolds.Simplex(2)),
    "manifolds.Sphere": geometry(manifolds.Sphere(2)),
    "manifolds.Torus": geometry(manifolds.Torus(2)),
    "manifolds.UniformOn": Use(
        lambda key: manifolds.UniformOn(manifolds.Sphere(1)).sample(key, INDEX, (D,)),
        (KEY,),
        grad=False,
    ),
    "manifolds.WrappedNormal": Use(
        lambda x, key: (
            manifolds.WrappedNormal(manifolds.Euclidean(2)).log_prob(x),
            manifolds.WrappedNormal(manifolds.Euclidean(2)).sample(key, INDEX, (D,)),
        ),
        (X, KEY),
    ),
    "manifolds.in_ambient_space": Use(
        lambda params, x, t: manifolds.in_ambient_space(network, manifolds.Torus(1))(
            params, x[:, :1], t, None
        ),
        (ONE, X, T),
    ),
    "manifolds.manifold_by_name": MAKES,
    "manifolds.in_tangent_space": Use(
        lambda x, t: manifolds.in_tangent_space(velocity, manifolds.Sphere(1))(x, t, None), (X, T)
    ),
    "metrics.curvature": Use(lambda x: metrics.curvature(velocity, x, steps=3), (X,)),
    "metrics.path_energy": Use(lambda x: metrics.path_energy(velocity, x, steps=3), (X,)),
    "metrics.path_statistics": Use(
        lambda x: tuple(metrics.path_statistics(velocity, x, steps=3)), (X,)
    ),
    "metrics.straightness": Use(lambda x: metrics.straightness(velocity, x, steps=3), (X,)),
    "samplers.ODESolver": Use(lambda x: TWO.solve(velocity, x, LABELS).x1, (X,), slow=True),
    "samplers.SDESolver": Use(
        lambda x, keys: samplers.sde_spec(steps=2).solve(velocity, x, LABELS, keys=keys).x1,
        (X, KEYS),
        slow=True,
    ),
    "samplers.Solution": RESULT,
    "samplers.SolveError": RESULT,
    "samplers.SourceFit": RESULT,
    "samplers.check_solution": HOST,
    "samplers.fit_source": Use(
        lambda x: (
            samplers.fit_source(
                velocity, x, lambda x: -log_density(x), None, TWO, iterations=2
            ).costs
        ),
        (X,),
        grad=False,
        slow=True,
    ),
    "samplers.invert": Use(lambda x: samplers.invert(velocity, x, LABELS, TWO).x1, (X,), slow=True),
    "samplers.sde_spec": MAKES,
    "samplers.solve": Use(
        lambda x: tuple(samplers.solve(velocity, x, LABELS, TWO, save_at=[0.5])[:3]), (X,)
    ),
    "samplers.solve_sde": Use(
        lambda x, keys: (
            samplers.solve_sde(velocity, x, keys, LABELS, samplers.sde_spec(steps=2)).x1
        ),
        (X, KEYS),
    ),
    "samplers.solver_spec": MAKES,
    "samplers.take_steps": Use(
        lambda x: (
            samplers.take_steps(
                lambda x, t, s, k: x + (s - t)[:, None] * velocity(x, t),
                x,
                np.linspace(0, 1, 4),
                nfe=3,
            ).x1
        ),
        (X,),
    ),
    "schedules.Cosine": schedule(schedules.Cosine()),
    "schedules.Custom": schedule(schedules.Custom(lambda t: t**2, lambda t: 1 - t**2)),
    "schedules.DiscreteVP": schedule(schedules.DiscreteVP()),
    "schedules.Linear": schedule(schedules.Linear(0.1)),
    "schedules.LinearVP": schedule(schedules.LinearVP()),
    "schedules.Polynomial": schedule(schedules.Polynomial(3.0)),
    "schedules.VP": schedule(schedules.VP()),
    "schedules.at_steps": Use(
        lambda x, t: schedules.at_steps(
            lambda params, x, k, labels: x * jnp.cos(k / 500)[:, None], schedules.DiscreteVP()
        )({}, x, t, None),
        (X, T),
    ),
    "schedules.clamp": Use(lambda t: schedules.clamp(t, 0.3, 0.7), (T,)),
    "schedules.inverse_log_snr": Use(
        lambda v: schedules.inverse_log_snr(schedules.Cosine(), v), (W - 1,)
    ),
    "schedules.log_snr": Use(lambda t: schedules.log_snr(schedules.VP(), t), (T,)),
    "schedules.with_slope": Use(lambda t: schedules.with_slope(jnp.sin, jnp.cos, t), (T,)),
    "sources.Empirical": Use(
        lambda key: sources.Empirical(np.asarray(X)).sample(key, INDEX, (D,)), (KEY,), grad=False
    ),
    "sources.JointSource": Use(
        lambda key: sources.JointSource({"a": sources.StandardNormal()}).sample(
            key, INDEX, {"a": (D,)}
        ),
        (KEY,),
        grad=False,
    ),
    "sources.StandardNormal": Use(
        lambda x, key: (
            sources.StandardNormal().log_prob(x),
            sources.StandardNormal().sample(key, INDEX, (D,)),
        ),
        (X, KEY),
    ),
    "sources.UniformBox": Use(
        lambda key: sources.UniformBox().sample(key, INDEX, (D,)), (KEY,), grad=False
    ),
    "sources.draw_source": Use(
        lambda key: sources.draw_source(sources.UniformBox(), key, INDEX, (D,)), (KEY,), grad=False
    ),
    "sources.example_shape": MAKES,
    "testing.FiniteDataFlow": flow(MOONS),
    "testing.GaussianFlow": flow(GAUSS),
    "testing.GaussianMap": Use(
        lambda x, s, t: (
            MAP.average_velocity(x, Span(s, t)),
            MAP.average_divergence(x, Span(s, t)),
        ),
        (X, T, T[::-1]),
    ),
    "testing.MixtureFlow": flow(MIXTURE),
    "testing.check_continuity": HOST,
    "testing.check_density_integrates_to_one": HOST,
    "testing.check_recovers": HOST,
    "testing.check_score_matches_density": HOST,
    "testing.check_velocity_matches_score": HOST,
    "testing.convergence_order": HOST,
    "times.AnyPair": spans(times.AnyPair()),
    "times.Beta": law(times.Beta(2.0, 3.0)),
    "times.CosMap": law(times.CosMap()),
    "times.DyadicGrid": spans(times.DyadicGrid(3)),
    "times.FromSource": spans(times.FromSource()),
    "times.LogNormal": law(times.LogNormal()),
    "times.LogitNormal": law(times.LogitNormal()),
    "times.Mode": law(times.Mode()),
    "times.PerElement": law(times.PerElement(times.LogitNormal())),
    "times.Shifted": law(times.Shifted(times.LogitNormal(), 3.0)),
    "times.SortedPair": spans(times.SortedPair()),
    "times.StepStarts": Use(times.StepStarts(4).quantile, (T,), grad=False),
    "times.ToData": spans(times.ToData()),
    "times.UShaped": law(times.UShaped()),
    "times.Uniform": law(times.Uniform()),
    "times.WithDiagonal": spans(times.WithDiagonal()),
    "times.importance_weight": Use(times.importance_weight(times.LogitNormal()), (T,)),
    "times.resolution_shift": HOST,
    "times.shift_time": Use(lambda t: times.shift_time(t, 3.0), (T,)),
    "times.sqrt_shift": HOST,
    "times.stratified": Use(lambda u: times.stratified(u, INDEX, 8), (T,)),
}
NUMPY = "metrics"
"""Of this package only the measures of a trajectory are jax; the others take numpy arrays."""


def public():
    """Every public function and class of the mathematics but protocols and types."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(f"fmjax.{package}")
        own = [
            k for k, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__
        ]
        for name in getattr(module, "__all__", own):
            one = inspect.unwrap(getattr(module, name))
            if name.startswith("_") or getattr(one, "_is_protocol", False):
                continue
            if inspect.isfunction(one) or inspect.isclass(one):
                found[f"{package}.{name}"] = one
    return found


def test_every_public_function_is_in_the_table():
    found = public()
    of_metrics = importlib.import_module("fmjax.metrics.trajectory").__name__
    expected = {
        name
        for name, one in found.items()
        if not name.startswith(NUMPY) or (one.__module__ == of_metrics and inspect.isfunction(one))
    } - {"metrics.normalized_path_energy"}
    assert TABLE.keys() == expected
    assert {"samplers.solve", "losses.make_loss_fn", "schedules.VP"} <= expected


USES = [
    pytest.param(use, id=name, marks=[pytest.mark.slow] if use.slow else [])
    for name, use in TABLE.items()
    if isinstance(use, Use)
]


def assert_same(found, expected):
    """The same tree of the same shapes and types, with values that differ by rounding only."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert np.all(np.isfinite(other))
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=rounding(other))


def turned(args):
    """Other arguments of the same kind: every array the other way round, another key."""
    return tuple(
        jax.random.fold_in(a, 1) if a is KEY else a[::-1] if jnp.ndim(a) else a for a in args
    )


@pytest.mark.day_cases(50)
@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("use", USES)
def test_a_compiled_program_gives_the_same(use):
    assert_same(jax.jit(use.call)(*use.args), as_arrays(use.call(*use.args)))


def as_arrays(tree):
    return jax.tree.map(jnp.asarray, tree)


@pytest.mark.day_cases(50)
@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
def test_mapped_over_a_new_axis_it_gives_what_a_loop_gives(use):
    each = [use.args, turned(use.args)]
    call = jax.jit(use.call)
    stacked = [jnp.stack(pair) for pair in zip(*each, strict=True)]
    mapped = jax.jit(jax.vmap(use.call))(*stacked)
    for i, args in enumerate(each):
        assert_same(jax.tree.map(lambda leaf, i=i: leaf[i], mapped), call(*args))


@pytest.mark.day_cases(37)
@pytest.mark.slow
@pytest.mark.parametrize("use", [one for one in USES if one.values[0].grad])
def test_its_gradient_is_the_slope(use):
    first, *rest = use.args
    rng = np.random.default_rng(1)
    outputs = list(jax.tree.leaves(jax.eval_shape(use.call, *use.args)))
    weights = [rng.normal(size=leaf.shape).astype(np.float32) for leaf in outputs]

    def value(x):
        leaves = jax.tree.leaves(use.call(x, *rest))
        real = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
        return sum(jnp.sum(leaf * w) for leaf, w, r in zip(leaves, weights, real, strict=True) if r)

    direction = rng.normal(size=first.shape).astype(np.float32)
    step = 3e-3
    slope, ahead, behind = jax.jit(
        lambda x: (
            jnp.sum(jax.grad(value)(x) * direction),
            value(x + step * direction),
            value(x - step * direction),
        )
    )(first)
    assert np.isfinite(slope)
    error = rounding(ahead) / step + 1e-2 * abs(slope)
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=0, atol=error)
