"""Handwritten digits, 8x8, as tokens.

python train.py --config=configs/digits_tokens.py
"""

from fmjax.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.update({"name": "digits", "levels": 17})
    config.path.name = "mask"
    config.model.update({"name": "dit", "patch_size": 2, "width": 128, "depth": 4, "heads": 4})
    config.labels.drop_rate = 0.2
    config.optimizer.update({"learning_rate": 1e-3, "warmup_steps": 50})
    config.train.update({"steps": 1500, "batch_size": 128, "ema": 0.995})
    config.train.update({"checkpoint_every": 1000, "sample_every": 1000})
    config.sample.update({"steps": 32, "guidance": 1.25})
    return config
