"""The map of the house: imports point down, and each dependency comes in through its door.

The source is read with `ast`; nothing of it is imported. `violations(root)` returns one sentence
for each broken rule, and the second half of this file feeds it trees that break them one by one.

Tests and benchmarks stand outside the map: they may import anything.
"""

import ast
import dataclasses
import fnmatch
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Bottom to top. A name is a module or a package under fmjax/.
SHARED = (
    *(
        "errors",
        "first_process",
        "progress_bar",
        "files",
        "folders",
        "machine",
        "npz",
        "json_files",
        "checks",
    ),
    *("keys", "axes", "conventions", "array_checks", "names", "conditions", "numerics"),
    "manifolds",
)
MATHEMATICS = (
    ("schedules", "times", "sources", "intervals"),
    ("paths", "predictions", "couplings"),
    ("losses", "guidance"),
    ("draws",),
    ("samplers",),
    ("likelihood",),
    ("flow_maps", "drifting", "discrete"),
    ("testing",),
)
# Of the machinery `training` alone is above others: `fit` reads data, saves, and logs utilisation.
MACHINERY = ("models", "data", "roofline", "metrics", "plots", "storage", "training")
BELOW_TRAINING = {"data", "roofline", "storage"}
ASSEMBLY = ("config", "factory", "run", "__main__")

# Where the halves meet beside `factory`: a published checkpoint says what network it is and on what
# path it was trained, and lies in a file and on a mesh.
MEETING = {"fmjax/models/pretrained": {"paths", "predictions", "schedules", "storage", "training"}}

# The doors: a dependency and the only files that may import it, as glob patterns.
DOORS = {
    "absl": ("fmjax/run/*",),
    "array_record": ("fmjax/data/pairs/*",),
    "diffrax": ("fmjax/samplers/*",),
    "equinox": ("fmjax/models/adapters.py",),
    "flax.nnx": ("fmjax/models/adapters.py",),
    "grain": ("fmjax/data/pipeline.py",),
    "matplotlib": (),
    "ml_collections": ("fmjax/config.py", "configs/*", "fmjax/run/*/command.py"),
    "orbax": ("fmjax/storage/checkpoints.py",),
    "ott": ("fmjax/couplings/*", "fmjax/metrics/transport.py"),
    "PIL": (
        "fmjax/plots.py",
        "fmjax/run/train/loss_curve.py",
        "fmjax/data/images/*",
        "fmjax/data/tfds/example_set.py",
        "fmjax/data/tfds/parts.py",
    ),
    "safetensors": ("fmjax/storage/safetensors.py",),
    "scipy": (
        "fmjax/numerics/host_assignment.py",
        "fmjax/metrics/*",
        "fmjax/couplings/host.py",
        "fmjax/samplers/time_grids.py",
    ),
    "sklearn": ("fmjax/metrics/classifier.py", "fmjax/data/tfds/digits.py"),
    "tensorboardX": ("fmjax/training/events.py",),
    "tensorflow": (),
    "tensorflow_datasets": (
        "fmjax/data/tfds/digits.py",
        "fmjax/data/tfds/example_set.py",
        "fmjax/data/tfds/layout.py",
        "fmjax/data/tfds/parts.py",
        "fmjax/data/tfds/public.py",
        "fmjax/data/tfds/records.py",
    ),
    "torch": ("fmjax/storage/torch_file.py",),
    "wandb": ("fmjax/run/train/weights_and_biases.py",),
    "tqdm": ("fmjax/progress_bar.py",),
}
# What any module may import, beside the standard library.
EVERYWHERE = {"jax", "jaxtyping", "flax", "optax", "numpy"}


def _layers_below() -> dict[str, set[str]]:
    """For each name of the map, the names it may import; itself is not among them."""
    below = {name: set(SHARED[:i]) for i, name in enumerate(SHARED)}
    lower = set(SHARED)
    for rank in MATHEMATICS:
        below |= {name: set(lower) for name in rank}
        lower |= set(rank)
    below |= {name: set(SHARED) for name in MACHINERY}
    below["training"] |= BELOW_TRAINING
    lower = set(SHARED)
    for name in ASSEMBLY:
        below[name] = set(lower)
        if name == "config":
            lower |= set(MACHINERY) | {name for rank in MATHEMATICS for name in rank}
        lower.add(name)
    return below


BELOW = _layers_below()
FACE = "__init__"  # fmjax/__init__.py: mathematics when it is imported, anything when it is asked
FACE_BELOW = set(SHARED) | {name for rank in MATHEMATICS for name in rank}
SCRIPT_BELOW = {"errors", *ASSEMBLY}
CONFIG_FILE_BELOW = {"errors", "config"}


@dataclasses.dataclass(frozen=True)
class Import:
    """One import statement: `module` is dotted and absolute, `lazy` if inside a function."""

    module: str
    names: tuple[str, ...]
    line: int
    lazy: bool

    @property
    def dotted(self) -> list[str]:
        """Every module this may load: `from a import b` is `a`, and perhaps `a.b`."""
        return [f"{self.module}.{name}" for name in self.names] or [self.module]


def _files(root: Path) -> list[Path]:
    found = [root / "train.py", root / "sample.py"]
    found += [*root.glob("fmjax/**/*.py"), *root.glob("configs/**/*.py")]
    return sorted(path for path in found if path.exists())


def _imports(path: Path, package: tuple[str, ...]) -> list[Import]:
    """All imports of a file, in functions too; `package` is what a relative import starts from."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, (), child.lineno, lazy)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else ()
                module = ".".join((*base, *filter(None, [child.module])))
                names = tuple(alias.name for alias in child.names)
                yield Import(module, names, child.lineno, lazy)
            elif isinstance(child, ast.Call) and (dynamic := _dynamic_import(child)):
                yield Import(dynamic, (), child.lineno, lazy)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from visit(child, lazy or function or typing_only)

    return list(visit(ast.parse(path.read_text(), str(path)), lazy=False))


def _dynamic_import(call: ast.Call) -> str | None:
    """The module named by `import_module("...")` or `__import__("...")`."""
    called = ast.unparse(call.func).rpartition(".")[2]
    if called not in ("import_module", "__import__") or not call.args:
        return None
    name = call.args[0]
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def violations(root: Path) -> list[str]:
    """One sentence for each rule that a file under `root` breaks."""
    found = []
    inner: dict[str, dict[str, set[str]]] = {}  # package -> module -> modules of that package
    modules = {_dotted(path.relative_to(root)) for path in _files(root)}
    for path in _files(root):
        where = path.relative_to(root)
        name, allowed = _place(where)
        if allowed is None:
            found.append(f"{where} has no place in the map of tests/test_layers.py")
            continue
        package = where.parts[:-1] if where.parts[0] == "fmjax" else ()
        for imported in _imports(path, package):
            at = f"{where}:{imported.line}"
            top = imported.module.partition(".")[0]
            if top != "fmjax":
                if top == "configs":
                    found.append(f"{at} imports configs, which are read by path")
                elif top not in sys.stdlib_module_names:
                    found += [f"{at} {what}" for what in _closed_doors(imported, where)]
                continue
            for dotted in imported.dotted:
                target = dotted.split(".")[1] if "." in dotted else None
                if target == name and where.parts[0] == "fmjax":
                    known = dotted if dotted in modules else imported.module
                    inner.setdefault(name, {}).setdefault(_dotted(where), set()).add(known)
                elif name == FACE and imported.lazy and target in BELOW:
                    pass
                elif target not in BELOW:
                    what = "fmjax, the public face" if imported.module == "fmjax" else dotted
                    found.append(f"{at} imports {what}: not a module of the map")
                elif target not in allowed:
                    found.append(f"{at} imports {dotted}, which is not below {name or where}")
    for name, graph in inner.items():
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            found.append(f"fmjax/{name}: a cycle of imports, {' -> '.join(error.args[1])}")
    return [*found, *_utils(root)]


def _dotted(where: Path) -> str:
    return ".".join(where.with_suffix("").parts).removesuffix(".__init__")


def _place(where: Path) -> tuple[str, set[str] | None]:
    """The name of a file in the map, and what it may import; None for a file without a place."""
    if where.parts[0] != "fmjax":
        return str(where), CONFIG_FILE_BELOW if where.parts[0] == "configs" else SCRIPT_BELOW
    name = where.parts[1].removesuffix(".py")
    if where.parent.as_posix() in MEETING:
        return name, BELOW[name] | MEETING[where.parent.as_posix()]
    return name, FACE_BELOW if name == FACE else BELOW.get(name)


def _closed_doors(imported: Import, where: Path) -> Iterator[str]:
    for dotted in imported.dotted:
        doors = [door for door in DOORS if f"{dotted}.".startswith(f"{door}.")]
        for door in doors:
            if not any(fnmatch.fnmatch(where.as_posix(), glob) for glob in DOORS[door]):
                yield f"imports {door}, whose door is {', '.join(DOORS[door]) or 'nowhere yet'}"
                return
        if not doors and imported.module.partition(".")[0] not in EVERYWHERE:
            yield f"imports {imported.module}, which has no door in tests/test_layers.py"
            return


def _utils(root: Path) -> Iterator[str]:
    for folder in ("fmjax", "configs", "tests", "benchmarks"):
        for path in sorted(root.glob(f"{folder}/**/*")):
            if path.suffix in ("", ".py") and path.stem.split("_")[-1] in ("utils", "util"):
                yield f"{path.relative_to(root)}: a helper lives in the module that needs it"


@pytest.mark.slow
def test_the_house_keeps_its_rules():
    assert violations(ROOT) == []


@pytest.mark.slow
def test_import_fmjax_loads_no_optional_package(run_python):
    """What `import fmjax` loads, jax, flax, optax and diffrax load already."""
    tops = "{name.partition('.')[0] for name in sys.modules}"
    out = run_python(
        f"""
        import sys
        import jax, flax, optax, diffrax
        before = {tops}
        import fmjax
        for name in sorted({tops} - before - set(sys.stdlib_module_names) - {{"fmjax"}}):
            print(name)
        """,
        devices=1,
    )
    assert out.split() == []


# Trees that break the rules, each with the sentence that must come.

GOOD = {
    "fmjax/__init__.py": """
        from fmjax import losses
        from fmjax.paths import linear
        def __getattr__(name):
            import fmjax.models
            from importlib import import_module
            return import_module("fmjax.training")
    """,
    "fmjax/errors.py": "import difflib",
    "fmjax/conventions.py": "import jax\nfrom fmjax.errors import InputError",
    "fmjax/schedules.py": "import jax.numpy as jnp\nfrom fmjax.conventions import broadcast",
    "fmjax/paths.py": "from . import schedules\nfrom .schedules import linear",
    "fmjax/losses.py": "from fmjax import paths",
    "fmjax/samplers/__init__.py": "from fmjax.samplers.ode import solve",
    "fmjax/samplers/ode.py": "import fmjax.guidance\nfrom .. import losses\nfrom . import spec",
    "fmjax/samplers/spec.py": "def solver():\n    import diffrax",
    "fmjax/models/mlp.py": "from flax import linen as nn\nfrom fmjax import errors",
    "fmjax/models/pretrained/dit.py": "from fmjax import paths, storage, training",
    "fmjax/models/adapters.py": "def nnx():\n    from flax import nnx",
    "fmjax/data/tfds/digits.py": "def digits():\n    from sklearn.datasets import load_digits",
    "fmjax/storage/checkpoints.py": "import orbax.checkpoint as ocp",
    "fmjax/training/loop.py": "from fmjax import data, roofline\nimport fmjax.storage.checkpoints",
    "fmjax/progress_bar.py": "def bar():\n    from tqdm import tqdm",
    "fmjax/config.py": "from ml_collections import config_dict",
    "fmjax/factory.py": "import fmjax.models.mlp\nfrom fmjax import config, samplers",
    "fmjax/run/loop.py": "from fmjax import factory, losses, storage",
    "configs/digits.py": "from ml_collections import config_dict",
    "train.py": "from fmjax import run\nfrom fmjax.config import load",
}

BAD = {
    "a module without a place": ("fmjax/extras.py", "", "fmjax/extras.py has no place"),
    "a package without a place": ("fmjax/wings/left.py", "", "fmjax/wings/left.py has no place"),
    "up": ("fmjax/schedules.py", "from fmjax.paths import x", "schedules.py:1 imports fmjax.paths"),
    "up, in a function": ("fmjax/times.py", "def f():\n    import fmjax.losses", "py:2 imports"),
    "up, relative": ("fmjax/losses.py", "from . import samplers", "imports fmjax.samplers"),
    "up, relative, from a package": (
        "fmjax/samplers/ode.py",
        "from ..likelihood import log_p",
        "imports fmjax.likelihood.log_p, which is not below samplers",
    ),
    "up, by name": (
        "fmjax/paths.py",
        "import importlib\nimportlib.import_module('fmjax.losses')",
        "imports fmjax.losses",
    ),
    "up, for types": (
        "fmjax/paths.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fmjax.losses import L",
        "imports fmjax.losses",
    ),
    "up, among the shared": ("fmjax/errors.py", "import fmjax.conventions", "not below errors"),
    "sideways": ("fmjax/times.py", "from fmjax import schedules", "not below times"),
    "data above training": ("fmjax/data/load.py", "import fmjax.training.step", "not below data"),
    "sideways, machinery": ("fmjax/models/mlp.py", "from fmjax.training import x", "below models"),
    "machinery to mathematics": ("fmjax/training/step.py", "from fmjax import losses", "training"),
    "mathematics to machinery": ("fmjax/losses.py", "import fmjax.models", "below losses"),
    "assembly, up": ("fmjax/factory.py", "import fmjax.run", "below factory"),
    "config to a half": ("fmjax/config.py", "import fmjax.paths", "below config"),
    "the face from inside": ("fmjax/losses.py", "import fmjax", "the public face"),
    "a name of the face": ("fmjax/losses.py", "from fmjax import make_loss", "the public face"),
    "no such module": ("fmjax/losses.py", "from fmjax.shared import x", "not a module of the map"),
    "the face, early": ("fmjax/__init__.py", "from fmjax import models", "not below __init__"),
    "a script below run": ("sample.py", "from fmjax.samplers import ode", "not below sample.py"),
    "a config file": ("configs/toy.py", "from fmjax.models import mlp", "not below configs/toy.py"),
    "a config imported": ("fmjax/run/loop.py", "from configs import digits", "read by path"),
    "diffrax": ("fmjax/likelihood.py", "import diffrax", "whose door is fmjax/samplers/*"),
    "equinox": ("fmjax/models/mlp.py", "import equinox as eqx", "imports equinox"),
    "nnx": ("fmjax/models/mlp.py", "from flax import nnx", "imports flax.nnx"),
    "nnx, in full": ("fmjax/models/mlp.py", "import flax.nnx as nnx", "imports flax.nnx"),
    "grain, in a function": ("fmjax/data/toys.py", "def f():\n    import grain.python", "py:2"),
    "orbax": ("fmjax/run/loop.py", "import orbax.checkpoint as ocp", "imports orbax"),
    "sklearn": ("fmjax/plots.py", "from sklearn import svm", "imports sklearn"),
    "pillow": ("fmjax/metrics/frechet.py", "from PIL import Image", "imports PIL"),
    "tensorboardX": ("fmjax/training/step.py", "import tensorboardX", "imports tensorboardX"),
    "tqdm": ("fmjax/data/toys.py", "import tqdm", "imports tqdm"),
    "tfds": ("fmjax/data/pipeline.py", "import tensorflow_datasets as tfds", "imports tensorflow_"),
    "tensorflow": ("fmjax/data/tfds/public.py", "import tensorflow as tf", "imports tensorflow,"),
    "absl": ("fmjax/factory.py", "from absl import logging", "imports absl"),
    "ml_collections": ("fmjax/factory.py", "import ml_collections", "imports ml_collections"),
    "matplotlib": ("fmjax/plots.py", "import matplotlib.pyplot", "door is nowhere yet"),
    "ott": ("fmjax/losses.py", "from ott.tools import x", "whose door is fmjax/couplings/*"),
    "no door": ("fmjax/models/mlp.py", "import keras", "imports keras, which has no door"),
    "utils": ("fmjax/models/utils.py", "", "a helper lives in the module that needs it"),
    "utils, a package": ("fmjax/data/utils/x.py", "", "a helper lives in the module that needs it"),
    "utils, by suffix": ("tests/test_utils.py", "", "a helper lives in the module that needs it"),
}


def _write(root: Path, tree: dict[str, str]) -> Path:
    for name, source in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = source.strip("\n").split("\n")
        indent = len(lines[0]) - len(lines[0].lstrip())
        path.write_text("\n".join(line[indent:] for line in lines))
    return root


def test_a_good_tree_passes(tmp_path):
    assert violations(_write(tmp_path, GOOD)) == []


@pytest.mark.parametrize(("where", "source", "sentence"), BAD.values(), ids=BAD.keys())
def test_a_bad_tree_fails(tmp_path, where, source, sentence):
    found = violations(_write(tmp_path, GOOD | {where: source}))
    assert len(found) == 1, found
    assert where.split("/")[1 if "utils/" in where else 0] in found[0]
    assert sentence in found[0]


CYCLES = {
    "of two": {"step.py": "from fmjax.training import state", "state.py": "from . import step"},
    "of three, one lazy": {
        "step.py": "from .state import S",
        "state.py": "from .ema import E",
        "ema.py": "def f():\n    from fmjax.training.step import s",
    },
    "through the package": {
        "__init__.py": "from fmjax.training.step import train_step",
        "step.py": "from fmjax.training import train_step",
    },
}


@pytest.mark.parametrize("tree", CYCLES.values(), ids=CYCLES.keys())
def test_a_cycle_fails(tmp_path, tree):
    files = {f"fmjax/training/{name}": source for name, source in tree.items()}
    found = violations(_write(tmp_path, GOOD | files))
    assert len(found) == 1, found
    assert "fmjax/training: a cycle of imports" in found[0]


def _example(glob: str) -> str:
    """A file that a pattern admits."""
    return glob.replace("/*/", "/door/").replace("*", "door.py")


def test_every_door_is_held(tmp_path):
    """Each dependency may be imported where its door is, and nowhere else that is tried."""
    for package, globs in DOORS.items():
        _write(tmp_path, {_example(glob): f"import {package}" for glob in globs})
        assert violations(tmp_path) == []
        _write(tmp_path, {"fmjax/schedules.py": f"def f():\n    import {package}"})
        assert len(violations(tmp_path)) == 1, package
        (tmp_path / "fmjax/schedules.py").unlink()
