"""Characters of a text, with masks: a transformer guesses every masked one from all the others.

    python train.py --config=configs/text.py
    python sample.py --workdir=runs/text --num=4 --steps=128 --out=out/

The text is Romeo and Juliet, which comes with fmjax. For your own:

    python -m fmjax prepare --name=mine --source=mine.txt --length=128
    python train.py --config=configs/text.py --config.data.name=mine

A starting point, not a result: it has not been run to its end yet. On one core of a machine that
other programs kept busy, the log foretold 75 minutes (2026-11-27).
"""

from fmjax.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "text/romeo_and_juliet"
    config.path.name = "mask"
    config.model.update({"name": "token_transformer", "width": 128, "depth": 4, "heads": 4})
    config.model.time = False  # how many are masked says it
    config.labels.conditional = False
    config.time.stratified = True
    config.optimizer.update({"learning_rate": 2e-3, "warmup_steps": 100, "weight_decay": 0.1})
    config.train.update({"steps": 1000, "batch_size": 64, "ema": 0.995})
    config.train.update({"checkpoint_every": 500, "sample_every": 500})
    config.sample.steps = 128
    return config
