"""The command ``fmjax``, which is ``python -m fmjax`` too.

python -m fmjax train --config=digits
"""

import importlib
import sys

from fmjax.errors import unknown_name

COMMANDS = {
    "prepare": "turn your own images, or a public set, into a data set with a name",
    "train": "train a flow from a configuration; the same command again resumes",
    "sample": "draw samples from a trained run",
    "evaluate": "measure samples of a run, or any images, against real examples",
    "likelihood": "bits per dimension, or nats, of a run's data",
    "reflow": "straighten a trained flow by training it on its own pairs",
    "distill": "teach a trained flow's samples to a network that draws them in one step",
    "weights": "write a run's parameters as safetensors",
    "compile": "compile for a TPU topology without TPUs, and report what it takes",
}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        ["usage: fmjax COMMAND [FLAGS]", "", *lines, "", "fmjax COMMAND --help lists its flags."]
    )


def main() -> None:
    """Runs the command that the first argument names, with the arguments after it."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_usage())
        return
    if name not in COMMANDS:
        print(f"fmjax: {unknown_name('command', name, COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    try:
        _run_command(name, arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "fmjax":
            raise
        print(
            f"fmjax: {name} needs the package {error.name}, which `import fmjax` does not: write "
            'pip install "fmjax[train]", or pip install -r requirements.txt in a clone.',
            file=sys.stderr,
        )
        sys.exit(2)


def _run_command(name: str, arguments: list[str]) -> None:
    from fmjax.run import cli

    if name == "prepare":
        from fmjax.data import prepare

        cli.open_streams()
        cli.end_with("fmjax prepare", lambda: prepare.main(arguments))
    # The flags of a command are defined when its module is imported, so only one of them is.
    command = importlib.import_module(f"fmjax.run.{name}.command")
    sys.argv = [f"fmjax {name}", *arguments]
    cli.run(command)


if __name__ == "__main__":
    main()
