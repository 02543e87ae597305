"""The command line: flags parsed, and a mistake answered with one sentence."""

import contextlib
import difflib
import hashlib
import io
import os
import platform
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from logging import CRITICAL, getLogger
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from flax.traverse_util import flatten_dict

from fmjax.checks import check_given, check_utf8
from fmjax.config import default_config
from fmjax.errors import InputError, unknown_name
from fmjax.files import first_line
from fmjax.run.allocator import keep_freed_memory
from fmjax.run.distributed.failure import together
from fmjax.run.help_text import asks_for_help, help_text
from fmjax.run.other_words import OTHER_FLAGS, OTHER_KEYS


def find_config(name: str) -> Path:
    """The configuration file of a name or a path.

    Args:
        name: the path of a file; or the name, without ``.py``, of one in the folder ``configs`` of
            the current directory, or among those that come with fmjax.

    Raises:
        InputError: there is none; the known ones are listed.
    """
    folders = [Path("configs"), _configs_of_fmjax()]
    for path in (Path(name), *(folder / f"{name}.py" for folder in folders)):
        with contextlib.suppress(OSError):  # the name may be longer than a file's can be
            if path.is_file():
                return path
    near = Path(name).parent
    if near != Path() and near.is_dir():
        raise unknown_name("config file", name, [str(path) for path in near.glob("*.py")])
    known = {path.stem for folder in folders for path in folder.glob("[!_]*.py")}
    raise unknown_name("configuration", name, known)


def _configs_of_fmjax() -> Path:
    """The folder of configurations: in the installed package, or beside it in a clone."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def _with_config_path(argv: list[str]) -> tuple[list[str], Path | None]:
    """The command line with the path of the configuration in the place of its name."""
    argv = list(argv)
    for i, argument in enumerate(argv):
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or name != "config":
            continue
        if not equals:  # --config NAME
            i += 1
            value = argv[i] if i < len(argv) else ""
        path = find_config(value)
        argv[i : i + 1] = [f"--config={path}" if equals else str(path)]
        return argv, path
    return argv, None


def check_config_keys(argv: list[str]) -> None:
    """Checks the keys of ``--config.KEY=VALUE`` arguments.

    Raises:
        InputError: one does not exist; the nearest known ones are named.
    """
    known = flatten_dict(default_config().to_dict(), sep=".")
    for argument in argv:
        key = argument.lstrip("-").partition("=")[0].removeprefix("config.")
        if argument.lstrip("-").startswith("config.") and key not in known:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.4)
            if meant := OTHER_KEYS.get(key.rpartition(".")[2]):
                near = [meant]
            raise InputError(
                f"unknown configuration key {key!r}. Nearest: {', '.join(near) or 'none'}. "
                "`python -m fmjax train --help-config` lists them all."
            )


def _check_flags(argv: list[str]) -> None:
    """Checks that no flag is one of another library that has another name here.

    Raises:
        InputError: one is; the flag that means the same is named.
    """
    for argument in argv[1:]:
        name = argument.lstrip("-").partition("=")[0]
        meant = OTHER_FLAGS.get(name)
        if argument.startswith("--") and name not in flags.FLAGS and meant and meant in flags.FLAGS:
            raise InputError(f"there is no flag --{name}; here it is --{meant}.")


def _parse(argv: list[str]) -> list[str]:
    """absl's parsing, every mistake of which becomes an InputError."""
    _check_environment(argv)
    argv, path = _with_config_path(argv)
    check_config_keys(argv)
    _check_flags(argv)
    try:
        rest = flags.FLAGS(argv)
        if path is not None:
            _ = flags.FLAGS.config  # an error inside the file comes up when it is first read
    except flags.Error as error:
        lines = str(error).strip().splitlines()  # the last one is the reason: the rest, where
        raise InputError(" ".join(dict.fromkeys([lines[0], lines[-1]]))) from error
    except SystemExit as error:
        if path is None or not _ran(error, path):  # --help ends the program, too
            raise
        raise InputError(
            f"the config file {path} ends the program (sys.exit); it must return a configuration."
        ) from error
    except BrokenPipeError:  # of --help
        raise
    except Exception as error:  # the file is a program: anything may go wrong in it
        first = str(error).strip("'\"").replace("\\n", "\n").splitlines() or [""]
        raise InputError(
            f"the config file {path} fails with {type(error).__name__}: {first[0][:200]}. "
            "`python -m fmjax train --help-config` lists the keys."
        ) from error
    if len(rest) > 1:
        raise InputError(f"flags begin with --; got {' '.join(rest[1:])!r}.")
    _check_not_empty()
    return rest


def _check_not_empty() -> None:
    """Checks that no flag of fmjax is an empty text.

    Raises:
        InputError: one is.
    """
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        for flag in defined if module.startswith("fmjax.") else ():
            if flag.present:
                check_given(f"--{flag.name}", flag.value)


def _check_environment(argv: list[str]) -> None:
    """Checks what no command works with.

    Raises:
        InputError: an argument is not UTF-8, or jit is switched off.
    """
    for argument in argv:
        check_utf8("the argument", argument)
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]  # jax sets it at run time
        raise InputError(
            "jit is switched off, and every program here is compiled: unset JAX_DISABLE_JIT."
        )


def _ran(error: BaseException, path: Path) -> bool:
    """Whether an error came out of a file that was running."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(Path(file).absolute() == path.absolute() for file in files)


def compilation_folder(cache: Path, cpu: str) -> Path:
    """Where compiled programs are kept for later runs.

    Args:
        cache: the user's folder for such things.
        cpu: what describes this CPU: a program compiled for another may not run here, and home
            folders are shared by machines.
    """
    return cache / "fmjax" / f"compiled-{hashlib.sha256(cpu.encode()).hexdigest()[:12]}"


def _keep_compiled() -> None:
    """Turns jax's compilation cache on, unless the user has said where it is to be or not to be."""
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]  # so, too
        return
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # nobody's home
        return
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    able = [line for line in lines if line.startswith(("flags", "Features"))]
    folder = compilation_folder(cache, able[0] if able else platform.processor())
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _quieten() -> None:
    """Leaves what libraries report of errors that come up as one sentence anyway to that one."""
    # orbax logs every file it writes, and every error before raising it.
    logging.set_verbosity(logging.FATAL)
    # Of what reads a damaged checkpoint, the parts beside the one that is reported fail as well.
    getLogger("asyncio").setLevel(CRITICAL)
    program, usual = Path(sys.argv[0]).name, sys.unraisablehook

    def unraisable(hook: Any) -> None:
        # What tensorstore has begun it ends after orbax has given up, and closed its event loop.
        # What orbax was still reading ends with an error of its own as Python throws it away.
        thrown_away = isinstance(getattr(hook.exc_value, "__context__", None), GeneratorExit)
        if not thrown_away and "Event loop is closed" not in str(hook.exc_value):
            usual(hook)

    sys.unraisablehook = unraisable
    threading.excepthook = lambda hook: print(f"{program}: {hook.exc_value}", file=sys.stderr)


def open_streams() -> None:
    """Has what is said to a closed standard output or error go to the other of the two.

    A closed one is None in Python, and its number would be that of the next file to be opened, into
    which libraries would write their messages.
    """
    for number, other in ((0, None), (1, 2), (2, 1)):
        if _is_open(number):
            continue
        if other is not None and _is_open(other):
            os.dup2(other, number)
        else:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", buffering=1, closefd=False))  # noqa: SIM115
        if isinstance(getattr(sys, name), io.TextIOWrapper):  # names of files may be no text
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _said(error: OSError) -> str:
    """What the system says of a file, without its number."""
    if error.filename is None or error.strerror is None:
        return first_line(error)
    return f"{error.filename}: {error.strerror}."


def _end_unread() -> NoReturn:
    """Ends the program, whose output nobody reads any more, as the signal SIGPIPE would."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def _fail(program: str, error: Exception | str, code: int) -> NoReturn:
    # One line, whatever the names in it: those of files may hold line ends.
    letters = (c if c.isprintable() else ascii(c)[1:-1] for c in str(error).strip())
    print(f"{program}: {''.join(letters)}", file=sys.stderr)
    sys.exit(code)


def end_with(program: str, work: Callable[[], int]) -> NoReturn:
    """Ends the program with what its work gives, or with one sentence and the code of the mistake.

    Args:
        program: the name that the sentence begins with.
        work: returns 0, or the number of the signal that stopped it, which makes the exit code 128
            and that number, as in a shell.
    """
    try:
        stopped = work()
        sys.stdout.flush()
        sys.exit(128 + stopped if stopped else 0)
    except InputError as error:
        _fail(program, error, 2)
    except FloatingPointError as error:
        _fail(program, error, 3)
    except BrokenPipeError:
        _end_unread()
    except OSError as error:
        _fail(program, _said(error), 4)
    except MemoryError:
        _fail(program, "the machine has no memory left: ask for less at a time.", 4)
    except RuntimeError as error:
        if "initialize backend" not in str(error):
            raise
        _fail(
            program,
            f"no device of JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')!r} is found "
            f"({first_line(error)[:200]}); unset it, or name a platform that is there.",
            2,
        )
    except KeyboardInterrupt:
        _fail(program, "interrupted", 130)


def run(command: ModuleType) -> None:
    """Runs a command; a caller's mistake ends it with one sentence and exit code 2.

    Args:
        command: a module whose docstring is the head of ``--help``, whose `HELP` has its flags
            in groups, and whose function `main` returns what `end_with` takes.
    """
    program = Path(sys.argv[0]).name
    open_streams()
    _keep_compiled()
    keep_freed_memory()
    _quieten()

    def parse(argv: list[str]) -> list[str]:
        try:
            if asks_for_help(argv):
                print(help_text(program, command), flush=True)
                sys.exit(0)
            return _parse(argv)
        except InputError as error:
            return _fail(program, error, 2)
        except BrokenPipeError:
            return _end_unread()

    app.run(lambda _: end_with(program, lambda: together(command.main)), flags_parser=parse)
