"""Handwritten digits, 8x8, ten classes: the first run.

python train.py --config=configs/digits.py
"""

from fmjax.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "digits"
    config.model.update({"name": "dit", "patch_size": 2, "width": 64, "depth": 4, "heads": 4})
    config.train.update({"steps": 1500, "batch_size": 128, "ema": 0.999})
    return config
