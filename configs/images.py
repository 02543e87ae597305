"""Your own images, 8x8 to 64x64, with or without classes: a DiT small enough for a laptop.

    python -m fmjax prepare --name=flowers --source=PATH --size=32

`prepare` prints the command to go on with: this file, and what follows from the images: steps, a
patch size that divides them, a batch no larger than the set, and whether they have classes.

A starting point, not a result: for sharper samples take patches of half the side, which cost four
times as much, and on a GPU more of everything: configs/cifar10.py.
"""

from fmjax.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "images"  # give the name that the set was prepared under
    # Heads of 64, as in the DiT paper. 4.2 million parameters; to train on one image of 64 patches
    # (32x32 in patches of 4) takes 1.1 GFLOP.
    config.model.update({"name": "dit", "patch_size": 4, "width": 192, "depth": 6, "heads": 3})
    # A set of one's own is small: with fewer labels dropped, too few examples train the
    # unconditional branch that guidance needs.
    config.labels.drop_rate = 0.2
    # 320,000 images, and an average over the last thousand steps or so.
    config.train.update({"steps": 5000, "batch_size": 64, "ema": 0.999})
    config.train.update({"checkpoint_every": 1000, "sample_every": 1000})
    config.optimizer.update({"learning_rate": 1e-3, "warmup_steps": 200})
    # The classifier's time grows with the square of the references, and with the pixels.
    config.eval.update({"num": 500, "reference": 2000})
    return config
