"""Two angles: a checkerboard on the torus, which goes on across the edges of its picture.

    python train.py --config=configs/torus.py

The network sees the cosines and sines of the angles, so that it has no seam. For your own angles,
in radians:

    python -m fmjax prepare --name=angles --source=angles.csv --manifold=torus
    python train.py --config=configs/torus.py --config.data.name=angles

Run on 2 cores of an AMD EPYC (CPU only), shared with many other programs, on 2026-11-26: 3,000
steps in 23 s of one core, with compilation and evaluation. The negative log-likelihood of 1,000
held-out points is 3.111 +- 0.012 nats, where the entropy of the board is 2.983 and the uniform
density has 3.676.
"""

from fmjax.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "toy/torus_checkerboard"
    config.path.name = "geodesic"
    config.source.name = "uniform"
    config.model.update({"name": "fourier_mlp", "width": 128, "depth": 3})
    config.model.update({"features": 64, "frequency": 12.0})
    config.labels.conditional = False
    config.optimizer.update({"learning_rate": 3e-3})
    config.train.update({"steps": 3000, "batch_size": 512, "ema": 0.998, "steps_per_call": 20})
    config.train.update({"log_every": 100, "checkpoint_every": 3000, "sample_every": 3000})
    config.sample.update({"solver": "geodesic_heun", "steps": 50})
    return config
