"""MM-DiT and FLUX: what they have in common, what each takes, and every refusal, while tracing.

Their values are held to diffusers' in tests/models/pretrained/test_text_to_image.py.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from fmjax.conventions import Span
from fmjax.errors import InputError
from fmjax.models import flux, joint, mmdit
from fmjax.models.dit import patchify
from fmjax.models.flux import Flux, pack, unpack
from fmjax.models.mmdit import MMDiT, cut

SIZES = {"width": 16, "heads": 2, "text_size": 6, "pooled_size": 5, "channels": 3}
NETWORKS = {
    "mmdit": MMDiT(**SIZES, depth=2, grid=4),
    "mmdit, dual": MMDiT(**SIZES, depth=3, grid=4, dual=1, qk_norm=True),
    "flux": Flux(**SIZES, joint_depth=2, single_depth=1, axes=(2, 2, 4)),
    "flux, guided": Flux(**SIZES, joint_depth=1, single_depth=1, axes=(2, 2, 4), guidance=True),
}
each = pytest.mark.parametrize("name", NETWORKS)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 6, 3)).astype(np.float32)
T = np.array([0.0, 0.75], np.float32)
TEXT = {
    "text": RNG.normal(size=(2, 3, 6)).astype(np.float32),
    "pooled": RNG.normal(size=(2, 5)).astype(np.float32),
}


def labels_of(model, labels=TEXT):
    return labels | {"guidance": T} if getattr(model, "guidance", False) else labels


def times_of(model):
    return Span(T, T + 0.125) if model.span else T


def shapes(model):
    init = functools.partial(model.init, jax.random.key(0))
    return jax.eval_shape(init, X, times_of(model), labels_of(model))["params"]


def trained(model):
    """Parameters with nothing left at zero, as after training."""
    leaves, tree = jax.tree.flatten(shapes(model))
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(
        tree, [rng.normal(0, 0.3, a.shape).astype(np.float32) for a in leaves]
    )


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, x, t, labels):
    return model.apply({"params": params}, x, t, labels)


@pytest.mark.day_cases(1)
@pytest.mark.parametrize(
    "name", ["flux, guided", *(pytest.param(n, marks=pytest.mark.slow) for n in ("mmdit", "flux"))]
)
def test_a_fresh_network_gives_zero(name):
    model = NETWORKS[name]
    init = jax.jit(model.init_with_output)
    out, _ = init(jax.random.key(0), X, T, labels_of(model))
    assert out.shape == X.shape
    assert not out.any()


@pytest.mark.day_cases(1)
@pytest.mark.slow
@each
def test_every_input_matters_and_examples_do_not_meet(name):
    model = NETWORKS[name]
    params, labels = trained(model), labels_of(model)
    out = apply(model, params, X, T, labels)
    for changed in (*labels, "t"):
        given = dict(labels, t=T)
        given[changed] = given[changed] + np.array([0, 0.125], np.float32).reshape(
            2, *[1] * (np.ndim(given[changed]) - 1)
        )
        t = given.pop("t")
        moved = np.abs(apply(model, params, X, t, given) - out).max(axis=(1, 2, 3))
        assert moved[1] > 1e-3, changed
        assert moved[0] < 1e-5, changed


MASK = np.array([[True, True, False], [True, True, True]])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmdit, dual", "flux"])
def test_places_that_fill_up_a_text_change_nothing(name):
    model = NETWORKS[name]
    params, labels = trained(model), labels_of(model)
    masked = apply(model, params, X, T, labels | {"text_mask": MASK})
    other = np.where(MASK[..., None], labels["text"], 100.0).astype(np.float32)
    of_others = apply(model, params, X, T, labels | {"text": other, "text_mask": MASK})
    np.testing.assert_allclose(of_others, masked, rtol=0, atol=1e-6)
    first = jax.tree.map(lambda a: a[:1], labels)
    short = apply(model, params, X[:1], T[:1], first | {"text": first["text"][:, :2]})
    np.testing.assert_allclose(masked[:1], short, rtol=0, atol=1e-5)


def test_a_text_that_is_masked_as_a_whole_leaves_the_image():
    model = NETWORKS["flux"]
    labels = TEXT | {"text_mask": np.zeros((2, 3), bool)}
    none = apply(model, trained(model), X, T, labels)
    moved = apply(model, trained(model), X, T, labels | {"text": TEXT["text"] + 1})
    assert np.isfinite(none).all()
    np.testing.assert_array_equal(none, moved)


def test_a_mask_takes_the_kernel_that_has_one(monkeypatch):
    kernels = []

    def attend(q, k, v, kernel, mask):
        kernels.append((kernel, mask is None))
        return v

    monkeypatch.setattr(joint, "attend", attend)
    fused = {"attention": "cudnn", "dtype": jnp.bfloat16}
    trace(**fused)
    trace(**fused, labels=TEXT | {"text_mask": MASK})
    assert set(kernels) == {("cudnn", True), ("xla", False)}


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmdit, dual", "flux"])
def test_a_loop_and_what_is_computed_twice_change_nothing(name):
    model = NETWORKS[name]
    params = trained(model)

    def value_and_gradient(**how):
        changed = model.clone(**how)
        f = jax.jit(jax.grad(lambda x: jnp.sum(apply(changed, params, x, T, TEXT) ** 2)))
        return f(X)

    plain = value_and_gradient()
    other = value_and_gradient(scan=True, remat="dots")
    np.testing.assert_allclose(plain, other, rtol=1e-3, atol=1e-3 * np.abs(plain).max())


@pytest.mark.day_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmdit, dual", "flux"])
def test_the_jvp_is_the_transpose_of_the_vjp(name):
    model = NETWORKS[name]
    params = trained(model)
    dx, g = np.cos(X), np.sin(3 * X)

    @jax.jit
    def both(x):
        f = functools.partial(model.apply, {"params": params}, t=T, labels=TEXT)
        return jax.jvp(f, (x,), (dx,))[1], jax.vjp(f, x)[1](g)[0]

    tangent, cotangent = both(X)
    np.testing.assert_allclose(np.vdot(g, tangent), np.vdot(cotangent, dx), rtol=1e-3)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@each
def test_a_second_time_adds_nothing_at_first_and_matters_once_trained(name):
    model = NETWORKS[name].clone(span=True)
    params = trained(model)
    fresh = jax.tree.map(np.zeros_like, params["condition"]["span"]["dense_1"])
    of_one = jax.tree.map(lambda a: a, params)
    of_one["condition"] = {k: v for k, v in params["condition"].items() if k != "span"}
    as_fresh = of_one | {
        "condition": of_one["condition"]
        | {"span": {"dense_0": params["condition"]["span"]["dense_0"], "dense_1": fresh}}
    }
    labels = labels_of(model)
    plain = apply(NETWORKS[name], of_one, X, T, labels)
    span = Span(T, T + 0.125)
    np.testing.assert_allclose(apply(model, as_fresh, X, span, labels), plain, atol=1e-5)
    assert np.abs(apply(model, params, X, span, labels) - plain).max() > 1e-3


def _products(jaxpr) -> int:
    """Multiply-adds of all matrix products of a program."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            inner = np.prod([eqn.invars[0].aval.shape[i] for i in contracted])
            total += int(inner * np.prod(eqn.outvars[0].aval.shape))
        times = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
        for value in eqn.params.values():
            inner = value.jaxpr if isinstance(value, ClosedJaxpr) else value
            total += times * _products(inner) if isinstance(inner, Jaxpr) else 0
    return total


@pytest.mark.day_cases(2)
@pytest.mark.slow
@each
@pytest.mark.parametrize("span", [False, True])
def test_operations_are_those_of_the_program(name, span):
    model = NETWORKS[name].clone(span=span)
    one = jax.tree.map(lambda a: a[:1], (X, times_of(model), labels_of(model)))
    program = jax.make_jaxpr(model.apply)({"params": shapes(model)}, *one)
    model = model.clone(text_length=TEXT["text"].shape[1])
    assert model.forward_flops(X.shape[1:]) == 2 * _products(program.jaxpr)


@pytest.mark.quick_cases(2)
@each
def test_products_of_blocks_are_split_by_a_rule(name):
    model = NETWORKS[name]
    for keys, leaf in jax.tree_util.tree_leaves_with_path(shapes(model)):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        found = [axes for pattern, axes in model.sharding_rules if re.search(pattern, path)]
        fits = [axes for axes in found if len(axes) == leaf.ndim]
        if "block" in path and path.endswith("kernel"):
            assert len(fits) == 1, path
            assert ("last_block" in path) == (fits[0][0] is not None)


def test_bfloat16_does_the_products_of_the_blocks_in_bfloat16():
    model = NETWORKS["flux"].clone(dtype=jnp.bfloat16)
    program = str(jax.make_jaxpr(model.apply)({"params": shapes(model)}, X, T, TEXT))
    assert "bf16" in program
    assert {a.dtype for a in jax.tree.leaves(shapes(model))} == {jnp.dtype("float32")}


def test_packing_puts_the_numbers_of_a_channel_together():
    packed = pack(jnp.asarray(X), 2)
    by_patch = patchify(jnp.asarray(X), 2).reshape(2, 6, 4, 3)
    np.testing.assert_array_equal(packed.reshape(2, 6, 3, 4), by_patch.swapaxes(2, 3))
    np.testing.assert_array_equal(unpack(packed, 2, X.shape), X)


@pytest.mark.slow
def test_positions_are_the_middle_of_the_table_and_stay_as_they_are():
    table = jnp.arange(36.0).reshape(6, 6, 1)
    np.testing.assert_array_equal(cut(table, 2, 4).ravel(), [13, 14, 15, 16, 19, 20, 21, 22])
    model = NETWORKS["mmdit"]
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(apply(model, p, X, T, TEXT) ** 2)))
    gradient = gradient(trained(model))
    assert not gradient["positions"].any()
    assert gradient["patch"]["kernel"].any()


def trace(name="mmdit", x=X, t=T, labels=TEXT, **fields):
    """Nothing is computed here: an error that waited for a value would not come."""
    model = NETWORKS[name].clone(**fields)
    return jax.eval_shape(model.init, jax.random.key(0), x, t, labels)


GUIDED = TEXT | {"guidance": T}
NO_GUIDANCE = {"labels": GUIDED}


@pytest.mark.parametrize("name", ["mmdit", "flux"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": X[:, :3]}, "images of 3x6 do not divide into patches of 2x2"),
        ({"x": X[0]}, "x has shape .*, expected .batch, height, width, channels."),
        ({"x": X[..., :2]}, "x has 2 channels, and the network takes 3: encode .* channels=2"),
        ({"x": X.astype(np.int32)}, "x has dtype int32, expected a floating"),
        ({"t": T[0]}, "t has shape .*, expected one time per example"),
        ({"t": Span(T, T)}, "a Span came to a network of one time"),
        ({"span": True}, "takes Span.s, t. in the place of t and got one time"),
        ({"labels": None}, r'labels must be \{"text": \(2, n, 6\), "pooled": \(2, 5\)\}.*got None'),
        ({"labels": {"text": TEXT["text"]}}, r"labels must be .*; got the keys \['text'\]"),
        (NO_GUIDANCE, "a guidance scale came to a network that does not take one"),
        (
            {"labels": TEXT | {"text": TEXT["text"][..., :4]}},
            r'labels\["text"\] must be floats of shape \(2, n, 6\); got float32 of shape '
            r"\(2, 3, 4\): take the text encoders",
        ),
        ({"labels": TEXT | {"text": TEXT["text"][:, :0]}}, r"got float32 of shape \(2, 0, 6\)"),
        ({"labels": TEXT | {"pooled": TEXT["pooled"][0]}}, r'labels\["pooled"\] must be .*\(5,\)'),
        ({"labels": TEXT | {"pooled": np.ones((2, 5), int)}}, "must be floats .* got int32"),
        ({"labels": TEXT | {"pooled": 1.0}}, r"must be floats .* of shape \(\)"),
        (
            {"labels": TEXT | {"text_mask": MASK[:, :2]}},
            r"text_mask must be masks, bool of shape \(2, 3\); got bool of shape \(2, 2\)",
        ),
        ({"labels": TEXT | {"text_mask": np.ones((2, 3))}}, "text_mask must be .* got float"),
        ({"labels": TEXT | {"mask": MASK}}, r'may have "text_mask" beside.*got the keys'),
        ({"heads": 0}, "heads must be a whole number of at least 1; got 0"),
        ({"channels": 0}, "channels must be a whole number"),
        ({"text_length": 0}, "text_length must be a whole number"),
        ({"text_size": 0}, "text_size must be a whole number"),
        ({"dtype": jnp.int32}, "expected a floating dtype"),
        ({"remat": "some"}, "'some'.*Known: dots, full, none"),
        ({"attention": "flash"}, "'flash'.*Known: cudnn, xla"),
    ],
)
def test_wrong_input_is_refused(name, given, message):
    with pytest.raises(InputError, match=message):
        trace(name, **given)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("mmdit", {"depth": 0}, "depth must be a whole number of at least 1; got 0"),
        ("mmdit", {"width": 18}, "width=18 is not a multiple of heads=2 and of 4"),
        ("mmdit", {"dual": -1}, "dual must be a whole number of at least 0"),
        ("mmdit", {"dual": 2}, "dual=2 of depth=2 blocks .* the last block has none"),
        ("mmdit", {"spacing": 0.0}, "spacing must be a positive number"),
        ("mmdit", {"grid": 2}, "images of 4x6 have 3 patches along a side, .* at most 4 a side"),
        ("flux", {"axes": (2, 2)}, "axes=.2, 2. must be three even numbers, .* head, 8"),
        ("flux", {"axes": (1, 3, 4)}, "three even numbers"),
        ("flux", {"axes": (2, 2, 2)}, "three even numbers"),
        ("flux", {"axes": (8, 0, 0)}, "three even numbers, each of at least 2"),
        ("flux", {"guidance": 1}, "guidance must be True or False"),
        ("flux", {"heads": 3}, "width"),
        ("flux, guided", {}, r'"guidance": \(2,\).*got the keys .*pooled'),
        (
            "flux, guided",
            {"labels": TEXT | {"guidance": T[0]}},
            r'labels\["guidance"\] must be floats of shape \(2,\).*jnp.full',
        ),
    ],
)
def test_what_one_network_refuses(name, given, message):
    with pytest.raises(InputError, match=message):
        trace(name, **given)


@pytest.mark.day_cases(1)
@pytest.mark.slow
@each
def test_the_channels_may_be_left_to_what_comes(name):
    model = NETWORKS[name]
    assert shapes(model.clone(channels=None)) == shapes(model)
    assert model.head_sizes() == {8}


def test_the_axes_of_flux_are_usual():
    assert flux.usual_axes(128) == Flux.axes
    for head in range(8, 129, 8):
        axes = flux.usual_axes(head)
        assert (sum(axes), [n % 2 for n in axes]) == (head, [0, 0, 0])
        assert min(axes) > 0


def test_presets_are_known_by_name():
    assert mmdit.preset("SD3.5-large", dtype=jnp.bfloat16).dtype == jnp.bfloat16
    assert flux.preset("FLUX.1-dev").guidance
    assert not flux.preset("FLUX.1-schnell").guidance
    with pytest.raises(InputError, match=r"MMDiT preset 'SD3'.*Known: SD3-medium"):
        mmdit.preset("SD3")
    with pytest.raises(InputError, match="field of Flux 'depth'"):
        flux.preset("FLUX.1-dev", depth=2)
