"""Which modules are mutated, and which tests belong to each."""

from collections.abc import Iterator
from pathlib import Path

MODULES = (
    # the mathematics
    *("schedules", "paths", "predictions", "losses", "times", "samplers", "guidance"),
    *("likelihood", "couplings", "numerics", "sources.py", "conditions", "draws.py", "keys.py"),
    *("flow_maps", "manifolds", "drifting.py", "intervals.py"),
    # what both halves share
    *("array_checks.py", "checks.py", "axes.py"),
    # checkpoints, data, training, sampling
    *("storage", "files.py", "folders.py", "npz.py", "json_files.py"),
    *("data/arrays.py", "data/codecs.py", "data/dataset.py", "data/items.py", "data/pairs"),
    *("data/pipeline.py", "data/pixels.py", "data/streams.py", "data/toys.py"),
    *("training/ema.py", "training/outliers.py", "training/state.py", "training/step.py"),
    *("training/step_metrics.py", "run/sample"),
)

# The first tests of a module, where no file of tests has its name and its folder takes long.
FIRST = {
    "samplers/ode": ("test_ode_solver.py", "test_ode.py"),
    "samplers/sde": ("test_sde.py",),
    "samplers/fixed_steps": ("test_own_solver.py",),
    "samplers/diffusion_coefficients": ("test_sde.py",),
    "samplers/solution": ("test_ode_solver.py", "test_ode.py"),
    "samplers/base": ("test_own_solver.py", "test_ode_solver.py"),
    "samplers/diffrax_steps/stochastic": ("test_sde.py",),
    "samplers/diffrax_steps/multistep": ("test_unipc.py", "test_ode.py", "test_ode_solver.py"),
    "samplers/diffrax_steps/given_times": ("test_ode.py",),
    "training/ema": ("test_step.py",),
    "training/state": ("test_step.py",),
    "guidance/interpolation": ("test_guidance_interpolation.py",),
    "guidance/interval": ("test_guidance_interval.py",),
    "guidance/scale_schedules": ("test_classifier_free.py",),
    "guidance/rules": ("test_guidance_rules.py",),
    "guidance/distillation": ("test_guidance_distillation.py",),
    "guidance/labels": ("test_classifier_free.py",),
    "run/sample/command": ("test_cli.py", "test_flags.py"),
    "run/sample/flags": ("test_cli.py", "test_flags.py"),
}

# The tests that a mutant meets next: those that know its module beside its own.
NEXT = {
    "schedules": ("schedules", "paths", "predictions", "samplers/test_time_grids.py"),
    "paths": ("losses", "predictions", "test_draws.py"),
    "predictions": ("guidance/test_guidance_rules.py", "losses", "samplers/test_sde.py"),
    "losses": ("training/test_step.py", "test_returned.py", "extending"),
    "times": ("losses", "test_draws.py", "flow_maps/test_spans_and_draws.py"),
    "samplers": (
        *("samplers/test_ode.py", "samplers/test_sde.py", "samplers/test_log_snr_order.py"),
        *("samplers/test_own_solver.py", "test_returned.py"),
    ),
    "guidance": ("guidance", "samplers/test_lone_conditions.py"),
    "likelihood": ("run/likelihood", "test_returned.py"),
    "couplings": (
        *("couplings", "numerics", "test_draws.py", "test_returned.py", "test_functions.py"),
    ),
    "numerics": ("couplings", "times", "schedules"),
    "sources.py": ("test_draws.py", "samplers/test_fit_source.py"),
    "conditions": ("test_conditions.py", "test_draws.py", "guidance", "data/test_dataset.py"),
    "flow_maps": ("flow_maps", "likelihood", "guidance/test_guidance_distillation.py"),
    "manifolds": ("manifolds", "test_sources.py", "testing"),
    "drifting.py": ("flow_maps", "losses"),
    "intervals.py": ("guidance/test_guidance_interval.py", "times"),
    "draws.py": ("factory/test_training.py", "training/test_step.py", "extending"),
    "keys.py": ("test_draws.py", "test_sources.py"),
    "array_checks.py": ("test_returned.py", "test_functions.py", "test_precision_of_inputs.py"),
    "checks.py": ("test_functions.py", "test_config.py", "couplings"),
    "axes.py": ("training/test_sharding.py", "models/test_dit.py"),
    "storage": ("run/test_older_runs.py", "run/weights"),
    "files.py": ("storage", "data/pairs", "run/sample"),
    "folders.py": ("run/train", "run/sample"),
    "npz.py": ("data/images", "run/sample"),
    "json_files.py": ("data", "run/test_older_runs.py"),
    "data": ("data", "run/reflow"),
    "training": ("training/test_step.py", "training/test_fit.py"),
    "run": ("run/sample", "run/test_two_conditions.py"),
}

OF_ALL = ("test_signatures.py",)  # the arguments and defaults of every module


def modules(root: Path) -> Iterator[str]:
    """The files of MODULES that hold code, as paths from the root of the repository."""
    for name in MODULES:
        path = root / "fmjax" / name
        files = [path] if path.suffix else sorted(path.rglob("*.py"))
        yield from (str(file.relative_to(root)) for file in files if file.name != "__init__.py")


def _first(tests: Path, inside: Path) -> list[Path]:
    """The tests that are written for a module, given by its path inside the package."""
    for name, files in FIRST.items():
        if str(inside).startswith(name):
            return [tests / Path(name).parts[0] / file for file in files]
    for own in (
        tests / inside.with_name(f"test_{inside.name}"),
        tests / f"test_{inside.parts[0]}.py",
    ):
        if own.exists():
            return [own]
    folder = tests / inside.parent
    while not folder.is_dir():
        folder = folder.parent
    return [] if folder == tests else [folder]


def stages(root: Path, module: str) -> list[list[str]]:
    """The arguments of pytest for each stage; a mutant that one does not kill meets the next.

    First the quick tests of the module, then those of its neighbours, then its slow ones. A stage
    without tests is empty.
    """
    inside = Path(module).relative_to("fmjax")
    first = _first(root / "tests", inside)
    near = [root / "tests" / name for name in (*NEXT[inside.parts[0]], *OF_ALL)]
    near = [path for path in near if path not in first]
    return [
        ["-m", mark, *(str(path.relative_to(root)) for path in paths)] if paths else []
        for mark, paths in (("not slow", first), ("not slow", near), ("slow", first))
    ]
