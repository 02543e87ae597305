"""A checkerboard of 128 x 128 cells: two tokens a point, in the place of two numbers.

    python train.py --config=configs/checkerboard.py
    python train.py --config=configs/checkerboard.py --config.path.name=uniform

Half of the cells are equally likely, so that no bound lies below ln 8192 = 9.0109 nats. Run on 2
cores of an AMD EPYC (CPU only), shared with many other programs, on 2026-11-26, in some 80 s of one
core: 9.013 nats with masks, 9.02 +- 0.07 from uniform tokens, by ``python -m fmjax likelihood``.
"""

from fmjax.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "toy/checkerboard_tokens"
    config.path.update({"name": "mask", "kappa": "polynomial", "power": 2.0})
    config.model.update({"name": "mlp", "width": 256, "depth": 3})
    config.labels.conditional = False
    config.loss.tokens = "cross_entropy"
    config.time.stratified = True
    config.optimizer.update({"learning_rate": 3e-3, "warmup_steps": 100})
    config.train.update({"steps": 3000, "batch_size": 1024, "ema": 0.998, "steps_per_call": 20})
    config.train.update({"log_every": 100, "checkpoint_every": 1000, "sample_every": 0})
    return config
