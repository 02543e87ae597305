"""Cases of a command, drawn by Hypothesis: always the same ones for a number and a seed."""

import importlib
import json
from pathlib import Path

from absl import flags
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.faults.odd_cases.case import Case
from benchmarks.faults.odd_cases.images import IMAGES, TABLES
from fmjax.config import KEYS
from fmjax.data import prepare
from fmjax.keys import Key, walk

# Those that start something else than the command: other processes, a trace.
LEFT_OUT = ("distributed", "coordinator", "config", "profile")
TOY = (
    *("--config=toy2d", "--config.data.name=toy/moons", "--config.model.width=4"),
    *("--config.model.depth=1", "--config.train.steps=2", "--config.train.batch_size=4"),
    *("--config.optimizer.warmup_steps=0", "--config.eval.num=0", "--config.sample.steps=1"),
    "--config.train.sample_every=0",
)
RUN = "--workdir=../../run"
BASE = {
    "prepare": ("--name=drawn", "--data_dir=../../data"),
    "train": (*TOY, "--workdir=../../new"),
    "sample": (RUN, "--num=2", "--steps=1", "--solver=euler", "--out=../../out"),
    "evaluate": (RUN, "--num=4", "--steps=1"),
    "likelihood": (RUN, "--num=2", "--steps=1", "--probes=1"),
    "reflow": (RUN, "--num=40", "--steps=1", "--train_steps=3"),
    "distill": (RUN, "--out=../../new", "--num=40", "--steps=1", "--train_steps=3"),
    "weights": (RUN, "--out=../../out"),
    "compile": (*TOY, "--topology=v5e:2x2"),
}
TEXTS = st.sampled_from(
    [
        *("", "nan", "inf", "1e400", "9" * 31, "1e-30", "-0.0"),
        *("a,b", "1,2", "0.2,0.8", "None", "True", "x" * 300, "é", "..", "/dev/null/x", "~no"),
        *("os:abort", "no.such:thing", "fmjax:solve", "\udcff", "\0", "\n", "%s{}", "--", "[]"),
        *("{}", "all", "none", "best", "latest", "heun", "tsit5", "churn", "batch", "v5e:2x2"),
        *("v5e:0x0", "v5e:999x999*9999", "../../run", "../../out", "../../run/run.json", "."),
    ]
)
NUMBERS = st.sampled_from(["0", "-1", "1", "2", "3", "4", "0.5", "0.9", "-0.5", "1e-3", "2.5"])
VALUES = st.one_of(
    st.sampled_from([None, True, -1, 0, 1.5, 1e308, 10**30, "", "x", "os:abort", [], {}, [[]]]),
    st.sampled_from([[80000, 80000, 1], [-2], ["2"], {"type": "os:system"}, {"type": None}]),
    st.integers(),
    st.text(max_size=5),
)
# In range, and then the program takes the time that was asked for.
LONG = ("train.steps", "model.depth", "sample.steps")
NAMES = st.one_of(
    st.sampled_from(["a", "b", "train", "test", " ", "é", "e\u0301", "日本", "%s", "a\nb", "a,b"]),
    st.sampled_from([".hidden", "a'b\"", "-x", "\udcff", "x" * 200, "~", "a:b", "\\", "\u202e"]),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
    .map(lambda text: text[:40])
    .filter(lambda text: text not in (".", "..")),
)


def cases(command: str, kept: Path, number: int, of_seed: int) -> list[Case]:
    """Different cases of a command.

    Args:
        command: for example "train".
        kept: the folder with what cases begin with.
        number: how many.
        of_seed: other ones for another seed.
    """
    found = []

    @seed(of_seed)
    @settings(
        max_examples=number,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(_cases(command, kept))
    def keep(case: Case) -> None:
        found.append(case)

    keep()
    return found


def _cases(command: str, kept: Path) -> st.SearchStrategy[Case]:
    if command == "prepare":
        return st.one_of(_prepared(), _prepared(), _prepared(_odd_flags(command)))
    kinds = [_with(command, _odd_flags(command))]
    if command in ("train", "compile"):
        kinds += [_with(command, _overrides()), _with(command, _overrides())]
    if command != "compile":
        damaged = st.lists(_damaged(kept, "run"), min_size=1, max_size=1).map(tuple)
        kinds += [_with(command, st.just(_of_a_run(command)), damaged)]
    if command == "train":
        data = ("--config.data.name=tiny", "--config.data.dir=../../data")
        damaged = st.lists(_damaged(kept, "data"), min_size=1, max_size=1).map(tuple)
        kinds += [_with(command, st.just(data), damaged)]
    return st.one_of(kinds)


def _with(command, odd, files=None) -> st.SearchStrategy[Case]:
    files = st.just(()) if files is None else files
    return st.builds(lambda odd, files: Case(command, (*BASE[command], *odd), files), odd, files)


def _of_a_run(command: str) -> tuple[str, ...]:
    return ("--init_from=../../run",) if command == "train" else ()


def flags_of(command: str) -> list[str]:
    """The names of the flags of a command."""
    if command == "prepare":
        texts = [text for action in prepare.parser()._actions for text in action.option_strings]
        return sorted(text[2:] for text in texts if text.startswith("--") and text != "--help")
    importlib.import_module(f"fmjax.run.{command}.command")
    return sorted(
        flag.name
        for where, defined in flags.FLAGS.flags_by_module_dict().items()
        if where.startswith("fmjax.")
        for flag in defined
        if not flag.name.startswith(LEFT_OUT)
    )


def _odd_flags(command: str) -> st.SearchStrategy[tuple[str, ...]]:
    value = st.one_of(TEXTS, NUMBERS)
    flag = st.builds("--{}={}".format, st.sampled_from(flags_of(command)), value)
    bare = st.sampled_from(flags_of(command)).map("--{}".format)
    other = st.one_of(st.text(max_size=8), st.sampled_from(["--", "-", "x", "--no", "--config"]))
    one = st.one_of(flag, flag, flag, flag, flag, flag, bare, other.filter(_is_argument))
    return st.lists(one, min_size=1, max_size=2).map(tuple)


def _is_argument(text: str) -> bool:
    # Help is another program, and a NUL cannot be in a command line.
    return "\0" not in text and not text.lstrip("-").startswith("help")


def _overrides() -> st.SearchStrategy[tuple[str, ...]]:
    """One or two keys of the configuration, with values in and out of their ranges."""
    one = st.sampled_from(list(walk(KEYS))).flatmap(
        lambda named: _values_of(*named).map(lambda value: f"--config.{named[0]}={value}")
    )
    return st.lists(one, min_size=1, max_size=2).map(tuple)


def _values_of(name: str, key: Key) -> st.SearchStrategy[object]:
    numbers = [-1, 0, 1, 2, 3, 0.5, -0.5, 1.752, 1e-30, 1e30, 2.5]
    if name not in LONG:
        numbers += [2**31 - 1, 2**31, 2**32 - 1]
    words = list(key.range) if isinstance(key.range, tuple) else []
    usual = st.sampled_from([*numbers, *words, *_known(key)])
    return st.one_of(usual, usual, usual, TEXTS.filter(lambda text: "\0" not in text))


def _known(key: Key) -> list[str]:
    """The words in the help of a key: most of the names that it may have."""
    return [word.strip(",;:.") for word in key.help.split() if key.range == "a name"]


def _changed(record: object, path: tuple, value: object, how: str) -> bytes:
    """A record with one value changed, added or removed, and its checksum kept or not."""
    record = json.loads(json.dumps(record))
    here = record
    for step in path[:-1]:
        here = here[step]
    if how == "remove":
        del here[path[-1]]
    elif how == "add" and isinstance(here, dict):
        here[f"{path[-1]}_"] = value
    else:
        here[path[-1]] = value
    if how != "keep" and isinstance(record, dict):
        record.pop("checksum", None)
    return json.dumps(record).encode()


def _places(tree: object, path: tuple = ()) -> list[tuple]:
    """The paths of all values in JSON."""
    if not isinstance(tree, dict | list):
        return []
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [place for key, one in inside for place in ((*path, key), *_places(one, (*path, key)))]


def _damaged(kept: Path, part: str) -> st.SearchStrategy[tuple[str, bytes]]:
    """One file of a part, changed in its bytes, or where it is JSON in its values.

    The record of a run is as likely as all its other files.
    """
    files = sorted(path for path in (kept / part).rglob("*") if path.is_file())
    one = st.sampled_from(files)
    first = st.sampled_from([path for path in files if path.suffix == ".json"])
    return st.one_of(first, one).flatmap(
        lambda path: _mutated(path).map(lambda content: (str(path.relative_to(kept)), content))
    )


def _mutated(path: Path) -> st.SearchStrategy[bytes]:
    content = path.read_bytes()
    try:
        record = json.loads(content)
    except ValueError:
        record = None
    if not _places(record):
        return _broken(content)
    how = st.sampled_from(["keep", "change", "change", "remove", "add"])
    place = st.sampled_from(_places(record))
    values = st.builds(
        lambda place, value, how: _changed(record, place, value, how), place, VALUES, how
    )
    return st.one_of(values, values, values, _broken(content))


def _broken(content: bytes) -> st.SearchStrategy[bytes]:
    """Bytes cut, turned, put in, doubled or none."""
    places = st.integers(0, max(len(content) - 1, 0))
    some = st.binary(min_size=1, max_size=8)
    return st.one_of(
        places.map(lambda n: content[:n]),
        st.builds(lambda n, new: content[:n] + new + content[n + len(new) :], places, some),
        st.builds(lambda n, new: content[:n] + new + content[n:], places, some),
        st.sampled_from([b"", content + content, bytes(len(content)), b"[" * 5000, b"{}"]),
    )


def _prepared(odd=None) -> st.SearchStrategy[Case]:
    """A folder of images, or a table, with odd names, some of them damaged."""
    image = st.sampled_from(list(IMAGES.values()))
    plain = st.sampled_from([IMAGES[kind] for kind in ("png L", "png RGB", "jpeg RGB", "BMP")])
    image = st.one_of(plain, plain, plain, image, image.flatmap(_broken))
    suffix = st.sampled_from([".png", ".png", ".JPG", ".webp", ".bmp", ".ppm", ".txt", ""])
    inside = st.builds(lambda name, suffix: name[:40] + suffix, NAMES, suffix)
    file = st.builds(
        lambda folders, name, content: ("/".join(["images", *folders, name]), content),
        st.lists(NAMES, max_size=2),
        inside,
        st.one_of(st.none(), *[image] * 9),
    )
    names = ("one", "two")
    good = st.lists(plain, min_size=6, max_size=6).map(
        lambda found: [(f"images/{names[i % 2]}/{i}.png", one) for i, one in enumerate(found)]
    )
    folder = st.builds(
        lambda good, odd: (*good, *odd), st.one_of(good, st.just([])), st.lists(file, max_size=4)
    )
    table = st.sampled_from(list(TABLES.values()))
    table = st.one_of(table, table.flatmap(_broken))
    source = st.one_of(
        folder.map(lambda files: ("--source=../../images", _apart(files))),
        st.builds(
            lambda name, content: (f"--source=../../{name}.npz", ((f"{name}.npz", content),)),
            NAMES,
            table,
        ),
    )
    size = st.sampled_from([(), (), ("--size=4",), ("--size=4", "--channels=1")])
    return st.builds(
        lambda source, size, odd: Case(
            "prepare", (*BASE["prepare"], source[0], *size, *odd), source[1]
        ),
        source,
        size,
        st.just(()) if odd is None else odd,
    )


def _apart(files) -> tuple:
    """Files whose names do not get into one another's way: a file is not a folder as well."""
    kept, folders = {}, set()
    for name, content in files:
        above = {"/".join(name.split("/")[:n]) for n in range(1, name.count("/") + 1)}
        if name not in kept and name not in folders and not above & kept.keys():
            kept[name] = content
            folders |= above
    return tuple(kept.items())
