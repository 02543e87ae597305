"""A judge of small images: ``python -m benchmarks.quality.image_classifier --data=mnist.npz``.

Trains a convolutional network on the training split of a set of images in classes, and on nothing
else: no sample of a flow is ever shown to it. Images are moved by up to two pixels, and with
``--flip`` mirrored at random. Prints the accuracy on the test split, and writes the weights, with
what was read and reached in the file's header, as ``.safetensors``.

What the last layer reads, 128 numbers an image, serves as features of a Fréchet distance:

    features = read_classifier(path).features          # uint8 (n, H, W, C) -> float32 (n, 128)
"""

import argparse
import dataclasses
import functools
import hashlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from fmjax.data.load import load
from fmjax.data.pixels import to_unit
from fmjax.data.read_own import read_own
from fmjax.metrics import Features, network_features
from fmjax.storage.safetensors import read_header, read_weights, write_weights

BATCH = 128
LEARNING_RATE = 3e-3  # at its peak
WEIGHT_DECAY = 0.02
AT_ONCE = 500  # images that are judged at a time


class ConvBlock(nn.Module):
    """A convolution, normalised, and ReLU; with a residual connection where nothing changes shape.

    Attributes:
        width: channels.
        stride: 2 with kernels of 4 x 4, or 1 with kernels of 3 x 3 and the input added.
    """

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(n, h, w, c) -> (n, h / stride, w / stride, width)."""
        side = 4 if self.stride == 2 else 3
        y = nn.Conv(self.width, (side, side), strides=self.stride, use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(y))
        return y if self.stride == 2 else x + y


class ImageClassifier(nn.Module):
    """A residual network of three resolutions.

    Attributes:
        classes: how many.
        widths: channels at a half, a quarter and an eighth of the resolution.
    """

    classes: int
    widths: tuple[int, ...] = (32, 64, 128)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Images (n, h, w, c) in [-1, 1] to logits (n, classes) and features (n, widths[-1])."""
        for width in self.widths:
            for stride in (2, 1, 1):
                x = ConvBlock(width, stride)(x, train)
        features = x.mean(axis=(1, 2))
        return nn.Dense(self.classes)(features), features


class Examples(NamedTuple):
    """Images, uint8 (n, H, W, C), and their classes (n,)."""

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """A trained classifier.

    Attributes:
        name: of the data that it was trained on.
        network: its module.
        variables: its weights.
    """

    name: str
    network: ImageClassifier
    variables: Any

    def classify(self, images: np.ndarray) -> np.ndarray:
        """The class of each image, uint8 (n, H, W, C): (n,)."""
        return self._outputs("logits", 0)(images).argmax(axis=1)

    @functools.cached_property
    def features(self) -> Features:
        """What the last layer reads of images, uint8 (n, H, W, C): float32 (n, d)."""
        return self._outputs(f"{self.name} classifier", 1)

    def _outputs(self, name: str, number: int) -> Features:
        def apply(variables: Any, images: jax.Array) -> jax.Array:
            return self.network.apply(variables, to_unit(images))[number]

        return network_features(name, apply, self.variables, batch=AT_ONCE)


def read_classifier(path: Path) -> Judge:
    """Reads what this script has written."""
    about = read_header(path)
    network = ImageClassifier(about.shapes["params.Dense_0.bias"][0])
    shape = tuple(map(int, about.metadata["shape"].split("x")))
    target = jax.eval_shape(partial(_initial, network, shape))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), target)
    return Judge(about.metadata["data"], network, read_weights(path, target))


def _initial(network: ImageClassifier, shape: tuple[int, ...]) -> Any:
    return network.init(jax.random.key(0), jnp.zeros((1, *shape)))


def train(name: str, examples: Examples, epochs: int, shift: int, flip: bool) -> Judge:
    """Fits a classifier to examples.

    Args:
        name: of the data.
        examples: of the training split.
        epochs: how often each is seen.
        shift: by how many pixels images are moved, at most.
        flip: whether images are mirrored at random.
    """
    network = ImageClassifier(int(examples.labels.max()) + 1)
    variables = _initial(network, examples.images.shape[1:])
    steps = epochs * (len(examples.images) // BATCH)
    rate = optax.cosine_onecycle_schedule(steps, LEARNING_RATE, pct_start=0.2)
    optimizer = optax.adamw(rate, weight_decay=WEIGHT_DECAY)
    state = optimizer.init(variables["params"])

    def loss(params: Any, running: Any, images: jax.Array, labels: jax.Array) -> Any:
        found = network.apply(
            {"params": params, "batch_stats": running}, images, train=True, mutable="batch_stats"
        )
        (logits, _), running = found
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), running["batch_stats"]

    @jax.jit
    def step(variables: Any, state: Any, key: jax.Array, images: jax.Array, labels: jax.Array):
        moved = _moved(key, to_unit(images), shift, flip)
        params, running = variables["params"], variables["batch_stats"]
        both = jax.value_and_grad(loss, has_aux=True)(params, running, moved, labels)
        (value, running), gradient = both
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return {"params": params, "batch_stats": running}, state, value

    began = time.time()
    for number, chosen in enumerate(_batches(len(examples.images), epochs)):
        key = jax.random.fold_in(jax.random.key(1), number)
        batch = examples.images[chosen], examples.labels[chosen]
        variables, state, value = step(variables, state, key, *batch)
        if number % 200 == 199:
            print(f"step {number + 1}/{steps}  loss {value:.4f}  {time.time() - began:.0f} s")
    return Judge(name, network, variables)


def _batches(count: int, epochs: int) -> Iterator[np.ndarray]:
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(count)
        yield from order[: count - count % BATCH].reshape(-1, BATCH)


def _moved(key: jax.Array, images: jax.Array, shift: int, flip: bool) -> jax.Array:
    """Images moved by up to some pixels, and mirrored with probability 1/2 if wanted."""
    moves, mirrors = jax.random.split(key)
    border = ((0, 0), (shift, shift), (shift, shift), (0, 0))
    padded = jnp.pad(images, border, constant_values=-1)
    starts = jax.random.randint(moves, (len(images), 2), 0, 2 * shift + 1)
    corners = jnp.pad(starts, ((0, 0), (0, 1)))
    cut = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, at, images.shape[1:]))
    images = cut(padded, corners)
    if not flip:
        return images
    chosen = jax.random.bernoulli(mirrors, shape=(len(images), 1, 1, 1))
    return jnp.where(chosen, images[:, :, ::-1], images)


def read_examples(data: str, data_dir: str | None) -> tuple[Examples, Examples]:
    """The training and the test split of a prepared set, or of an .npz."""
    if data.endswith(".npz"):
        own = read_own(data)
        (classes,) = own.conditions
        parts = (own.train.arrays, own.test.arrays)
        return tuple(Examples(part["x"], part[classes].astype(np.int32)) for part in parts)
    dataset = load(data, data_dir)
    return tuple(Examples(*dataset.arrays(split)) for split in ("train", "test"))


def main() -> None:
    """Trains, tests and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a prepared set, or x_train ... in an .npz")
    parser.add_argument("--data_dir", help="where prepared sets lie")
    parser.add_argument("--out", type=Path, default=Path("classifier.safetensors"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--shift", type=int, default=2, help="move images by up to so many pixels")
    parser.add_argument("--flip", action="store_true", help="mirror images at random")
    arguments = parser.parse_args()
    examples, test = read_examples(arguments.data, arguments.data_dir)
    began = time.time()
    name = Path(arguments.data).stem
    judge = train(name, examples, arguments.epochs, arguments.shift, arguments.flip)
    seconds = time.time() - began
    right = float((judge.classify(test.images) == test.labels).mean())
    about = {
        "data": name,
        "shape": "x".join(map(str, test.images.shape[1:])),
        "epochs": str(arguments.epochs),
        "shift": str(arguments.shift),
        "flip": str(arguments.flip),
        "test_accuracy": f"{right:.4f}",
    }
    write_weights(arguments.out, judge.variables, metadata=about)
    digest = hashlib.sha256(arguments.out.read_bytes()).hexdigest()
    print(f"{right:.2%} of {len(test.labels):,} test images, after {seconds:.0f} s of training")
    print(f"{arguments.out}: sha256 {digest}")


if __name__ == "__main__":
    main()
