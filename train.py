"""Train a flow: ``python train.py --config=configs/digits.py``.

The flags, and the one call that they make, are in `fmjax.run.train.command`.
"""

from fmjax.run import cli
from fmjax.run.train import command

if __name__ == "__main__":
    cli.run(command)
