"""The command line that trains on a data set, with the flags that the set itself requires."""

import math
import shlex

from fmjax.data.codecs import vocabulary_of
from fmjax.data.dataset import Dataset
from fmjax.data.points import space_of
from fmjax.manifolds import Manifold

# Sets that have a configuration of their own, which holds where the images are the known ones.
_OWN_CONFIG = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
_OWN_CLASSES = 10
_OWN_BATCH = 512  # the largest of their batches

BATCH = 64
"""The batch of configs/images.py, which a command names only where the set needs a smaller one."""

WIDTH, HEAD = 192, 64
"""The width of configs/images.py and of one of its heads, likewise."""

TABLE_BATCH = 256
"""The batch of configs/table.py, likewise."""

_EPOCHS, _FEWEST, _MOST = 60, 1500, 20_000  # of images: see `choose_steps`
_TOKENS = 64  # patches of an image: few enough for a laptop, as 32 x 32 pixels in patches of 4
_LOGITS = BATCH * 256**2  # of one attention head over a batch: what must fit into memory


def train_command(dataset: Dataset, data_dir: str | None = None) -> str:
    """The command line that trains on a prepared set: a DiT on images and latents, else an MLP.

    Tokens in a row have a transformer for sequences, and those of images a DiT, with masks.

    Args:
        dataset: as `load` opens it.
        data_dir: where it lies; None where it is found without being told.
    """
    flags = []
    if _has_own_config(dataset):
        config = dataset.name
    else:
        config = _config_for(dataset)
        flags.append(f"--config.data.name={dataset.name}")
    if data_dir is not None:
        flags.append(f"--config.data.dir={data_dir}")
    count = len(dataset.stored("train"))
    if config == "images":
        height, width, channels = dataset.shape
        patch_size = choose_patch_size(height, width)
        flags.append(f"--config.model.patch_size={patch_size}")
        size = choose_width(max(height, width), patch_size**2 * channels)
        if size != WIDTH:
            flags += [f"--config.model.width={size}", f"--config.model.heads={size // HEAD}"]
        batch = _batch_size(count, _tokens(height, width, patch_size))
        if batch != BATCH:
            flags.append(f"--config.train.batch_size={batch}")
        flags.append(f"--config.train.steps={choose_steps(count, batch)}")
    elif config == "table" and count < TABLE_BATCH:
        flags.append(f"--config.train.batch_size={_power_of_two(count)}")
    space = space_of(dataset.codec)
    if space is not None:
        flags += _on_manifold(space)
    if config in ("images", "table") and dataset.conditions is None:
        flags.append("--config.labels.conditional=False")
    if config == "text" and dataset.conditions is not None:
        flags.append("--config.labels.conditional=True")
    if config == "images" and vocabulary_of(dataset.codec) is not None:
        flags.append("--config.path.name=mask")
    if hasattr(dataset.train, "read_pairs"):
        flags = [flag for flag in flags if not flag.startswith("--config.source.name=")]
        flags += ["--config.source.name=data", f"--config.source.data={dataset.name}"]
        if data_dir is not None:
            flags.append(f"--config.source.dir={data_dir}")
    return shlex.join(["python", "-m", "fmjax", "train", f"--config={config}", *flags])


def _config_for(dataset: Dataset) -> str:
    if vocabulary_of(dataset.codec) is not None and len(dataset.shape) == 1:
        return "text"
    return "images" if len(dataset.shape) == 3 else "table"


def _on_manifold(manifold: Manifold) -> list[str]:
    """The path and the source, and a network with fine features."""
    source = "uniform" if math.isfinite(manifold.volume) else "wrapped_normal"
    names = {"path": "geodesic", "source": source, "model": "fourier_mlp"}
    return [f"--config.{key}.name={name}" for key, name in names.items()]


def _has_own_config(dataset: Dataset) -> bool:
    return (
        dataset.shape == _OWN_CONFIG.get(dataset.name)
        and dataset.classes is not None
        and dataset.classes.num_classes == _OWN_CLASSES
        and len(dataset.stored("train")) >= _OWN_BATCH
    )


def choose_steps(examples: int, batch: int) -> int:
    """So many steps that each image is seen 60 times, but at least 1,500 steps and at most 20,000.

    A small set is learned by heart sooner; one that is large needs no image so often.
    """
    hundreds = round(_EPOCHS * examples / batch / 100)
    return min(max(100 * hundreds, _FEWEST), _MOST)


def choose_patch_size(height: int, width: int) -> int:
    """The smallest square patch that divides the image into at most 64, the largest if none does.

    Small patches see more and cost more: half the side is four times the patches.
    """
    common = math.gcd(height, width)
    sides = [side for side in range(1, common + 1) if common % side == 0]
    return next((side for side in sides if _tokens(height, width, side) <= _TOKENS), common)


def choose_width(side: int, numbers: int) -> int:
    """The width of a DiT: whole heads that hold the numbers of a patch, as far as a laptop allows.

    A narrower network cannot hand a patch on as it came; one of small images needs no more.

    Args:
        side: the longer side of the image, in pixels.
        numbers: how many a patch has.

    Returns:
        A multiple of `HEAD`: at least 128, from 17 pixels on at least `WIDTH`, at most twice that.
    """
    least = 2 * HEAD if side <= 16 else WIDTH
    return min(max(least, HEAD * math.ceil(numbers / HEAD)), 2 * WIDTH)


def _tokens(height: int, width: int, patch_size: int) -> int:
    return (height // patch_size) * (width // patch_size)


def _batch_size(examples: int, tokens: int) -> int:
    """At most `BATCH`, the set, and what attention over so many patches leaves room for.

    A power of two, so that it divides over devices.
    """
    return _power_of_two(min(BATCH, examples, _LOGITS // tokens**2))


def _power_of_two(most: int) -> int:
    """The largest that is at most so much, at least 1."""
    return 2 ** (max(1, most).bit_length() - 1)
