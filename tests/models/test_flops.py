"""The analytic counts are those of the program that is traced, and of the papers."""

import dataclasses
import math
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr

from fmjax.conditions import ClassIds, ImageCondition, Mask, Sequence, Vector, nulls
from fmjax.conventions import Span
from fmjax.models import dit, mlp, token_transformer, unet
from fmjax.models.flops import training_flops

IMAGE, POINT = (8, 4, 3), (5,)
DIT = {"patch_size": 2, "width": 24, "depth": 3, "heads": 2}
UNET = {"width": 8, "depth": 2, "channel_mult": (1, 2), "heads": 2, "groups": 4}
TWO = {"class": ClassIds(7), "age": Vector(3)}
EVERY = TWO | {
    "text": Sequence(5, 4),
    "text_mask": Mask(5, of="text"),
    "notes": Sequence(3, 2),
    "image": ImageCondition((8, 4, 2)),
}
MODELS = [
    (dit.DiT(**DIT, conditions=ClassIds(7)), IMAGE),
    (dit.DiT(**DIT, mlp_ratio=2.5), IMAGE),
    (dit.DiT(**DIT, conditions=ClassIds(7), guidance=True), (6, 6, 1)),
    (mlp.MLP(width=16, depth=3, conditions=ClassIds(4)), POINT),
    (dit.DiT(**DIT, conditions=TWO, span=True), IMAGE),
    (mlp.MLP(width=16, depth=2, conditions=TWO, span=True), POINT),
    (mlp.MLP(width=16, depth=1, time_features=8, guidance=True), (2, 3)),
    (mlp.MLP(width=16, depth=2, span=True, parts=("divergence", "diagonal")), (2, 3)),
    (dit.DiT(**DIT, span=True, parts=("divergence", "diagonal")), IMAGE),
    (dit.DiT(**DIT, span=True, parts=("divergence",)), IMAGE),
    (dit.DiT(**DIT, conditions=EVERY), IMAGE),
    (mlp.MLP(width=16, depth=2, conditions=EVERY), POINT),
    (dit.DiT(**DIT, mlp="swiglu", norm="rms", qk_norm=True, rope=True, bottleneck=5), IMAGE),
    (token_transformer.TokenTransformer(9, 24, 3, 2, conditions=TWO), (6,)),
    (token_transformer.TokenTransformer(9, 24, 2, 2, tied=True, mlp="swiglu"), (5,)),
    (dit.DiT(**DIT, conditions=EVERY, label_tokens=5, label_tokens_from=1), IMAGE),
    (unet.UNet(**UNET, scale_shift=False), IMAGE),
    (unet.UNet(**UNET, attention_factors=(), resampling="pool"), IMAGE),
    (unet.UNet(**UNET, attention_factors=(1, 2), resampling="residual", guidance=True), IMAGE),
    (unet.UNet(**UNET, conditions=EVERY, span=True, parts=("divergence", "diagonal")), IMAGE),
]


def _apply(model, shape: tuple[int, ...], batch: int):
    """The forward pass as a function of its parameters, and shapes of these and of its inputs."""
    x, t = jnp.zeros((batch, *shape)), jnp.zeros(batch)
    x = x.astype(jnp.int32) if hasattr(model, "vocabulary") else x
    labels = nulls(model.conditions, batch)
    t = Span(t, t) if getattr(model, "span", False) else t
    if model.guidance:
        labels = {"labels": labels, "guidance": jnp.ones(batch)}
    params = jax.eval_shape(model.init, jax.random.key(0), x, t, labels)
    return model.apply, (params, x, t, labels)


def _products(jaxpr: Jaxpr) -> int:
    """Operations of the products and convolutions of a jaxpr and of all that it calls."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inner = math.prod(equation.invars[0].aval.shape[i] for i in contracted)
            total += 2 * inner * equation.outvars[0].aval.size
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape  # height, width, channels in and out
            total += 2 * math.prod(kernel[:3]) * equation.outvars[0].aval.size
        turns = equation.params["length"] if equation.primitive.name == "scan" else 1
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: isinstance(v, Jaxpr)):
            if isinstance(value, ClosedJaxpr):
                total += turns * _products(value.jaxpr)
            elif isinstance(value, Jaxpr):
                total += turns * _products(value)
    return total


@pytest.mark.day_cases(7)
@pytest.mark.slow
@pytest.mark.parametrize(("model", "shape"), MODELS)
def test_the_forward_count_is_that_of_the_traced_products(model, shape):
    function, args = _apply(model, shape, batch=2)
    assert 2 * model.forward_flops(shape) == _products(jax.make_jaxpr(function)(*args).jaxpr)


@pytest.mark.parametrize(("model", "shape"), [MODELS[0], MODELS[3]])
def test_training_takes_three_times_the_forward_pass(model, shape):
    """All but the products whose gradient nothing needs: those by the inputs, which are data."""
    function, (params, *inputs) = _apply(model, shape, batch=2)
    gradient = jax.grad(lambda p: function(p, *inputs).sum())
    counted = 2 * training_flops(model, shape)
    traced = _products(jax.make_jaxpr(gradient)(params).jaxpr)
    assert 0.85 * counted < traced < counted


@pytest.mark.parametrize(
    ("size", "giga"), [("S", 6.06), ("B", 23.01), ("L", 80.71), ("XL", 118.64)]
)
def test_the_papers_sizes(size, giga):
    """Multiply-adds of a forward pass at 256x256 in units of 1e9: arXiv:2212.09748, appendix."""
    model = dit.preset(f"DiT-{size}/2", conditions=ClassIds(1000))
    assert model.forward_flops((32, 32, 4)) / 2e9 == pytest.approx(giga, rel=0.002)


def test_another_network_has_no_count():
    assert training_flops(object(), IMAGE) is None


class Counted(nn.Module):
    """Embeds a number per example by one product."""

    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width)(x[:, None])

    @nn.nowrap
    def forward_flops(self):
        return 2 * self.width


class Uncounted(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width)(x[:, None])


@dataclasses.dataclass(frozen=True)
class Number:
    """A condition that brings its own embedding."""

    module: type[nn.Module]
    drop_rate: float = 0.0
    kind: ClassVar[str] = "number"

    def null_value(self):
        return np.float32(0)

    def check(self, name, x, batch):
        pass

    def embedder(self, width, name):
        return self.module(width, name=name)


@pytest.mark.parametrize(
    "make",
    [partial(dit.DiT, **DIT), partial(mlp.MLP, width=16), partial(unet.UNet, **UNET)],
)
def test_an_embedding_of_your_own_is_counted_where_it_says(make):
    plain, counted = make(), make(conditions=Number(Counted))
    width = plain.width * (4 if isinstance(plain, unet.UNet) else 1)  # of the embedding
    assert counted.forward_flops(IMAGE) == plain.forward_flops(IMAGE) + 2 * width
    assert make(conditions=Number(Uncounted)).forward_flops(IMAGE) is None
    assert training_flops(make(conditions=Number(Uncounted)), IMAGE) is None


@pytest.mark.slow
def test_xla_counts_a_few_percent_more():
    """XLA adds what is not a matrix product, little at this width; its loops count once."""
    model, shape = dit.DiT(patch_size=2, width=256, depth=2, heads=4), (16, 16, 4)
    function, args = _apply(model, shape, batch=4)
    xla = jax.jit(function).lower(*args).compile().cost_analysis()["flops"]
    assert 1 < xla / (4 * model.forward_flops(shape)) < 1.05


@pytest.mark.slow
def test_xla_counts_a_convolution_at_the_border_of_an_image_for_less():
    """It leaves out the products by the zeros around an image, which a chip computes."""
    model = unet.UNet(width=64, depth=1, channel_mult=(1, 1), heads=1, attention_factors=())
    shape = (32, 32, 3)
    function, args = _apply(model, shape, batch=2)
    xla = jax.jit(function).lower(*args).compile().cost_analysis()["flops"]
    assert 0.9 < xla / (2 * model.forward_flops(shape)) < 1.05
