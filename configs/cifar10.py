"""CIFAR-10, 32x32 in colour, ten classes, for a GPU or a TPU slice.

    python -m fmjax prepare --name=cifar10
    python train.py --config=configs/cifar10.py

The first line downloads (it needs TensorFlow this once). This configuration has not been run to its
end: its steps, size and learning rate are a starting point, not a result.
"""

from fmjax.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "cifar10"
    config.data.flip = True
    config.data.threads = 16
    config.model.update({"name": "DiT-S/2", "dtype": "bfloat16"})
    config.train.update({"steps": 200_000, "batch_size": 512, "ema": 0.9999})
    config.train.update({"log_every": 100, "checkpoint_every": 10_000, "sample_every": 10_000})
    config.optimizer.update({"learning_rate": 3e-4, "warmup_steps": 2000})
    return config
