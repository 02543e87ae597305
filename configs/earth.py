"""Places on the globe: a density on the sphere, of a .csv of latitude and longitude in degrees.

    python -m fmjax prepare --name=flood --source=flood.csv --manifold=sphere
    python train.py --config=configs/earth.py
    python -m fmjax likelihood --workdir=runs/earth

The first line of the .csv names its two columns, latitude and longitude. Volcanoes, earthquakes,
floods and fires, which papers measure, lie in the folder data of
github.com/oxcsml/riemannian-score-sde; they are not part of fmjax. Points of a sphere of any
dimension, as unit vectors, are prepared in the same way.

Trained on 2 cores of an AMD EPYC (CPU only), shared with many other programs, on 2026-11-26, on the
floods: 70 s of one core for 3,500 steps with compilation and evaluation. The negative
log-likelihood of a held-out tenth, 488 places, is 0.34 +- 0.07 nats, from one run; Riemannian flow
matching (arXiv:2302.03660) prints 0.42 +- 0.05 over five splits, and the uniform density has 2.53.
For finer data raise ``model.frequency`` and ``model.features``: fires are best with 1000 and 256,
and more steps. Each set by five splits: ``python -m benchmarks.manifolds.earth``.
"""

from fmjax.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "flood"  # give the name that the table was prepared under
    config.path.name = "geodesic"
    config.source.name = "uniform"
    # Features as fine as one over the width of the finest cluster, in radians.
    config.model.update({"name": "fourier_mlp", "width": 256, "depth": 4})
    config.model.update({"features": 128, "frequency": 100.0})
    config.labels.conditional = False
    config.time.update({"name": "beta", "a": 1.0, "b": 0.4})  # late times, where fine places show
    config.optimizer.update({"learning_rate": 3e-3, "weight_decay": 1e-4})
    config.train.update({"steps": 3500, "batch_size": 512, "ema": 0.999, "steps_per_call": 10})
    config.train.update({"log_every": 100, "checkpoint_every": 3500, "sample_every": 3500})
    config.sample.update({"solver": "geodesic_heun", "steps": 100, "shift": 0.3})
    return config
