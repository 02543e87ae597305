"""Sample a trained flow: ``python sample.py --workdir=runs/digits``.

The flags are in `fmjax.run.sample.flags`, and the one call that they make in
`fmjax.run.sample.command`.
"""

from fmjax.run import cli
from fmjax.run.sample import command

if __name__ == "__main__":
    cli.run(command)
