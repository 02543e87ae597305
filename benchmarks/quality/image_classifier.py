"""A judge of small images: ``python -m benchmarks.quality.image_classifier --data=mnist.npz``.

Trains a convolutional network on the training split of a set of images in classes, and on nothing
else: no sample of a flow is ever shown to it. Images are moved by up to two pixels, and with
``--flip`` mirrored at random. Prints the accuracy on the test split, and writes the weights, with
what was read and reached in the file's header, as ``.safetensors``.

What the last layer reads, 128 numbers an image, serves as features of a Fréchet distance:

    features = read_classifier(path).features          # uint8 (n, H, W, C) -> float32 (n, 128)
"""

import argparse
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
from fmjax.data.images.npz import read_npz

from fmjax.data import load
from fmjax.data.pixels import to_unit
from fmjax.storage.safetensors import read_header, read_weights, write_weights

SHIFT = 2  # pixels
BATCH = 128
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
AT_ONCE = 500  # images that are judged at a time


class ResidualBlock(nn.Module):
    """x + f(x), f two normalised 3x3 convolutions of as many channels as x."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(n, h, w, c) -> (n, h, w, c)."""
        y = x
        for last in (False, True):
            y = nn.relu(nn.GroupNorm(num_groups=8)(y))
            start = nn.initializers.zeros if last else nn.initializers.he_normal()
            y = nn.Conv(x.shape[-1], (3, 3), kernel_init=start)(y)
        return x + y


class ImageClassifier(nn.Module):
    """A residual network of three resolutions.

    Attributes:
        classes: how many.
        widths: channels at a half, a quarter and an eighth of the resolution.
    """

    classes: int
    widths: tuple[int, ...] = (32, 64, 128)

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images (n, h, w, c) in [-1, 1] to logits (n, classes) and features (n, widths[-1])."""
        for width in self.widths:
            x = nn.Conv(width, (4, 4), strides=2)(x)
            x = ResidualBlock()(x)
        features = nn.relu(nn.GroupNorm(num_groups=8)(x)).mean(axis=(1, 2))
        return nn.Dense(self.classes)(features), features


class Examples(NamedTuple):
    """Images, uint8 (n, H, W, C), and their classes (n,)."""

    images: np.ndarray
    labels: np.ndarray


class Judge(NamedTuple):
    """A trained classifier."""

    network: ImageClassifier
    params: Any

    def classify(self, images: np.ndarray) -> np.ndarray:
        """The class of each image, uint8 (n, H, W, C): (n,)."""
        return np.concatenate([np.argmax(logits, axis=1) for logits, _ in self._outputs(images)])

    def features(self, images: np.ndarray) -> np.ndarray:
        """What the last layer reads of images, uint8 (n, H, W, C): float32 (n, d)."""
        return np.concatenate([np.asarray(features) for _, features in self._outputs(images)])

    def _outputs(self, images: np.ndarray) -> Iterator[tuple[jax.Array, jax.Array]]:
        for start in range(0, len(images), AT_ONCE):
            yield _apply(self.network, self.params, images[start : start + AT_ONCE])


@partial(jax.jit, static_argnums=0)
def _apply(network: ImageClassifier, params: Any, images: jax.Array) -> Any:
    return network.apply({"params": params}, to_unit(images))


def read_classifier(path: Path) -> Judge:
    """Reads what this script has written."""
    about = read_header(path)
    network = ImageClassifier(about.shapes["Dense_0.bias"][0])
    shape = tuple(map(int, about.metadata["shape"].split("x")))
    target = jax.eval_shape(partial(_initial, network, shape))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), target)
    return Judge(network, read_weights(path, target))


def _initial(network: ImageClassifier, shape: tuple[int, ...]) -> Any:
    return network.init(jax.random.key(0), jnp.zeros((1, *shape)))["params"]


def train(examples: Examples, epochs: int, flip: bool) -> Judge:
    """Fits a classifier to examples.

    Args:
        examples: of the training split.
        epochs: how often each is seen.
        flip: whether images are mirrored at random.
    """
    network = ImageClassifier(int(examples.labels.max()) + 1)
    params = _initial(network, examples.images.shape[1:])
    steps = epochs * (len(examples.images) // BATCH)
    rate = optax.cosine_onecycle_schedule(steps, LEARNING_RATE, pct_start=0.2)
    optimizer = optax.adamw(rate, weight_decay=WEIGHT_DECAY)
    state = optimizer.init(params)

    def loss(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits, _ = network.apply({"params": params}, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params: Any, state: Any, key: jax.Array, images: jax.Array, labels: jax.Array) -> Any:
        moved = _moved(key, to_unit(images), flip)
        value, gradient = jax.value_and_grad(loss)(params, moved, labels)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    began = time.time()
    for number, chosen in enumerate(_batches(len(examples.images), epochs)):
        key = jax.random.fold_in(jax.random.key(1), number)
        batch = examples.images[chosen], examples.labels[chosen]
        params, state, value = step(params, state, key, *batch)
        if number % 200 == 199:
            print(f"step {number + 1}/{steps}  loss {value:.4f}  {time.time() - began:.0f} s")
    return Judge(network, params)


def _batches(count: int, epochs: int) -> Iterator[np.ndarray]:
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(count)
        yield from order[: count - count % BATCH].reshape(-1, BATCH)


def _moved(key: jax.Array, images: jax.Array, flip: bool) -> jax.Array:
    """Images moved by up to SHIFT pixels, and mirrored with probability 1/2 if wanted."""
    moves, mirrors = jax.random.split(key)
    border = ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0))
    padded = jnp.pad(images, border, constant_values=-1)
    starts = jax.random.randint(moves, (len(images), 2), 0, 2 * SHIFT + 1)
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
        parts = read_npz(Path(data))[2:]
        return tuple(Examples(part.images, part.labels.astype(np.int32)) for part in parts)
    dataset = load(data, data_dir)
    return tuple(Examples(*dataset.arrays(split)) for split in ("train", "test"))


def main() -> None:
    """Trains, tests and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a prepared set, or x_train ... in an .npz")
    parser.add_argument("--data_dir", help="where prepared sets lie")
    parser.add_argument("--out", type=Path, default=Path("classifier.safetensors"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--flip", action="store_true", help="mirror images at random")
    arguments = parser.parse_args()
    examples, test = read_examples(arguments.data, arguments.data_dir)
    began = time.time()
    judge = train(examples, arguments.epochs, arguments.flip)
    seconds = time.time() - began
    right = float((judge.classify(test.images) == test.labels).mean())
    about = {
        "data": Path(arguments.data).stem,
        "shape": "x".join(map(str, test.images.shape[1:])),
        "epochs": str(arguments.epochs),
        "flip": str(arguments.flip),
        "test_accuracy": f"{right:.4f}",
    }
    write_weights(arguments.out, judge.params, metadata=about)
    digest = hashlib.sha256(arguments.out.read_bytes()).hexdigest()
    print(f"{right:.2%} of {len(test.labels):,} test images, after {seconds:.0f} s of training")
    print(f"{arguments.out}: sha256 {digest}")


if __name__ == "__main__":
    main()
