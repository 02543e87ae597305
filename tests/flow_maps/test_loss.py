"""The loss of a flow map: what it takes, guidance in its target, schedules, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import Draw, Output, Span
from fmjax.conditions import ClassIds, Vector, null_labels
from fmjax.errors import InputError
from fmjax.flow_maps import (
    AlphaFlow,
    DivergenceHead,
    FixedGuidance,
    GuidanceInput,
    Lagrangian,
    MeanFlow,
    PowerLaw,
    Semigroup,
    SigmoidDecay,
    make_flow_map_loss_fn,
)
from fmjax.flow_maps.target_guidance import is_dropped
from fmjax.guidance import Guided, classifier_free
from fmjax.models import adapters
from fmjax.models.mlp import MLP
from fmjax.paths import Adaptive
from fmjax.times import SortedPair, WithDiagonal
from tests.flow_maps.gaussian_network import EXACT, FLOWS, network, pairs, spans

N = 8
FLOW = FLOWS["linear"]
LABELS = jnp.array([0, 1, 2, 0, 1, 2, 3, 3])  # of three classes; 3 is the null
CLASSES = ClassIds(3)


def constant(params, x, span, labels):
    """A velocity that depends on the label alone: params[label]; guided scales see w, too."""
    if isinstance(labels, dict):
        null, w = params[3:], labels["guidance"]
        u = null + w[:, None] * (params[labels["labels"]] - null)
        return jnp.broadcast_to(u, x.shape)
    return jnp.broadcast_to(params[labels], x.shape)


VELOCITIES = jnp.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0], [0.3, -0.2]])  # the last is the null


def flow_of(labels):
    """Pairs whose velocity is that of their label: x1 = x0 + velocity."""
    x0 = jnp.asarray(np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32))
    return x0, x0 + VELOCITIES[labels]


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(("w", "kappa"), [(2.0, 0.0), (2.0, 0.5), (1.5, -0.4), (1.0, 0.9)])
def test_the_fixed_point_of_built_in_guidance_is_the_guided_flow(w, kappa):
    guidance = FixedGuidance.at_scale(CLASSES, w, kappa)
    assert guidance.scale == pytest.approx(w)
    guided = VELOCITIES[3:] + w * (VELOCITIES - VELOCITIES[3:])
    loss_fn = make_flow_map_loss_fn(constant, MeanFlow(), guidance=guidance)
    args = *flow_of(LABELS), spans(N), LABELS
    assert float(loss_fn(guided, *args)) < 1e-10
    assert float(loss_fn(guided.at[0].add(0.1), *args)) > 1e-5
    assert float(loss_fn(guided.at[3].add(0.1), *args)) > 1e-4


@pytest.mark.slow
def test_outside_the_interval_nothing_is_guided():
    guidance = FixedGuidance.at_scale(CLASSES, 2.0, interval=(0.0, 0.3))
    loss_fn = make_flow_map_loss_fn(constant, MeanFlow(), guidance=guidance)
    s = jnp.full(N, 0.5)
    assert float(loss_fn(VELOCITIES, *flow_of(LABELS), Span(s, s), LABELS)) < 1e-10
    early = jnp.full(N, 0.2)
    assert float(loss_fn(VELOCITIES, *flow_of(LABELS), Span(early, early), LABELS)) > 1e-2


def test_the_fixed_point_with_the_scale_as_an_input_is_the_flow_guided_at_it():
    guidance = GuidanceInput(CLASSES, PowerLaw(1.0, 4.0))
    loss_fn = make_flow_map_loss_fn(constant, MeanFlow(), guidance=guidance)
    args, noise = (*flow_of(LABELS), spans(N), LABELS), {"w": jnp.linspace(1.0, 4.0, N)}
    assert float(loss_fn(VELOCITIES, *args, noise=noise)) < 1e-10
    assert float(loss_fn(VELOCITIES.at[3].add(0.1), *args, noise=noise)) > 1e-4


def test_a_guided_teacher_is_asked_at_the_scale_of_the_example():
    def teacher(x, t, labels):
        return jnp.broadcast_to(VELOCITIES[labels], x.shape)

    guided = classifier_free(teacher, null_labels(CLASSES))
    guidance = GuidanceInput(CLASSES, PowerLaw(0.5, 3.0))
    loss_fn = make_flow_map_loss_fn(constant, Lagrangian(), teacher=guided, guidance=guidance)
    args, noise = (*pairs(N), spans(N), LABELS), {"w": jnp.linspace(0.5, 3.0, N)}
    assert float(loss_fn(VELOCITIES, *args, noise=noise)) < 1e-10

    seen = {}

    def fixed(x, t, conditions):
        assert isinstance(conditions, Guided)
        seen["w"] = conditions.w
        return guided(x, t, conditions)

    at_two = FixedGuidance.at_scale(CLASSES, 2.0)
    loss_fn = make_flow_map_loss_fn(constant, Lagrangian(), teacher=fixed, guidance=at_two)
    doubled = VELOCITIES[3:] + 2.0 * (VELOCITIES - VELOCITIES[3:])
    assert float(loss_fn(doubled, *args)) < 1e-10
    assert seen["w"] == pytest.approx(2.0)


def test_scales_have_their_density():
    w = np.asarray(PowerLaw(1.0, 8.0, 2.0).sample(jax.random.key(0), jnp.arange(20_000), (2,)))
    for x in (1.5, 3.0, 6.0):  # the integral of w^-2
        expected = (1 - 1 / x) / (1 - 1 / 8)
        assert abs(np.mean(w < x) - expected) < 4 * np.sqrt(expected * (1 - expected) / len(w))
    log_uniform = np.log(PowerLaw(1.0, 8.0).sample(jax.random.key(0), jnp.arange(20_000), ()))
    assert abs(log_uniform.mean() - np.log(8) / 2) < 4 * np.log(8) / np.sqrt(12 * 20_000)


def test_dropped_examples_have_nothing_but_nulls():
    conditions = {"kind": ClassIds(3), "size": Vector(2)}
    labels = {"kind": jnp.array([3, 3, 1]), "size": jnp.array([[0.0, 0], [1, 0], [0, 0]])}
    np.testing.assert_array_equal(is_dropped(labels, conditions), [True, False, False])


@pytest.mark.slow
def test_a_second_head_learns_the_velocity_and_can_be_the_tangent():
    apply_fn = network(FLOW, head=True)
    args = *pairs(N), spans(N), None
    loss_fn = make_flow_map_loss_fn(apply_fn, MeanFlow(tangent="network"), teacher=FLOW.velocity)
    assert float(loss_fn(EXACT, *args)) < 1e-10

    def other_head(params, x, span, labels):
        output = apply_fn(params, x, span, labels)
        return Output(velocity=output["velocity"], diagonal=output["diagonal"] + params["later"])

    def found(params):
        return make_flow_map_loss_fn(
            other_head, MeanFlow(tangent="network"), teacher=FLOW.velocity
        )(params, *args)

    assert float(found(EXACT)) < 1e-10
    # The head is wrong, and with it the tangent of the average velocity.
    wrong = float(found(EXACT | {"later": 1e-3}))
    assert 0.9e-6 < wrong < 1e-3


def test_averaged_parameters_are_those_of_the_frozen_side():
    args, noise = (*pairs(N), spans(N), None), None
    live, average = EXACT | {"shift": 0.3}, EXACT | {"shift": -0.1}
    averaged = make_flow_map_loss_fn(network(FLOW), Semigroup(), averaged=True)
    assert averaged.uses_target
    found = averaged(live, *args, noise=noise, target_params=average)
    # Semigroup compares u with u of the target, which differ by the two shifts and no more but for
    # where the first jump leads.
    np.testing.assert_allclose(jnp.sqrt(found), 0.4, atol=0.05)
    with pytest.raises(InputError, match="compares with averaged parameters, and none came"):
        averaged(live, *args)


@pytest.mark.slow
def test_the_derivative_is_taken_of_the_function_that_is_given_for_it():
    @jax.custom_vjp
    def fused(u):  # as fused attention: a backward derivative, and no forward one
        return u

    fused.defvjp(lambda u: (u, None), lambda _, g: (g,))

    def apply_fn(params, x, span, labels):
        return fused(network(FLOW)(params, x, span, labels))

    args = *pairs(N), spans(N), None
    for identity in (MeanFlow(), Lagrangian()):
        with pytest.raises(TypeError, match="forward-mode"):
            make_flow_map_loss_fn(apply_fn, identity, teacher=FLOW.velocity)(EXACT, *args)
        loss_fn = make_flow_map_loss_fn(
            apply_fn, identity, teacher=FLOW.velocity, derivative_fn=network(FLOW)
        )
        value, grad = jax.value_and_grad(loss_fn)(EXACT | {"shift": 0.1}, *args)
        assert float(value) > 1e-3
        assert float(grad["shift"]) > 0
        assert float(loss_fn(EXACT, *args)) < 1e-10
    loss_fn = make_flow_map_loss_fn(apply_fn, MeanFlow(derivative="fd"), teacher=FLOW.velocity)
    assert float(loss_fn(EXACT, *args)) < 1e-6


@pytest.mark.slow
def test_alpha_falls_during_training_and_ends_at_meanflow():
    decay = SigmoidDecay(100, 200)
    alpha = [float(decay(jnp.asarray(step))) for step in (0, 100, 150, 200, 400)]
    assert alpha == [1.0, 1.0, 0.5, 0.0, 0.0]
    args = *pairs(N), spans(N), None
    falling = make_flow_map_loss_fn(network(FLOW), AlphaFlow(decay))
    assert falling.uses_step
    params = EXACT | {"later": 0.2}
    for step, identity in ((0, AlphaFlow(1.0)), (150, AlphaFlow(0.5)), (400, MeanFlow())):
        expected = make_flow_map_loss_fn(network(FLOW), identity)(params, *args)
        found = jax.jit(falling)(params, *args, step=jnp.asarray(step))
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(falling(params, *args), expected, rtol=1e-4)  # None is the end


def test_the_derivative_of_meanflow_grows_over_its_warm_up():
    args, params = (*pairs(N), spans(N), None), EXACT | {"later": 0.2}
    warm = make_flow_map_loss_fn(network(FLOW), MeanFlow(warmup=10))
    late = float(make_flow_map_loss_fn(network(FLOW), MeanFlow())(params, *args))
    found = [float(warm(params, *args, step=jnp.asarray(step))) for step in (0, 4, 9, 30)]
    np.testing.assert_allclose(found[2:], late, rtol=1e-6)
    assert len({round(value, 6) for value in found}) == 3


def test_short_jumps_are_made_with_the_velocity_of_the_teacher():
    def still(params, x, span, labels):
        return params * jnp.ones_like(x)

    def teacher(x, t, labels):
        return jnp.full_like(x, 3.0)

    args = *pairs(N), Span(jnp.full(N, 0.25), jnp.full(N, 0.5)), None
    for finest, goal in ((0.125, 3.0), (0.1, 1.0)):
        loss_fn = make_flow_map_loss_fn(still, Semigroup(finest=finest), teacher=teacher)
        np.testing.assert_allclose(loss_fn(1.0, *args), (goal - 1.0) ** 2, atol=1e-6)


@pytest.mark.day_cases(2)
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"distance": Adaptive()},
        {"weight": lambda span: 1 - span.s},
        {"divergence": DivergenceHead()},
        {"guidance": GuidanceInput(CLASSES)},
        {"averaged": True},
    ],
)
def test_draw_and_loss_fit_together_in_a_network_of_ours(options):
    model = MLP(width=8, depth=1, span=True, conditions=CLASSES, guidance="guidance" in options)
    inner = adapters.from_linen(model)

    def apply_fn(params, x, span, labels):
        u = inner(params, x, span, labels)
        return Output(velocity=u, divergence=u[:, 0]) if "divergence" in options else u

    loss_fn = make_flow_map_loss_fn(apply_fn, Lagrangian(), **options)
    draw = Draw(
        time_distribution=WithDiagonal(SortedPair()), conditions=CLASSES, noise=loss_fn.noise
    )
    x1, index, labels = pairs(N)[1], jnp.arange(N), jnp.arange(N) % 3
    args = draw(jax.random.key(0), index, x1, labels)
    inputs = {"labels": labels, "guidance": jnp.ones(N)} if model.guidance else labels
    params = model.init(jax.random.key(0), x1, args.t, inputs)["params"]
    target = {"target_params": params} if loss_fn.uses_target else {}
    value, grads = jax.value_and_grad(loss_fn)(params, *args, noise=args.noise, **target)
    assert value.shape == ()
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) > 0


def call(t=None, labels=None, apply_fn=None, **options):
    loss_fn = make_flow_map_loss_fn(apply_fn or network(FLOW), MeanFlow(), **options)
    return loss_fn(EXACT, *pairs(N), spans(N) if t is None else t, labels)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"t": jnp.ones(N)}, r"takes Span\(s, t\).*Draw\(time_distribution=times.SortedPair\(\)\)"),
        (
            {"t": Span(jnp.ones((N, 2)), jnp.ones((N, 2)))},
            r"two times for each example",
        ),
        ({"t": Span(jnp.ones(N), jnp.full(N, 1.5))}, r"t must lie in \[0, 1\]"),
        ({"guidance": FixedGuidance(CLASSES)}, "needs labels, and none came"),
        ({"teacher": lambda x, t, labels: x[:, :1]}, r"the teacher must return floats shaped as x"),
        ({"divergence": DivergenceHead(trace="exact")}, "'divergence' is wanted"),
        ({"weight": lambda span: jnp.ones((N, 1))}, "the weight must return one float per example"),
        ({"apply_fn": lambda p, x, t, y: x[:, 0]}, "apply_fn must return floats shaped as x"),
        ({"apply_fn": 3}, "apply_fn must be"),
        ({"teacher": 3}, "the teacher must be"),
        ({"guidance": CLASSES}, "the guidance must"),
    ],
)
def test_a_wrong_call_is_refused(how, message):
    with pytest.raises(InputError, match=message):
        call(**how)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedGuidance(CLASSES, kappa=1.0), r"kappa must be below 1.*at_scale\(w\)"),
        (lambda: FixedGuidance(CLASSES, omega=float("nan")), "omega must be a finite number"),
        (lambda: FixedGuidance(None), "nothing to guide without conditions"),
        (lambda: FixedGuidance(CLASSES, interval=(0.5, 0.5)), r"0 <= low < high <= 1"),
        (lambda: GuidanceInput(CLASSES, interval=(0.5, 2.0)), r"0 <= lo <= hi <= 1"),
        (lambda: PowerLaw(0.0, 1.0), r"low of PowerLaw must lie in \(0,"),
        (lambda: PowerLaw(2.0, 1.0), r"high of PowerLaw must lie in \(2,"),
        (lambda: SigmoidDecay(10, 10), "end of SigmoidDecay must be a whole number of at least 11"),
        (lambda: DivergenceHead(scale=0.0), "scale of the divergence must be a positive number"),
        (lambda: DivergenceHead(trace="slq"), "unknown trace 'slq'"),
    ],
)
def test_a_wrong_piece_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
