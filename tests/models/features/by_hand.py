"""A second way through networks of features: torch's tensors by name, padding by hand, lax alone.

Written from the published networks' own descriptions, in (n, c, h, w) and with nothing of fmjax in
it, so that a mistake in a layout, a padding, a pooling or a name shows.
"""

import numpy as np
from jax import lax

EPSILON = 1e-3


def random_tensors(shapes, seed=0):
    """Tensors of these shapes, with which activations neither vanish nor grow."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            scale = np.sqrt(2 / np.prod(shape[1:]))
            found[name] = (scale * rng.normal(size=shape)).astype(np.float32)
        elif name.endswith("running_var"):
            found[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            mean = 1.0 if name.endswith("weight") else 0.0
            found[name] = (mean + 0.1 * rng.normal(size=shape)).astype(np.float32)
    return found


class ByHand:
    """Layers by the names of the tensors."""

    def __init__(self, tensors):
        self.tensors = tensors

    def conv(self, x, name, stride=1, pad=((0, 0), (0, 0)), groups=1):
        y = lax.conv_general_dilated(
            x,
            self.tensors[f"{name}.weight"],
            (stride, stride),
            pad,
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
            feature_group_count=groups,
        )
        return np.asarray(y)

    def norm(self, x, name):
        mean, var, scale, shift = (
            self.tensors[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(var + EPSILON) * scale + shift

    def dense(self, x, name):
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]


def windows(x, stride, pad, start, reduce):
    ends = ((0, 0), (0, 0), (pad, pad), (pad, pad))
    strides = (1, 1, stride, stride)
    return np.asarray(lax.reduce_window(x, start, reduce, (1, 1, 3, 3), strides, ends))


def maximum(x, stride, pad):
    return windows(x, stride, pad, -np.inf, lax.max)


def average_without_padding(x):
    ones = np.ones((1, 1, *x.shape[2:]), np.float32)
    return windows(x, 1, 1, 0.0, lax.add) / windows(ones, 1, 1, 0.0, lax.add)
