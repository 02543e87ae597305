import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmjax.conditions import ClassIds
from fmjax.errors import InputError
from fmjax.guidance import Guided, classifier_free, distilled, make_distillation_loss_fn
from fmjax.models import adapters
from fmjax.models.mlp import MLP
from fmjax.paths import AffinePath
from fmjax.samplers import solve, solver_spec
from fmjax.schedules import Cosine

NULL = 2
CENTRES = np.array([[-1.5, 0.0], [1.5, 0.5]], np.float32)
STD = 0.5


def gaussian(x, t, centre):
    """The velocity of the straight path from N(0, 1) to N(centre, STD^2)."""
    t = t[:, None]
    variance = (1 - t) ** 2 + (t * STD) ** 2
    return centre + (t * STD**2 - (1 - t)) / variance * (x - t * centre)


def velocity(x, t, labels):
    """The conditional velocity, and for the null class that of the equal mixture."""
    fields = jnp.stack([gaussian(x, t, jnp.broadcast_to(c, x.shape)) for c in CENTRES])
    variance = ((1 - t) ** 2 + (t * STD) ** 2)[:, None]
    means = t[None, :, None] * CENTRES[:, None, :]
    share = jax.nn.softmax(-jnp.sum((x[None] - means) ** 2 / (2 * variance[None]), -1), axis=0)
    mixture = jnp.sum(share[..., None] * fields, axis=0)
    one_hot = jax.nn.one_hot(labels, 3, dtype=x.dtype)
    every = jnp.concatenate([fields, mixture[None]])
    return jnp.einsum("bk,kbd->bd", one_hot, every)


teacher = jax.jit(classifier_free(velocity, NULL))


@functools.partial(jax.jit, static_argnums=1)
def batch(key, n):
    keys = jax.random.split(key, 5)
    labels = jax.random.randint(keys[0], (n,), 0, 2)
    x0, noise = (jax.random.normal(k, (n, 2)) for k in keys[1:3])
    w = jax.random.uniform(keys[3], (n,), minval=0.0, maxval=3.0)
    t = jax.random.uniform(keys[4], (n,))
    return x0, jnp.asarray(CENTRES)[labels] + STD * noise, t, Guided(labels, w)


def test_a_distilled_network_is_given_labels_and_one_scale_per_example():
    def network(x, t, inputs):
        assert inputs.keys() == {"labels", "guidance"}
        assert inputs["guidance"].shape == t.shape
        return x * inputs["guidance"][:, None] + inputs["labels"][:, None]

    x, t, labels = jnp.ones((3, 2)), jnp.zeros(3), jnp.arange(3)
    u = distilled(network)(x, t, Guided(labels, 2.0))
    np.testing.assert_array_equal(u, 2.0 + labels[:, None] * jnp.ones((1, 2)))


@pytest.mark.parametrize("path", [None, AffinePath(Cosine())])
def test_the_loss_is_the_mean_square_at_the_point_of_the_path(path):
    x0, x1, t, conditions = batch(jax.random.key(0), 16)

    def student(params, x, t, inputs):
        return params * x + inputs["guidance"][:, None] - inputs["labels"][:, None]

    angle = jnp.pi / 2 * t[:, None]
    alpha, sigma = (
        (t[:, None], 1 - t[:, None]) if path is None else (jnp.sin(angle), jnp.cos(angle))
    )
    x_t = alpha * x1 + sigma * x0
    error = 0.7 * x_t + conditions.w[:, None] - conditions.labels[:, None]
    error -= teacher(x_t, t, conditions)
    loss = make_distillation_loss_fn(student, teacher, path=path)(0.7, x0, x1, t, conditions)
    assert loss.shape == ()
    np.testing.assert_allclose(loss, np.mean(np.square(error)), rtol=1e-5)


def test_the_teacher_is_not_differentiated():
    x0, x1, t, conditions = batch(jax.random.key(0), 16)

    def student(params, x, t, inputs):
        return params * x

    def gradient(of_teacher):
        def loss(params):
            fixed = make_distillation_loss_fn(student, lambda x, t, c: of_teacher(params) * x)
            return fixed(params, x0, x1, t, conditions)

        return jax.grad(loss)(2.0)

    np.testing.assert_allclose(gradient(lambda p: 0.5 * p), gradient(lambda p: 1.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (jnp.zeros(4, jnp.int32), r"distilled guidance takes Guided\(labels, w\)"),
        (Guided(jnp.zeros(4, jnp.int32), 2.0, 1), "distilled guidance has no null branch"),
        (Guided(jnp.zeros(4, jnp.int32), jnp.ones(3)), r"\(4,\); got shape \(3,\)"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(conditions, message):
    x0, x1, t = jnp.zeros((4, 2)), jnp.ones((4, 2)), jnp.zeros(4)
    with pytest.raises(InputError, match=message):
        distilled(velocity)(x0, t, conditions)
    with pytest.raises(InputError, match=message):
        make_distillation_loss_fn(lambda p, *a: velocity(*a), teacher)({}, x0, x1, t, conditions)


def test_a_student_of_another_shape_is_refused():
    x0, x1, t, conditions = batch(jax.random.key(0), 16)
    loss_fn = make_distillation_loss_fn(lambda p, x, t, c: x[:, :1], teacher)
    with pytest.raises(InputError, match=r"the student must return floats shaped as x, \(16, 2\)"):
        loss_fn({}, x0, x1, t, conditions)


@pytest.mark.nightly
def test_a_student_follows_the_guided_teacher_at_every_scale():
    model = MLP(width=64, depth=3, conditions=ClassIds(2), guidance=True)
    apply_fn = adapters.from_linen(model)
    loss_fn = make_distillation_loss_fn(apply_fn, teacher)
    adam = optax.adam(optax.cosine_decay_schedule(1e-2, 2000))

    def step(carry, key):
        params, state = carry
        grads = jax.grad(loss_fn)(params, *batch(key, 128))
        updates, state = adam.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    x0, _, t, (labels, w, _) = batch(jax.random.key(0), 512)
    init = jax.jit(model.init)(jax.random.key(1), x0, t, {"labels": labels, "guidance": w})[
        "params"
    ]
    keys = jax.random.split(jax.random.key(2), 2000)
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, keys)[0])
    params, _ = run((init, adam.init(init)))
    student = distilled(lambda x, t, inputs: apply_fn(params, x, t, inputs))

    @jax.jit
    def ends(w):
        spec = solver_spec("heun", 20)
        return [solve(f, x0, Guided(labels, w), spec).x1 for f in (student, teacher)]

    unguided = ends(1.0)[1]
    # Not w = 0, where points between the classes go either way.
    for w in (0.5, 1.3, 2.1, 2.7):
        ours, theirs = ends(w)
        error = float(jnp.mean(jnp.square(ours - theirs)))
        effect = float(jnp.mean(jnp.square(theirs - unguided)))  # of guidance itself
        assert error < min(0.005, 0.05 * effect), (w, error, effect)
