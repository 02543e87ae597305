"""What a checkout computes, recorded, and two such records compared.

    python -m benchmarks.witness --checkout=PATH --out=before.npz
    python -m benchmarks.witness --compare before.npz after.npz

For changes that should leave every number as it is. Draws must have the same bits; in every other
array the largest difference must be at most 1e-6 of the root mean square. The comparison prints a
table and exits with 1 where something differs. ``--parts`` records or compares some parts only.

Both records must be made on one machine with one set of packages, because another CPU or compiler
rounds otherwise. For the same reason no record is kept in the repository.

The code of the checkout runs in processes of its own, mostly as its commands. What depends on names
inside the package is in the first section.
"""

import argparse
import functools
import importlib
import importlib.metadata
import itertools
import json
import os
import platform
import re
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TOLERANCE = 1e-6
CONFIGS = ("toy2d", "digits")
STEPS = 100  # of each training

# ---- Names of the package, and of its commands


def command_line(checkout: Path, command: str) -> list[str]:
    """The arguments of Python that run one of the commands."""
    if (checkout / f"{command}.py").exists():
        return [f"{command}.py"]
    if (checkout / "fmjax" / "__main__.py").exists():
        return ["-m", "fmjax", command]
    return ["-m", f"fmjax.run.{command}"]


def config_file(checkout: Path, name: str) -> Path:
    """The configuration file of a name."""
    return next(checkout.glob(f"**/configs/{name}.py"))


def find(*names: str, under: str = "") -> object:
    """The first of these functions or classes that a file in a folder of the package defines."""
    root = Path.cwd() / "fmjax"
    for name in names:
        defines = re.compile(rf"^(?:def|class) {name}\b", re.MULTILINE)
        found = [p for p in sorted((root / under).rglob("*.py")) if defines.search(p.read_text())]
        if len(found) > 1:
            raise LookupError(f"{name} is defined more than once: {found}")
        if found:
            module = ".".join(found[0].relative_to(root.parent).with_suffix("").parts)
            return getattr(importlib.import_module(module.removesuffix(".__init__")), name)
    raise LookupError(f"none of {names} is defined in {root / under}")


def make_experiment(name: str, changes: dict) -> tuple[object, object, object]:
    """The configuration, the data set and the experiment of a configuration file."""
    config = runpy.run_path(str(config_file(Path.cwd(), name)))["get_config"]()
    config.update_from_flattened_dict(changes)
    data = find("load", "load_dataset", under="data")(config.data.name, config.data.dir)
    return config, data, find("make_experiment")(config, find("spec_of")(data))


def draw_of(experiment: object, key: object, batch: dict) -> dict[str, object]:
    """All that one training step draws, by name."""
    import jax

    args = experiment.draw(key, batch)
    x0, x1, t, labels = args
    x0, *noise = jax.tree.leaves(x0)  # a stochastic path had its noise beside x0
    noise += jax.tree.leaves(getattr(args, "noise", None))
    drawn = {"x0": x0, "x1": x1, "t": t, "labels": labels}
    return drawn | {f"noise{i}": z for i, z in enumerate(noise)}


# ---- What runs in a process of the checkout

VARIANTS = {
    "digits": {},
    "digits, flip": {"data.flip": True},
    "digits, dequantize": {"data.dequantize": True},
    "digits, ot": {"coupling.name": "ot", "coupling.groups": 2},
    "digits, bridge": {"path.name": "bridge"},
    "digits, stratified": {"time.name": "logit_normal", "time.stratified": True},
    "toy2d": {},
    "toy2d, ot": {"coupling.name": "ot", "coupling.by_label": False},
    "toy2d, sinkhorn": {"coupling.name": "sinkhorn"},
    "toy2d, host_ot": {"coupling.name": "host_ot"},
    "toy2d, noisy": {"path.name": "noisy"},
    "toy2d, stratified": {"time.name": "u_shaped", "time.shift": 2.0, "time.stratified": True},
}


def record_draws() -> dict[str, np.ndarray]:
    """The draws of the first two steps of each variant."""
    import jax

    record = {}
    for variant, changes in VARIANTS.items():
        config, data, experiment = make_experiment(variant.partition(",")[0], changes)
        c, key = config.train, jax.random.fold_in(jax.random.key(config.train.seed), 1)
        how = {"global_batch": c.batch_size, "seed": c.seed}
        how |= {"flip": config.data.flip, "couple": experiment.couple}
        batches = find("batches", under="data")(data, **how)
        draw = jax.jit(functools.partial(draw_of, experiment))
        for step in range(2):
            drawn = draw(jax.random.fold_in(key, step), next(batches))
            for name, x in drawn.items():
                record[f"draws/{variant}/{step}/{name}"] = np.asarray(x)
        batches.close()
    return record


ODES = (
    "ab2 ab3 bosh3 dopri5 dopri8 dpmpp_2m euler heun midpoint ralston rk4 tsit5 "
    "unipc unipc_interpolated"
)
SDES = "churn euler_maruyama overshoot refresh stochastic_heun"


def sampling_cases() -> dict[str, tuple[object, dict]]:
    """By name: how to solve, and the arguments of the guidance."""
    ode, sde = find("solver_spec"), find("sde_spec")
    cases = {name: (ode(name, 6), {}) for name in ODES.split()}
    cases |= {name: (sde(name, 6), {}) for name in SDES.split()}
    for control in ("sample", "batch"):
        cases[f"tsit5 per {control}"] = (ode("tsit5", control=control, rtol=1e-3), {})
    cases["churn, constant, karras"] = (sde("churn", 6, diffusion="constant", grid="karras"), {})
    cases["heun, shift"] = (ode("heun", 6, shift=3.0), {})
    rules = {name: find(name)() for name in ("Rescale", "ZeroStar", "Projected")}
    cases |= {name: (ode("heun", 6), {"rule": rule}) for name, rule in rules.items()}
    cases["interval"] = (ode("heun", 6), {"interval": (0.2, 0.8)})
    cases["zero_until"] = (ode("heun", 6), {"zero_until": 0.1})
    return cases


def record_samples(weights: str) -> dict[str, np.ndarray]:
    """Guided samples as floats, before they become pixels, by every solver and rule."""
    import jax
    from safetensors.numpy import load_file

    params = {}
    for name, x in load_file(weights).items():
        *parents, last = name.split(".")
        functools.reduce(lambda d, k: d.setdefault(k, {}), parents, params)[last] = x
    _, data, experiment = make_experiment("digits", {})
    solve, solve_sde, guided = find("solve", under="samplers"), find("solve_sde"), find("Guided")
    x0 = jax.random.normal(jax.random.key(0), (64, *data.shape))
    keys = jax.random.split(jax.random.key(1), len(x0))
    # All ten digits and the null one, which both checkouts call by its number.
    labels, null = np.arange(len(x0), dtype=np.int32) % 10, np.int32(10)
    w = np.full(len(x0), 1.5, np.float32)
    record = {}
    for name, (spec, guidance) in sampling_cases().items():

        @jax.jit
        def sample(params, x0, keys, labels, w, name=name, spec=spec, guidance=guidance):
            velocity = functools.partial(experiment.apply_fn, params)
            velocity = find("classifier_free")(velocity, null, **guidance)
            if hasattr(spec, "diffusion"):
                return solve_sde(velocity, x0, keys, guided(labels, w), spec)
            return solve(velocity, x0, guided(labels, w), spec)

        solution = sample(params, x0, keys, labels, w)
        record[f"samples/by solve/{name}/x1"] = np.asarray(solution.x1)
        record[f"samples/by solve/{name}/nfe"] = np.asarray(solution.nfe)
    return record


def record_state(group: str, *workdirs: str) -> dict[str, np.ndarray]:
    """The whole state of the newest checkpoint of each run, read without the package."""
    import jax
    import orbax.checkpoint as ocp

    record = {}
    for workdir in map(Path, workdirs):
        folder = max((workdir / "checkpoints").iterdir(), key=lambda p: int(p.name)) / "state"
        reader = ocp.PyTreeCheckpointer()
        tree = reader.metadata(folder).item_metadata.tree
        args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        state = reader.restore(folder, restore_args=args)
        for path, x in jax.tree_util.tree_flatten_with_path(state)[0]:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            record[f"{group}/{workdir.name}/{name}"] = np.asarray(x)
    return record


def probe(part: str, out: Path, *arguments: str) -> None:
    """Records one part inside the checkout's process and writes it."""
    import fmjax

    if not Path(fmjax.__file__).is_relative_to(Path.cwd()):
        raise ImportError(f"fmjax comes from {fmjax.__file__}, and not from {Path.cwd()}")
    record = {"draws": record_draws, "samples": record_samples, "state": record_state}[part]
    np.savez(out, **record(*arguments))


# ---- What runs the checkout


class Checkout:
    """Runs the commands of a checkout, and keeps what they write in a scratch folder."""

    def __init__(self, root: Path, scratch: Path):
        self.root, self.scratch = root.resolve(), scratch
        self.trained = functools.cache(self._train)

    def python(self, *arguments: object, devices: int = 1) -> None:
        """Runs Python in the checkout; its output is shown where it fails."""
        env = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self.scratch / "compiled"),
            "PYTHONPATH": str(self.root),
            "PYTHONPYCACHEPREFIX": str(self.scratch / "bytecode"),  # the checkout is left as it is
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        command, began = [sys.executable, *map(str, arguments)], time.time()
        done = subprocess.run(command, cwd=self.root, env=env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        print(f"{time.time() - began:6.1f} s  {' '.join(command[1:])[:90]}", flush=True)

    def command(self, name: str, *flags: object, devices: int = 1) -> None:
        """Runs one of the commands."""
        self.python(*command_line(self.root, name), *flags, devices=devices)

    def probe(self, *arguments: object) -> dict[str, np.ndarray]:
        """Runs a part of this script in the checkout, and reads what it recorded."""
        part, *rest = arguments
        out = self.scratch / f"{part}.npz"
        self.python("-P", Path(__file__).resolve(), "--probe", part, out, *rest)
        return dict(np.load(out))

    def _train(self, name: str, parallel: str) -> Path:
        """The folder of a short training."""
        workdir = self.scratch / f"{name}-{parallel}"
        c = {"train.steps": STEPS, "train.checkpoint_every": STEPS, "train.log_every": STEPS}
        c |= {"train.sample_every": 0, "optimizer.warmup_steps": 20, "eval.num": 0}
        flags = [f"--config={config_file(self.root, name)}", f"--workdir={workdir}"]
        flags += [f"--config.{key}={value}" for key, value in c.items()]
        devices = 2 if parallel == "pmap" else 1
        self.command("train", *flags, f"--parallel={parallel}", devices=devices)
        return workdir


COMMANDS = {  # of sample.py; points are written as floats
    "toy2d, heun": ["--solver=heun", "--steps=8"],
    "toy2d, tsit5": ["--solver=tsit5", "--rtol=1e-3", "--batch_size=48"],
    "toy2d, churn": ["--solver=churn", "--steps=8", "--diffusion=zero_ends", "--noise=0.5"],
    "toy2d, unipc": ["--solver=unipc", "--steps=6", "--rule=zero_star", "--interval=0.2,0.8"],
    "toy2d, negative": ["--negative=0", "--labels=1,2", "--schedule=linear", "--shift=2"],
    "digits, heun": ["--solver=heun", "--steps=8"],
}


def draws(checkout: Checkout) -> dict[str, np.ndarray]:
    """The draws of the training step."""
    return checkout.probe("draws")


def parameters(checkout: Checkout) -> dict[str, np.ndarray]:
    """The state after short trainings, on one device by jit and on two by pmap."""
    runs = [checkout.trained(*run) for run in itertools.product(CONFIGS, ("jit", "pmap"))]
    return checkout.probe("state", "parameters", *runs)


def samples(checkout: Checkout) -> dict[str, np.ndarray]:
    """Samples through the library, from exported weights, and samples of the command."""
    workdir, weights = checkout.trained("digits", "jit"), checkout.scratch / "weights"
    checkout.command("weights", f"--workdir={workdir}", f"--out={weights}")
    record = checkout.probe("samples", weights / "ema.safetensors")
    for k, (case, flags) in enumerate(COMMANDS.items()):
        workdir = checkout.trained(case.partition(",")[0], "jit")
        out, flags = checkout.scratch / f"out{k}", ["--num=64", "--guidance=1.5", *flags]
        checkout.command("sample", f"--workdir={workdir}", f"--out={out}", *flags)
        drawn = np.load(out / "samples.npz")
        record |= {f"samples/by command/{case}/{name}": x for name, x in drawn.items()}
    return record


def likelihood(checkout: Checkout) -> dict[str, np.ndarray]:
    """The figures of the likelihood command."""
    workdir, out = checkout.trained("digits", "jit"), checkout.scratch / "likelihood.json"
    flags = ["--num=64", "--probes=2", "--solver=heun", "--steps=6", f"--out={out}"]
    checkout.command("likelihood", f"--workdir={workdir}", *flags)
    return numbers(json.loads(out.read_text()), "likelihood/digits")


def reflow(checkout: Checkout) -> dict[str, np.ndarray]:
    """The pairs of a reflow round, the state after it, and its figures."""
    workdir = checkout.trained("toy2d", "jit")
    flags = ["--num=1024", "--train_steps=50", "--steps=6", "--guidance=1.5"]
    checkout.command("reflow", f"--workdir={workdir}", *flags)
    after = workdir.with_name(f"{workdir.name}-reflow1")
    figures = numbers(json.loads((after / "reflow.json").read_text()), "reflow/figures")
    return stored_pairs(after / "pairs") | checkout.probe("state", "reflow", after) | figures


def stored_pairs(folder: Path) -> dict[str, np.ndarray]:
    """The pairs of a reflow round; each record is x0 and x1 in float32, and an int32 label."""
    from array_record.python.array_record_module import ArrayRecordReader

    raw = []
    for path in sorted(folder.glob("*.array_record")):
        raw += ArrayRecordReader(str(path)).read_all()
    rows = np.frombuffer(b"".join(raw), "<f4").reshape(len(raw), -1)
    return {"reflow/pairs/x": rows[:, :-1], "reflow/pairs/labels": rows.view("<i4")[:, -1]}


def numbers(content: object, name: str) -> dict[str, np.ndarray]:
    """The numbers of a JSON file, without times and without the checksums of parameters."""
    if isinstance(content, dict):
        left_out = re.compile("seconds|parameters")
        items = {k: v for k, v in content.items() if not left_out.search(k)}.items()
        return {k: v for key, value in items for k, v in numbers(value, f"{name}/{key}").items()}
    if isinstance(content, bool) or not isinstance(content, int | float):
        return {}
    return {name: np.asarray(content, np.float64)}


PARTS = {f.__name__: f for f in (draws, parameters, samples, likelihood, reflow)}
"""What can be recorded; the first part of an array's name says which of them it belongs to."""


# ---- Two records


def machine() -> str:
    """What the rounding depends on: the CPU, the packages, the flags."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), "")
    packages = ("jax", "jaxlib", "flax", "optax", "diffrax", "numpy", "ott-jax", "grain")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return f"{cpu or platform.processor()}, {os.cpu_count()} cores; {', '.join(versions)}"


def difference(before: np.ndarray, after: np.ndarray) -> float:
    """The largest difference, relative to the root mean square of the first; 0 for equal bits."""
    if before.shape != after.shape or before.dtype != after.dtype:
        return np.inf
    if before.tobytes() == after.tobytes():
        return 0.0
    a, b = before.astype(np.float64), after.astype(np.float64)
    largest = np.max(np.abs(a - b)) / max(np.sqrt(np.mean(a**2)), 1e-30)
    return float(largest) if np.isfinite(largest) else np.inf


def compare(before: Path, after: Path, parts: list[str]) -> int:
    """Prints a row for each group of arrays; returns 1 where something differs, else 0."""
    a, b = dict(np.load(before)), dict(np.load(after))
    if (here := str(a.pop("machine"))) != (there := str(b.pop("machine"))):
        sys.exit(f"the records were made on different machines:\n  {here}\n  {there}")
    groups = {}
    for name in sorted(n for n in a.keys() | b.keys() if n.partition("/")[0] in parts):
        found = difference(a[name], b[name]) if name in a and name in b else np.inf
        groups.setdefault("/".join(name.split("/")[:2]), []).append((found, name))
    failed = not groups
    print(f"{'':40} arrays  same bits  largest difference")
    for group, rows in groups.items():
        limit = 0 if group.startswith("draws") else TOLERANCE
        worst, same = max(rows)[0], sum(found == 0 for found, _ in rows)
        print(f"{group:40} {len(rows):6} {same:10}  {worst:18.1e}")
        for found, name in sorted(rows, reverse=True)[:10]:
            if found > limit:
                why = "" if name in a and name in b else ", in one record only"
                print(f"    DIFFERS by {found:.1e}: {name}{why}")
        failed |= worst > limit
    print("the records differ" if failed else "the records agree")
    return int(failed)


def main() -> int:
    """Reads the arguments; records or compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", type=Path, help="the folder whose code is recorded")
    parser.add_argument("--out", type=Path, help="the file to write the record to")
    parser.add_argument("--compare", type=Path, nargs=2, help="two records")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--probe", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.probe:
        part, out, *rest = arguments.probe
        probe(part, Path(out), *rest)
        return 0
    if arguments.compare:
        return compare(*arguments.compare, arguments.parts)
    if arguments.checkout is None or arguments.out is None:
        parser.error("give --checkout and --out, or --compare and two records")
    record = {"machine": machine()}
    with tempfile.TemporaryDirectory() as scratch:
        checkout = Checkout(arguments.checkout, Path(scratch))
        for part in arguments.parts:
            record |= PARTS[part](checkout)
            np.savez_compressed(arguments.out, **record)  # a later part may fail
            print(f"{arguments.out}: {part}, {len(record) - 1} arrays so far", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
