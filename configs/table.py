"""Your own table: rows of numbers, with or without conditions; an MLP that a laptop trains.

    python -m fmjax prepare --name=cells --source=cells.csv --condition=tissue,age
    python train.py --config=configs/table.py --config.data.name=cells

`prepare` prints the command to go on with: this file, and what follows from the table, which is a
batch no larger than it, and whether it has conditions. Numbers are standardised, and samples come
in the table's own units.

A starting point, not a result. Wide tables, of hundreds of columns, take more width and steps.
"""

from fmjax.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "table"  # give the name that the table was prepared under
    config.model.update({"name": "mlp", "width": 256, "depth": 4})
    config.train.update({"steps": 10_000, "batch_size": 256, "ema": 0.999, "steps_per_call": 10})
    config.train.update({"log_every": 200, "checkpoint_every": 2500, "sample_every": 2500})
    config.optimizer.update({"learning_rate": 1e-3, "warmup_steps": 200})
    config.sample.guidance = 1.0  # the distribution itself, not a sharpened one
    config.eval.update({"num": 2000, "reference": 5000})
    return config
