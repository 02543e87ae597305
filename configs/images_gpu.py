"""Your own images, 16x16 to 128x128, with or without classes, on one GPU.

    python -m fmjax prepare --name=flowers --source=PATH --size=64
    python train.py --config=configs/images_gpu.py --config.data.name=flowers

The flags of the command that `prepare` prints hold here, too; write images_gpu for images in it.
This configuration has not been run to its end: its size, steps and learning rate are a starting
point, not a result. Images that mean the same in a mirror gain by --config.data.flip=True.
"""

from fmjax.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "images"  # give the name that the set was prepared under
    config.data.threads = 8
    # The size of DiT-S, 33 million parameters; 256 patches of 64x64 pixels.
    config.model.update({"name": "dit", "patch_size": 4, "width": 384, "depth": 12, "heads": 6})
    config.model.dtype = "bfloat16"
    config.labels.drop_rate = 0.2  # as in configs/images.py
    config.train.update({"steps": 100_000, "batch_size": 256, "ema": 0.9999})
    config.train.update({"log_every": 100, "checkpoint_every": 5000, "sample_every": 5000})
    config.optimizer.update({"learning_rate": 3e-4, "warmup_steps": 1000})
    config.eval.update({"num": 2000, "reference": 5000})
    return config
