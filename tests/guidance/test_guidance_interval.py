"""The null branch is not computed outside its interval: the calls of the network are counted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.guidance import (
    GuidanceInterval,
    Guided,
    Rescale,
    autoguidance,
    classifier_free,
    network_calls,
)
from fmjax.samplers import solve, solver_spec
from tests.conftest import rounding

NULL, BATCH = 3, 3
RNG = np.random.default_rng(0)
TABLE, W, X = (RNG.normal(size=(n, 2)).astype("float32") for n in (NULL + 1, 2, BATCH))
LABELS = np.arange(BATCH) % NULL
SCALES = np.array([0.5, 2.0, 4.0], np.float32)
INTERVAL = (0.3, 0.6)


def velocity(x, t, labels, params=W):
    return jnp.tanh((x + jnp.asarray(TABLE)[labels]) @ params) * (1 + t[:, None])


def test_an_interval_is_open_when_it_leaves_nothing_out():
    assert GuidanceInterval().open
    assert not GuidanceInterval(interval=(0.0, 1.0)).open
    assert not GuidanceInterval(zero_until=1e-3).open


class Counted:
    """The network, and for each call of it the evaluations per example and the times."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, t, labels):
        zero = jax.pure_callback(
            self._note,
            jax.ShapeDtypeStruct(labels.shape, x.dtype),
            labels,
            t,
            vmap_method="broadcast_all",
        )
        return velocity(x, t, labels) + zero[:, None]

    def _note(self, labels, t):
        self.calls.append((np.size(labels) / BATCH, np.unique(t)))
        return np.zeros(np.shape(labels), t.dtype)

    @property
    def evaluations(self):
        return [n for n, _ in self.calls]


def masked(x, t, conditions, lo=INTERVAL[0], hi=INTERVAL[1], params=W):
    """The same field with nothing left out: every branch computed, then selected."""
    null = velocity(x, t, jnp.full_like(conditions.labels, NULL), params)
    cond = velocity(x, t, conditions.labels, params)
    w = jnp.broadcast_to(jnp.asarray(conditions.w), t.shape)[:, None]
    inside = ((t >= lo - 1e-6) & (t <= hi + 1e-6))[:, None]
    return jnp.where(inside, (1 - w) * null + w * cond, cond)


def every_time(t):
    return np.full(BATCH, t, np.float32)


def test_one_time_for_all_is_one_branch_outside_and_two_inside():
    net = Counted()
    field = jax.jit(classifier_free(net, NULL, interval=INTERVAL))
    reference = jax.jit(masked)
    for t in (0.0, 0.3, 0.45, 0.6, 0.7, 1.0):
        net.calls.clear()
        u = jax.block_until_ready(field(X, every_time(t), Guided(LABELS, SCALES)))
        assert net.evaluations == [2 if 0.3 <= t <= 0.6 else 1], t
        expected = reference(X, every_time(t), Guided(LABELS, SCALES))
        np.testing.assert_allclose(u, expected, rtol=1e-5, atol=1e-5)


def test_several_times_are_guided_each_by_its_own():
    times = np.array([0.1, 0.5, 0.9], np.float32)
    field = classifier_free(velocity, NULL, interval=INTERVAL)
    both = jax.jit(lambda *args: (field(*args), masked(*args)))
    u, expected = both(X, times, Guided(LABELS, SCALES))
    np.testing.assert_allclose(u, expected, rtol=1e-5, atol=1e-5)
    # Outside, the conditional velocity itself, to the bit, whatever the rule makes of w = 1. (Not
    # in one program, in which the two might be rounded apart.)
    cond = jax.vmap(velocity, (None, None, 0))(X, times, np.stack([LABELS, LABELS]))[0]
    for rule in (Rescale(1.0), lambda u_ref, u_cond, w, x, t: 7 * u_cond):
        u = classifier_free(velocity, NULL, rule=rule, interval=INTERVAL)(
            X, times, Guided(LABELS, SCALES)
        )
        np.testing.assert_array_equal(np.asarray(u)[::2], np.asarray(cond)[::2])


@pytest.mark.slow
def test_a_fixed_solve_makes_the_calls_that_are_foretold():
    net, steps = Counted(), 10
    field = classifier_free(net, NULL, interval=INTERVAL)
    spec = solver_spec("heun", steps)
    both = jax.jit(lambda x, c: [solve(f, x, c, spec).x1 for f in (field, masked)])
    x1, reference = jax.block_until_ready(both(X, Guided(LABELS, SCALES)))
    grid = np.linspace(0, 1, steps + 1)
    times = [*grid[:-1], *grid[1:]]
    # 0.3, 0.4, 0.5 and 0.6, both ends inside, each met by two steps.
    assert network_calls(times, interval=INTERVAL) == 20 + 8
    assert sum(net.evaluations) == 20 + 8
    np.testing.assert_allclose(x1, reference, atol=rounding(reference))


def to_float64(tree):
    return jax.tree.map(lambda a: a.astype("float64") if a.dtype == "float32" else a, tree)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("control", ["batch", "sample"])
def test_an_adaptive_solve_computes_the_null_branch_where_an_example_needs_it(control):
    net = Counted()
    spec = solver_spec("heun", rtol=1e-3, control=control)
    field = classifier_free(net, NULL, interval=INTERVAL)
    run = jax.jit(lambda f, x, c: solve(f, x, c, spec).x1, static_argnums=0)
    # In float64: at the ends of the interval a rounding error may tip the choice of a step.
    with jax.enable_x64(True):
        x, c = to_float64((X, Guided(LABELS, SCALES)))
        x1 = run(field, x, c).block_until_ready()
        np.testing.assert_allclose(x1, run(masked, x, c), atol=1e-9)
    for evaluations, times in net.calls:
        inside = (times >= INTERVAL[0] - 1e-6) & (times <= INTERVAL[1] + 1e-6)
        assert evaluations == 1 + inside.any()
    assert set(net.evaluations) == {1, 2}
    if control == "sample":
        assert any(len(times) > 1 for _, times in net.calls)  # the examples did go apart


def test_mapped_twice_it_is_still_one_decision():
    net = Counted()
    field = classifier_free(net, NULL, interval=INTERVAL)

    def one(x, t, label, w):
        return field(x[None], t[None], Guided(label[None], w[None]))[0]

    twice = jax.jit(jax.vmap(jax.vmap(one), in_axes=(0, 0, None, None)))
    reference = jax.jit(jax.vmap(masked, in_axes=(0, 0, None)))
    x, outside = np.stack([X, -X]), np.float32([[0.1, 0.2, 0.25], [0.7, 0.8, 0.9]])
    one_inside = np.where(outside == outside[1, 2], np.float32(0.5), outside)
    for t, per_example in ((outside, 1), (one_inside, 2)):
        net.calls.clear()
        u = jax.block_until_ready(twice(x, t, LABELS, SCALES))
        assert net.evaluations == [2 * per_example]  # two rows of examples
        expected = reference(x, t, Guided(LABELS, SCALES))
        np.testing.assert_allclose(u, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mapped", [False, True])
def test_derivatives_go_through_the_decision(mapped):
    times = np.array([0.1, 0.5, 0.9], np.float32)

    def make(params):
        return classifier_free(functools.partial(velocity, params=params), NULL, interval=INTERVAL)

    def total(field, x, t, w):
        if mapped:
            one = jax.vmap(
                lambda x, t, label, w: field(x[None], t[None], Guided(label[None], w))[0]
            )
            return jnp.sum(jnp.sin(one(x, t, LABELS, w)))
        return jnp.sum(jnp.sin(field(x, t, Guided(LABELS, w))))

    def ours(params, x, t, w):
        return total(make(params), x, t, w)

    def theirs(params, x, t, w):
        return total(functools.partial(masked, params=params), x, t, w)

    args, every = (W, X, times, SCALES), range(4)

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(f, args):
        reverse = jax.grad(f, every)(*args)
        mapped = jax.vmap(lambda p: jax.grad(f)(p, *args[1:]))(jnp.stack([W, 2 * W]))
        return reverse, jax.jvp(f, args, args)[1], mapped

    expected = derivatives(theirs, args)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, derivatives(ours, args), expected)
    if not mapped:  # outside of jit too
        close(jax.grad(ours)(*args), expected[0][0])


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("control", ["fixed", "sample"])
def test_the_gradient_of_a_solve_is_that_of_the_masked_field(control):
    spec = solver_spec("heun", 8) if control == "fixed" else solver_spec("bosh3", rtol=1e-3)

    def end(params, x, c, ours):
        field = functools.partial(velocity, params=params)
        field = classifier_free(field, NULL, interval=INTERVAL)
        field = field if ours else functools.partial(masked, params=params)
        return jnp.sum(solve(field, x, c, spec).x1 ** 2)

    with jax.enable_x64(True):
        args = to_float64((W, X, Guided(LABELS, SCALES)))
        gradient = jax.jit(jax.grad(end), static_argnums=3)
        got, expected = (gradient(*args, ours) for ours in (True, False))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_before_zero_until_nothing_is_computed_and_nothing_moves():
    net = Counted()
    field = classifier_free(net, NULL, zero_until=0.2)
    run = jax.jit(field)
    u = run(X, every_time(0.1), Guided(LABELS, 2.0))
    np.testing.assert_array_equal(u, 0.0)
    assert net.calls == []
    times = np.array([0.1, 0.2, 0.3], np.float32)
    u = np.asarray(run(X, times, Guided(LABELS, 2.0)))
    always = np.asarray(jax.jit(classifier_free(velocity, NULL))(X, times, Guided(LABELS, 2.0)))
    np.testing.assert_array_equal(u[0], 0.0)
    np.testing.assert_allclose(u[1:], always[1:], rtol=1e-5, atol=1e-5)


def test_zero_until_and_an_interval_make_three_levels():
    net, window = Counted(), {"interval": INTERVAL, "zero_until": 0.2}
    field = jax.jit(classifier_free(net, NULL, **window))
    for t, evaluations in ((0.1, 0), (0.25, 1), (0.45, 2), (0.8, 1)):
        net.calls.clear()
        field(X, every_time(t), Guided(LABELS, 2.0)).block_until_ready()
        assert sum(net.evaluations) == evaluations == network_calls([t], **window), t


def test_outside_every_scale_of_several_conditions_is_one():
    several = (Guided(LABELS, SCALES), Guided((LABELS + 1) % NULL, np.full(3, 3.0, np.float32)))
    ones = tuple(c._replace(w=np.ones(3, np.float32)) for c in several)
    always = jax.jit(classifier_free(velocity, NULL))
    for zero_until, times in ((0.0, (0.1, 0.45)), (0.2, (0.1,))):
        net, window = Counted(), {"interval": INTERVAL, "zero_until": zero_until}
        field = jax.jit(classifier_free(net, NULL, **window))
        for t in times:
            net.calls.clear()
            u = jax.block_until_ready(field(X, every_time(t), several))
            expected = np.asarray(always(X, every_time(t), several if t == 0.45 else ones))
            np.testing.assert_allclose(u, (t >= zero_until) * expected, rtol=1e-5, atol=1e-5)
            assert sum(net.evaluations) == 3 * (t >= zero_until), (t, zero_until)
            assert network_calls([t], branches=3, **window) == sum(net.evaluations)


def test_the_weaker_network_is_called_inside_alone():
    strong, weak = Counted(), Counted()
    field = jax.jit(autoguidance(strong, weak, interval=INTERVAL))
    for t in (0.1, 0.5):
        field(X, every_time(t), Guided(LABELS, 2.0)).block_until_ready()
    assert strong.evaluations == [1, 1]
    assert weak.evaluations == [1]


def test_the_decision_can_be_exported():
    field = jax.jit(classifier_free(velocity, NULL, interval=INTERVAL))
    args = (X, np.array([0.1, 0.5, 0.9], np.float32), Guided(LABELS, SCALES))
    exported = jax.export.export(field)(*args)
    np.testing.assert_array_equal(exported.call(*args), field(*args))


@pytest.mark.nightly
def test_on_several_devices_it_is_the_same_field(run_python):
    out = run_python(
        """
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec as P, AxisType
        from fmjax.guidance import Guided, classifier_free
        from fmjax.samplers import solve, solver_spec
        table = jnp.array([[0.0, 1.0], [1.0, 0.5], [-1.0, 0.2]])
        field = classifier_free(lambda x, t, c: jnp.sin(x + table[c]), 2, interval=(0.3, 0.6))
        x, w = np.arange(16, dtype="f4").reshape(8, 2), np.arange(8, dtype="f4")
        labels = np.arange(8) % 2
        mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
        rows = NamedSharding(mesh, P("data"))
        for spec in (solver_spec("heun", 10), solver_spec("heun", rtol=1e-3)):
            run = jax.jit(lambda x, c: solve(field, x, c, spec).x1)
            split = run(*jax.device_put((x, Guided(labels, w)), rows))
            whole = np.asarray(run(x, Guided(labels, w)))
            print(np.abs(np.asarray(split) - whole).max() / np.abs(whole).max())
        """,
        devices=4,
    )
    assert all(float(line) < 1e-5 for line in out.split())


@pytest.mark.parametrize(
    "interval", [(0.6, 0.3), (-0.1, 0.5), (0.5, 1.1), (0.5,), 0.5, (float("nan"), 1.0)]
)
def test_an_interval_upside_down_or_outside_is_refused(interval):
    with pytest.raises(InputError, match=r"\(lo, hi\) with 0 <= lo <= hi <= 1.*got"):
        classifier_free(velocity, NULL, interval=interval)
    with pytest.raises(InputError, match="lo, hi"):
        autoguidance(velocity, velocity, interval=interval)


@pytest.mark.parametrize("zero_until", [-0.1, 1.0, float("nan")])
def test_zero_until_outside_is_refused(zero_until):
    with pytest.raises(InputError, match=r"zero_until must lie in \[0, 1\); got"):
        GuidanceInterval(zero_until=zero_until)
