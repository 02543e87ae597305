"""InceptionV3 as the Fréchet inception distance uses it.

The network of TensorFlow's ``inception-2015-12-05``, in the form and under the names of
pytorch-fid. It differs from the usual InceptionV3 (Szegedy et al., arXiv:1512.00567) in its
averages, which leave the padding out, in a maximum in place of the last average, and in 1,008
classes. Measures are comparable only if the input is prepared alike, too: see `PREPARATIONS`.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, UInt8

from fmjax.checks import check_name
from fmjax.conventions import Array
from fmjax.models.features.resizing import as_colour, resize_half_pixel, resize_tf1

Padding = tuple[tuple[int, int], tuple[int, int]] | str


def _as_pytorch_fid(images: Array, size: int) -> Array:
    return resize_half_pixel(as_colour(images), size, antialias=False) / 127.5 - 1


def _as_tensorflow(images: Array, size: int) -> Array:
    return (resize_tf1(as_colour(images), size) - 128) / 128


PREPARATIONS = {"pytorch": _as_pytorch_fid, "tensorflow": _as_tensorflow}
"""How images become input: as in pytorch-fid, or as in TTUR's FID, ADM's evaluator, torch-fidelity.

Both are bilinear without antialiasing; they differ in where the centre of a pixel lies, and by half
a grey level.
"""


class ConvBlock(nn.Module):
    """A convolution without bias, normalised by stored statistics, and ReLU.

    Attributes:
        width: channels.
        kernel: height and width.
        stride: of both axes.
        padding: how many zeros at either end of each axis; "SAME" keeps the size.
    """

    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: Padding = "SAME"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n H W C"]:
        """(n, h, w, c) -> (n, h', w', width)."""
        x = nn.Conv(
            self.width,
            self.kernel,
            strides=self.stride,
            padding=self.padding,
            use_bias=False,
            name="conv",
        )(x)
        x = nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(x)
        return nn.relu(x)


def _average(x: Array) -> Array:
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def _maximum(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), padding="SAME")


def _halved(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), (2, 2))


def _joined(parts: list[Array]) -> Array:
    return jnp.concatenate(parts, axis=-1)


class BlockA(nn.Module):
    """35 x 35: kernels of 1, 5 and twice 3, and an average."""

    pooled: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n H W C"]:
        """(n, h, w, c) -> (n, h, w, 224 + pooled)."""
        one = ConvBlock(64, name="branch1x1")(x)
        five = ConvBlock(48, name="branch5x5_1")(x)
        five = ConvBlock(64, (5, 5), name="branch5x5_2")(five)
        three = ConvBlock(64, name="branch3x3dbl_1")(x)
        three = ConvBlock(96, (3, 3), name="branch3x3dbl_2")(three)
        three = ConvBlock(96, (3, 3), name="branch3x3dbl_3")(three)
        pool = ConvBlock(self.pooled, name="branch_pool")(_average(x))
        return _joined([one, five, three, pool])


class BlockB(nn.Module):
    """35 x 35 to 17 x 17."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n H W C"]:
        """(n, h, w, c) -> (n, h', w', 480 + c)."""
        once = ConvBlock(384, (3, 3), 2, "VALID", name="branch3x3")(x)
        twice = ConvBlock(64, name="branch3x3dbl_1")(x)
        twice = ConvBlock(96, (3, 3), name="branch3x3dbl_2")(twice)
        twice = ConvBlock(96, (3, 3), 2, "VALID", name="branch3x3dbl_3")(twice)
        return _joined([once, twice, _halved(x)])


class BlockC(nn.Module):
    """17 x 17: kernels of 7 in two parts, once and twice, and an average."""

    inner: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n H W C"]:
        """(n, h, w, c) -> (n, h, w, 768)."""
        inner, row, column = self.inner, (1, 7), (7, 1)
        one = ConvBlock(192, name="branch1x1")(x)
        once = ConvBlock(inner, name="branch7x7_1")(x)
        once = ConvBlock(inner, row, name="branch7x7_2")(once)
        once = ConvBlock(192, column, name="branch7x7_3")(once)
        twice = ConvBlock(inner, name="branch7x7dbl_1")(x)
        twice = ConvBlock(inner, column, name="branch7x7dbl_2")(twice)
        twice = ConvBlock(inner, row, name="branch7x7dbl_3")(twice)
        twice = ConvBlock(inner, column, name="branch7x7dbl_4")(twice)
        twice = ConvBlock(192, row, name="branch7x7dbl_5")(twice)
        pool = ConvBlock(192, name="branch_pool")(_average(x))
        return _joined([one, once, twice, pool])


class BlockD(nn.Module):
    """17 x 17 to 8 x 8."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n H W C"]:
        """(n, h, w, c) -> (n, h', w', 512 + c)."""
        three = ConvBlock(192, name="branch3x3_1")(x)
        three = ConvBlock(320, (3, 3), 2, "VALID", name="branch3x3_2")(three)
        seven = ConvBlock(192, name="branch7x7x3_1")(x)
        seven = ConvBlock(192, (1, 7), name="branch7x7x3_2")(seven)
        seven = ConvBlock(192, (7, 1), name="branch7x7x3_3")(seven)
        seven = ConvBlock(192, (3, 3), 2, "VALID", name="branch7x7x3_4")(seven)
        return _joined([three, seven, _halved(x)])


class BlockE(nn.Module):
    """8 x 8: kernels of 3 that part into a row and a column, and an average or a maximum."""

    maximum: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n H W C"]:
        """(n, h, w, c) -> (n, h, w, 2048)."""
        row, column = (1, 3), (3, 1)
        one = ConvBlock(320, name="branch1x1")(x)
        once = ConvBlock(384, name="branch3x3_1")(x)
        parts = [
            ConvBlock(384, row, name="branch3x3_2a")(once),
            ConvBlock(384, column, name="branch3x3_2b")(once),
        ]
        twice = ConvBlock(448, name="branch3x3dbl_1")(x)
        twice = ConvBlock(384, (3, 3), name="branch3x3dbl_2")(twice)
        parts += [
            ConvBlock(384, row, name="branch3x3dbl_3a")(twice),
            ConvBlock(384, column, name="branch3x3dbl_3b")(twice),
        ]
        pooled = _maximum(x) if self.maximum else _average(x)
        return _joined([one, *parts, ConvBlock(192, name="branch_pool")(pooled)])


class InceptionV3(nn.Module):
    """The network; its parts are called as the tensors of pytorch-fid's file.

    Attributes:
        preparation: of images to input, a name of `PREPARATIONS`.
        size: of the input; the FID is measured at 299 alone.

    Example:
        >>> model = InceptionV3()
        >>> images = jnp.zeros((1, 32, 32, 3), jnp.uint8)
        >>> a, b = jax.eval_shape(model.init_with_output, jax.random.key(0), images)[0]
        >>> a.shape, b.shape
        ((1, 1008), (1, 2048))
    """

    preparation: str = "pytorch"
    size: int = 299

    @nn.compact
    def __call__(
        self, images: UInt8[Array, "n h w c"]
    ) -> tuple[Float[Array, "n 1008"], Float[Array, "n 2048"]]:
        """Logits and features of images.

        Args:
            images: uint8 ``(n, h, w, 1 or 3)`` of any size.

        Returns:
            ``(n, 1008)`` and ``(n, 2048)``, float32.

        Raises:
            InputError: the images have another shape or dtype, or the preparation is unknown.
        """
        check_name("preparation", self.preparation, PREPARATIONS)
        x = PREPARATIONS[self.preparation](images, self.size)
        x = ConvBlock(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = ConvBlock(32, (3, 3), padding="VALID", name="Conv2d_2a_3x3")(x)
        x = ConvBlock(64, (3, 3), name="Conv2d_2b_3x3")(x)
        x = _halved(x)
        x = ConvBlock(80, padding="VALID", name="Conv2d_3b_1x1")(x)
        x = ConvBlock(192, (3, 3), padding="VALID", name="Conv2d_4a_3x3")(x)
        x = _halved(x)
        for name, pooled in (("b", 32), ("c", 64), ("d", 64)):
            x = BlockA(pooled, name=f"Mixed_5{name}")(x)
        x = BlockB(name="Mixed_6a")(x)
        for name, inner in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
            x = BlockC(inner, name=f"Mixed_6{name}")(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(maximum=False, name="Mixed_7b")(x)
        x = BlockE(maximum=True, name="Mixed_7c")(x)
        features = x.mean(axis=(1, 2))
        return nn.Dense(1008, name="fc")(features), features
