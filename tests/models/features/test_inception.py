"""InceptionV3 has the published layers, and computes what a second, independent way computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.models.features.inception import PREPARATIONS, InceptionV3
from fmjax.models.features.tensors import tensor_shapes, variables_from_tensors
from tests.models.features.by_hand import ByHand, average_without_padding, maximum, random_tensors

SHAPES = tensor_shapes(InceptionV3())


def test_the_layers_are_the_published_ones():
    # 94 convolutions, each with its weight and four of its norm, and the last layer with two.
    assert len(SHAPES) == 94 * 5 + 2
    # As keras counts InceptionV3 without its norms' scales, which it leaves out, for 1,000 classes.
    scales = sum(s[0] for name, s in SHAPES.items() if name.endswith("bn.weight"))
    assert sum(map(np.prod, SHAPES.values())) == 23_851_784 + scales + 8 * 2049
    expected = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_5d.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6c.branch7x7_2.conv.weight": (160, 160, 1, 7),
        "Mixed_6e.branch7x7dbl_2.conv.weight": (192, 192, 7, 1),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch1x1.conv.weight": (320, 1280, 1, 1),
        "Mixed_7c.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "fc.weight": (1008, 2048),
        "fc.bias": (1008,),
    }
    assert {name: SHAPES[name] for name in expected} == expected


class Inception(ByHand):
    """The network of pytorch-fid."""

    def block(self, x, name, stride=1, pad=(0, 0)):
        rows, columns = pad
        y = self.conv(x, f"{name}.conv", stride, ((rows, rows), (columns, columns)))
        return np.maximum(self.norm(y, f"{name}.bn"), 0)

    def row(self, x, name, *steps):
        for step, stride, pad in steps:
            x = self.block(x, f"{name}.{step}", stride, pad)
        return x

    def pooled(self, x, name, pool=average_without_padding):
        return self.block(pool(x), f"{name}.branch_pool")

    def a(self, x, m):
        same = (0, 0)
        parts = [
            self.row(x, m, ("branch1x1", 1, same)),
            self.row(x, m, ("branch5x5_1", 1, same), ("branch5x5_2", 1, (2, 2))),
            self.row(
                x,
                m,
                ("branch3x3dbl_1", 1, same),
                ("branch3x3dbl_2", 1, (1, 1)),
                ("branch3x3dbl_3", 1, (1, 1)),
            ),
            self.pooled(x, m),
        ]
        return np.concatenate(parts, axis=1)

    def b(self, x, m):
        twice = (("branch3x3dbl_1", 1, (0, 0)), ("branch3x3dbl_2", 1, (1, 1)))
        parts = [
            self.row(x, m, ("branch3x3", 2, (0, 0))),
            self.row(x, m, *twice, ("branch3x3dbl_3", 2, (0, 0))),
            maximum(x, 2, 0),
        ]
        return np.concatenate(parts, axis=1)

    def c(self, x, m):
        wide, high = (0, 3), (3, 0)
        once = zip(("1", "2", "3"), ((0, 0), wide, high), strict=True)
        twice = zip("12345", ((0, 0), high, wide, high, wide), strict=True)
        parts = [
            self.row(x, m, ("branch1x1", 1, (0, 0))),
            self.row(x, m, *((f"branch7x7_{n}", 1, pad) for n, pad in once)),
            self.row(x, m, *((f"branch7x7dbl_{n}", 1, pad) for n, pad in twice)),
            self.pooled(x, m),
        ]
        return np.concatenate(parts, axis=1)

    def d(self, x, m):
        seven = zip("1234", (1, 1, 1, 2), ((0, 0), (0, 3), (3, 0), (0, 0)), strict=True)
        parts = [
            self.row(x, m, ("branch3x3_1", 1, (0, 0)), ("branch3x3_2", 2, (0, 0))),
            self.row(x, m, *((f"branch7x7x3_{n}", s, pad) for n, s, pad in seven)),
            maximum(x, 2, 0),
        ]
        return np.concatenate(parts, axis=1)

    def e(self, x, m, pool):
        once = self.row(x, m, ("branch3x3_1", 1, (0, 0)))
        twice = self.row(x, m, ("branch3x3dbl_1", 1, (0, 0)), ("branch3x3dbl_2", 1, (1, 1)))
        parts = [
            self.row(x, m, ("branch1x1", 1, (0, 0))),
            self.row(once, m, ("branch3x3_2a", 1, (0, 1))),
            self.row(once, m, ("branch3x3_2b", 1, (1, 0))),
            self.row(twice, m, ("branch3x3dbl_3a", 1, (0, 1))),
            self.row(twice, m, ("branch3x3dbl_3b", 1, (1, 0))),
            self.pooled(x, m, pool),
        ]
        return np.concatenate(parts, axis=1)

    def __call__(self, x):
        x = self.block(x, "Conv2d_1a_3x3", 2)
        x = self.block(self.block(x, "Conv2d_2a_3x3"), "Conv2d_2b_3x3", 1, (1, 1))
        x = self.block(maximum(x, 2, 0), "Conv2d_3b_1x1")
        x = maximum(self.block(x, "Conv2d_4a_3x3"), 2, 0)
        for name in ("5b", "5c", "5d"):
            x = self.a(x, f"Mixed_{name}")
        x = self.b(x, "Mixed_6a")
        for name in ("6b", "6c", "6d", "6e"):
            x = self.c(x, f"Mixed_{name}")
        x = self.d(x, "Mixed_7a")
        x = self.e(x, "Mixed_7b", average_without_padding)
        x = self.e(x, "Mixed_7c", lambda x: maximum(x, 1, 1))
        features = x.mean(axis=(2, 3))
        return self.dense(features, "fc"), features


@pytest.mark.nightly
def test_a_second_way_computes_the_same():
    network = InceptionV3(size=139)  # 3 x 3 at the end, so that borders count everywhere
    tensors = random_tensors(SHAPES)
    images = np.random.default_rng(1).integers(0, 256, (2, 139, 139, 3), np.uint8)
    variables = variables_from_tensors(network, tensors, "tensors")
    logits, features = network.apply(variables, jnp.asarray(images))
    by_hand = Inception(tensors)(images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
    assert float(jnp.std(features)) > 0.01
    for found, expected in zip((logits, features), by_hand, strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "low", "high"), [("pytorch", -1.0, 1.0), ("tensorflow", -1.0, 127 / 128)]
)
def test_preparations_have_the_published_range(name, low, high):
    images = jnp.stack([jnp.zeros((20, 20, 1), jnp.uint8), jnp.full((20, 20, 1), 255, jnp.uint8)])
    x = PREPARATIONS[name](images, 299)
    assert x.shape == (2, 299, 299, 3)
    np.testing.assert_allclose(x[0], low, atol=1e-5)
    np.testing.assert_allclose(x[1], high, atol=1e-5)


def test_other_input_is_refused():
    with pytest.raises(InputError, match="preparation 'keras'"):
        jax.eval_shape(
            InceptionV3("keras").init, jax.random.key(0), jnp.zeros((1, 8, 8, 3), jnp.uint8)
        )
    with pytest.raises(InputError, match="takes images of uint8"):
        jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
