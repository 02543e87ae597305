"""CIFAR-10 with the U-Net of torchcfm's example, for a GPU or a TPU slice.

    python -m fmjax prepare --name=cifar10
    python train.py --config=configs/cifar10_unet.py

The first line downloads (it needs TensorFlow this once). Batch, steps, learning rate, warm-up,
clipping and average are those of torchcfm's ``train_cifar10.py``, which trains without labels; its
dropout of 0.1 is left out. This configuration has not been run to its end: it is a starting point,
not a result.
"""

from fmjax.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "cifar10"
    config.data.flip = True
    config.data.threads = 16
    config.model.update({"name": "UNet-CIFAR10/torchcfm", "dtype": "bfloat16"})
    config.labels.conditional = False
    config.train.update({"steps": 400_000, "batch_size": 128, "ema": 0.9999})
    config.train.update({"log_every": 100, "checkpoint_every": 20_000, "sample_every": 20_000})
    config.optimizer.update({"learning_rate": 2e-4, "warmup_steps": 5000, "schedule": "constant"})
    config.optimizer.update({"b2": 0.999, "clip_norm": 1.0})
    return config
