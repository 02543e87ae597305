"""The tables of names, and the pieces of mathematics that a configuration names by them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from fmjax import couplings, losses, paths, schedules, sources, times
from fmjax.conditions import ClassIds
from fmjax.config import ConfigDict
from fmjax.conventions import Array
from fmjax.couplings.host import HostCoupling
from fmjax.data.codecs import Codec, States
from fmjax.data.load import load
from fmjax.data.points import space_of
from fmjax.discrete import Corrector, Purity, TauLeap, Unmask
from fmjax.errors import InputError, unknown_name
from fmjax.factory.data_spec import DataSpec
from fmjax.flow_maps import Jumps
from fmjax.guidance import Projected, Rescale, Rule, ZeroStar, linear
from fmjax.manifolds import Manifold
from fmjax.names import load_maker, load_object, named_leaves
from fmjax.predictions import convert_weight
from fmjax.samplers import METHODS, SOLVERS, Solver, sde_spec, solver_spec
from fmjax.samplers.base import check_solver
from fmjax.samplers.time_grids import fixed_grid

PATHS = {
    "linear": lambda c: paths.AffinePath(schedules.Linear(c.sigma_min)),
    "vp": lambda c: paths.AffinePath(schedules.VP(c.beta_min, c.beta_max)),
    "linear_vp": lambda c: paths.AffinePath(schedules.LinearVP()),
    "discrete_vp": lambda c: paths.AffinePath(schedules.DiscreteVP()),
    "cosine": lambda c: paths.AffinePath(schedules.Cosine()),
    "polynomial": lambda c: paths.AffinePath(schedules.Polynomial(c.power)),
    "noisy": lambda c: paths.NoisyStraight(c.sigma),
    "bridge": lambda c: paths.BrownianBridge(c.sigma),
}
TOKEN_PATHS = ("mask", "uniform")
"""Of tokens; see `fmjax.factory.tokens`."""
TIMES = {
    "uniform": times.Uniform,
    "logit_normal": times.LogitNormal,
    "log_normal": times.LogNormal,
    "u_shaped": times.UShaped,
    "mode": times.Mode,
    "cosmap": times.CosMap,
    "beta": times.Beta,
    "step_starts": times.StepStarts,
}
"""Each takes the fields of its class from the keys of ``config.time`` that are set."""

SOURCES = {
    "normal": lambda c, spec: sources.StandardNormal(),
    "uniform": lambda c, spec: sources.UniformBox(c.low, c.high),
    "data": lambda c, spec: points_of(c, spec),
}
DISTANCES = {
    "squared": lambda c: None,  # the path's own, which is the squared error of all paths here
    "pseudo_huber": lambda c: paths.PseudoHuber(c.c),
    "adaptive": lambda c: paths.Adaptive(c.power, 1e-3 if c.c is None else c.c),
}
WEIGHTS = ("none", "velocity", "clipped_velocity")
_LARGEST_WEIGHT = 400.0  # 1 / 0.05^2: JiT (arXiv:2511.13720) divides by max(1 - t, 0.05)
COUPLINGS = {
    "independent": lambda c, where: couplings.independent,
    "ot": lambda c, where: couplings.exact(**where),
    "sinkhorn": lambda c, where: couplings.sinkhorn(
        c.coupling.epsilon, c.coupling.rounding, **where
    ),
    "schroedinger_bridge": lambda c, where: couplings.schroedinger_bridge(
        c.path.sigma, where["conditions"]
    ),
    "unbalanced": lambda c, where: couplings.unbalanced(
        c.coupling.epsilon, c.coupling.relax, **where
    ),
    "partial": lambda c, where: couplings.partial(c.coupling.fraction, **where),
    # These two come paired from the data pipeline.
    "host_ot": lambda c, where: couplings.independent,
    "pairs": lambda c, where: couplings.independent,
}


TOKEN_SOLVERS = {"unmask": Unmask, "purity": Purity, "tau_leap": TauLeap}

GUIDANCE_RULES: dict[str, Callable[[paths.Path], Rule]] = {
    "linear": lambda path: linear,
    "rescale": lambda path: Rescale(),
    "zero_star": lambda path: ZeroStar(),
    "apg": lambda path: _projected(path),
}
"""The rules of guidance, with the values of their papers; other values from Python."""


def _projected(path: paths.Path) -> Rule:
    schedule = paths.schedule_of(path)
    if schedule is None:
        raise InputError(
            f"the rule 'apg' needs an affine path; this model has {type(path).__name__}."
        )
    return Projected(schedule=schedule)


def choose(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    """The entry of that name; or what makes a piece of your own, ``package.module:Name``.

    Raises:
        InputError: there is none; the known ones are listed.
    """
    if ":" in name:
        return load_maker(kind, name)
    if name not in table:
        raise unknown_name(kind, name, table)
    return table[name]


def make_path(config: ConfigDict) -> paths.Path:
    """The path of ``config.path``; one of your own is made from these keys, too."""
    return choose("path", config.path.name, PATHS)(config.path)


def is_flow_map(config: ConfigDict) -> bool:
    """Whether the network of a configuration knows two times."""
    return config.flow_map.name != "none"


def usual_solver(config: ConfigDict) -> str:
    """The name of the solver of ``config.sample``, or the one where it says none."""
    if config.sample.solver is not None:
        return config.sample.solver
    if is_flow_map(config):
        return "jumps"
    return "unmask" if config.path.name in TOKEN_PATHS else "heun"


def _usual_steps(name: str) -> int:
    return {"jumps": 1, **dict.fromkeys(TOKEN_SOLVERS, 64)}.get(name, 25)


def make_usual_solver(config: ConfigDict, tokens: bool = False, curved: bool = False) -> Solver:
    """The solver of ``config.sample``.

    Args:
        config: every key.
        tokens: whether it is to draw tokens.
        curved: whether it is on a manifold.

    Raises:
        InputError: as `make_solver` and `check_solver_fits`.
    """
    s = config.sample
    name = usual_solver(config)
    solver = make_solver(name, s.steps or _usual_steps(name), shift=s.shift)
    check_solver_fits(solver, is_flow_map(config), tokens, curved)
    return solver


def check_solver_fits(solver: Solver, two_times: bool, tokens: bool, curved: bool = False) -> None:
    """Checks that a solver finds what it asks for.

    Args:
        solver: which.
        two_times: whether the network is of two times.
        tokens: whether states are tokens.
        curved: whether states are points on a manifold.

    Raises:
        InputError: it jumps and the network has one time; or one of the two is of tokens, and the
            other of numbers; or it adds noise on a manifold, or follows geodesics off one.
    """
    described = solver.describe()
    name = described.get("method") or described.get("solver") or type(solver).__name__
    if tokens and not getattr(solver, "needs_tokens", False):
        raise InputError(
            f"{name} follows a velocity or a score, and this run is of tokens, which jump and have "
            f"neither: take --solver={', '.join(TOKEN_SOLVERS)} (sample.solver)."
        )
    if getattr(solver, "needs_tokens", False) and not tokens:
        raise InputError(
            f"{name} draws tokens, and this run is of numbers, which move along a velocity: take a "
            "solver such as heun."
        )
    if curved and getattr(solver, "needs_score", False):
        raise InputError(
            f"{name} adds noise by the score, which a flow on a manifold does not tell: take "
            "--solver=geodesic_heun, heun or another solver of the ODE (sample.solver)."
        )
    if not curved and name in SOLVERS and SOLVERS[name].geodesic:
        raise InputError(
            f"{name} steps along the geodesics of a manifold, and this run is in flat space: take "
            "heun (sample.solver)."
        )
    if getattr(solver, "needs_span", False) and not two_times:
        raise InputError(
            "jumps need a network of two times, and this run has one of one time: take a solver "
            "such as heun, or distill the run (python -m fmjax distill)."
        )


def usual_scale(config: ConfigDict) -> float:
    """The scale of guidance of ``config.sample``: where it says none, 1.5.

    A flow map has learned its scale already, so that it is 1 there, unless it takes one. A network
    that takes one as FLUX.1-dev does gets the one it was trained at.
    """
    c = config.flow_map
    if config.sample.guidance is not None:
        return config.sample.guidance
    if config.model.guidance_scale is not None:
        return config.model.guidance_scale
    if c.guidance_max is not None:
        return min(1.5, c.guidance_max)
    return 1.0 if is_flow_map(config) else 1.5


def make_solver(name: str, steps: int | None = None, **options: Any) -> Solver:
    """The solver of that name: of the ODE, of the SDE, jumps of a flow map, or one of your own.

    Args:
        name: of `fmjax.samplers.SOLVERS`, `fmjax.samplers.METHODS` or `TOKEN_SOLVERS`, ``"jumps"``,
            or ``package.module:Name``, which is called with the number of steps, or with nothing
            where that is None.
        steps: fixed steps.
        **options: of `solver_spec`, of `sde_spec`, of `Jumps`: grid, shift and renoise; or of
            tokens: grid, shift, temperature, top_p and redraws.

    Raises:
        InputError: the name is unknown, or an option does not fit.
    """
    if name == "jumps":
        return _make_jumps(steps, **options)
    if name in TOKEN_SOLVERS:
        return _make_token_solver(name, steps, **options)
    if ":" in name:
        usual = {"shift": 1.0}
        if given := [key for key, value in options.items() if value not in (None, usual.get(key))]:
            raise InputError(
                f"a solver of your own takes the number of steps alone; leave {', '.join(given)} "
                "out."
            )
        make = load_maker("solver", name)
        solver = make() if steps is None else make(steps)
        check_solver(solver)
        return solver
    build: Callable[..., Solver] = sde_spec if name in METHODS else solver_spec
    return build(name, steps, **options)


def _make_jumps(
    steps: int | None,
    *,
    grid: Any = None,
    shift: float = 1.0,
    renoise: float = 0.0,
    **others: Any,
) -> Jumps:
    if given := [key for key, value in others.items() if value is not None]:
        raise InputError(
            f"jumps are fixed steps of a grid: leave {', '.join(given)} out, or take a solver of "
            "the ODE, such as heun."
        )
    steps, grid = fixed_grid(steps, grid, shift, default=1)
    return Jumps(steps, grid, renoise)


def _make_token_solver(
    name: str,
    steps: int | None,
    *,
    grid: Any = None,
    shift: float = 1.0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    redraws: float = 0.0,
    **others: Any,
) -> Solver:
    if given := [key for key, value in others.items() if value is not None]:
        raise InputError(
            f"tokens jump at fixed steps of a grid: leave {', '.join(given)} out of {name}."
        )
    steps, grid = fixed_grid(steps, grid, shift, default=_usual_steps(name))
    corrector = Corrector(redraws) if redraws else None
    path = None  # that of the run, by `on_path`
    return TOKEN_SOLVERS[name](path, steps, grid, temperature, top_p, corrector)


def make_source(config: ConfigDict, spec: DataSpec) -> sources.Source:
    """The source of ``config.source``; one of your own is made from these keys and the data's spec.

    Raises:
        InputError: the name is unknown, a value does not fit, or the source is data of another
            shape.
    """
    c = config.source
    return choose("source", c.name, SOURCES)(c, spec)


def check_source_data(config: ConfigDict) -> None:
    """Checks that a source which is data has the name of its set, and no other has.

    Raises:
        InputError: it does not.
    """
    c = config.source
    if (c.name == "data") != (c.data is not None):
        raise InputError(
            "source.name='data' and source.data, the name of its data set, go together; got "
            f"source.name={c.name!r} and source.data={c.data!r}."
        )


def make_source_codec(config: ConfigDict, spec: DataSpec) -> Codec:
    """What points of the source are: data of the set that it is, or states."""
    c = config.source
    return load(c.data, c.dir).codec if c.name == "data" else States(spec.shape)


def points_of(c: ConfigDict, spec: DataSpec) -> sources.Empirical:
    """Training examples of a data set as a source.

    Raises:
        InputError: they have another shape than the data, or are on another manifold.
    """
    dataset = load(c.data, c.dir)
    if dataset.shape != spec.shape:
        raise InputError(
            f"source.data={c.data!r} has examples of shape {dataset.shape}, and the data of shape "
            f"{spec.shape}; a flow starts from points of the data's own shape."
        )
    here, there = space_of(spec.codec), space_of(dataset.codec)
    if here != there:
        raise InputError(
            f"source.data={c.data!r} is on {there or 'no manifold'}, and the data on "
            f"{here or 'none'}; a flow starts from points of the data's own space."
        )
    read_pairs = getattr(dataset.train, "read_pairs", None)
    if read_pairs is not None:  # its flow starts from what its data are paired with
        return sources.Empirical(read_pairs(_some(len(dataset.stored("train")), c.size))[0])
    return sources.Empirical(dataset.codec.encode(dataset.arrays("train", c.size)[0]))


def _some(count: int, limit: int) -> Int[np.ndarray, " places"]:
    """A fixed random choice of positions, in their order."""
    return np.sort(np.random.default_rng(0).permutation(count)[:limit])


def make_time_distribution(config: ConfigDict) -> times.TimeDistribution:
    """The distribution of t of ``config.time``, shifted.

    Raises:
        InputError: the name is unknown, or a key is set that this distribution does not have.
    """
    c = config.time
    kind = choose("time distribution", c.name, TIMES)
    given = {
        key: c[key] for key in ("mean", "std", "scale", "a", "b", "steps") if c[key] is not None
    }
    known = getattr(getattr(kind, "__wrapped__", kind), "__dataclass_fields__", {})
    unused = sorted(given.keys() - known.keys())
    if unused:
        raise InputError(
            f"time.name={c.name!r} has no {', '.join(unused)}; it has {', '.join(known) or 'none'}."
        )
    distribution = kind(**given)
    return distribution if c.shift == 1 else times.Shifted(distribution, c.shift)


def make_weight(
    config: ConfigDict, path: paths.Path, law: times.TimeDistribution
) -> Callable[[Float[Array, " batch"]], Float[Array, " batch"]] | None:
    """The weight of ``config.loss.weight`` times, where it is asked, that of ``config.time``."""
    factors = []
    c = config.loss
    if ":" in c.weight:
        factors.append(load_object("loss weight", c.weight))
    elif choose("loss weight", c.weight, dict.fromkeys(WEIGHTS, c.weight)) != "none":
        schedule = paths.schedule_of(path)
        if schedule is None or c.prediction == "velocity":
            raise InputError(
                f"loss.weight={c.weight!r} counts the error of another prediction as a velocity's; "
                f"loss.prediction={c.prediction!r} on path.name={config.path.name!r} needs none."
            )
        converted = convert_weight(None, schedule, source="velocity", target=c.prediction)
        clipped = c.weight == "clipped_velocity"
        factors.append(_clipped(converted) if clipped else converted)
    if config.time.importance:
        factors.append(times.importance_weight(law))
    if not factors:
        return None

    def weight(t: Float[Array, " batch"]) -> Float[Array, " batch"]:
        product = factors[0](t)
        for factor in factors[1:]:
            product = product * factor(t)
        return product

    return weight


def _clipped(
    weight: Callable[[Float[Array, " batch"]], Float[Array, " batch"]],
) -> Callable[[Float[Array, " batch"]], Float[Array, " batch"]]:
    return lambda t: jnp.minimum(weight(t), _LARGEST_WEIGHT)


def make_configured_loss_fn(
    config: ConfigDict, apply_fn: Callable, path: paths.Path
) -> losses.LossFn:
    """``loss_fn(params, x0, x1, t, labels) -> scalar`` of ``config.loss``."""
    c = config.loss
    return losses.make_loss_fn(
        apply_fn,
        path,
        c.target,
        make_weight(config, path, make_time_distribution(config)),
        prediction=c.prediction,
        distance=choose("distance", c.distance, DISTANCES)(c),
    )


def make_coupling(
    config: ConfigDict, conditions: Any, manifold: Manifold | None = None
) -> couplings.Coupling:
    """The coupling of ``config.coupling`` for one batch on one device.

    Args:
        config: the configuration.
        conditions: of the model.
        manifold: whose geodesics are the cost; None in flat space.

    Raises:
        InputError: the name is unknown, a value does not fit, or stored pairs have no folder.
    """
    c = config.coupling
    make = choose("coupling", c.name, COUPLINGS)
    if (c.name == "pairs") != (c.dir is not None):
        raise InputError(
            "coupling.name='pairs' and coupling.dir, the folder of the pairs, go together; "
            f"got coupling.name={c.name!r} and coupling.dir={c.dir!r}."
        )
    where = {"conditions": _pairs_within(config, conditions)}
    return make(config, where if manifold is None else where | {"manifold": manifold})


def make_host_coupling(
    config: ConfigDict, conditions: Any, source: sources.Source
) -> HostCoupling | None:
    """The coupling that the data pipeline does, None where it does none.

    Raises:
        InputError: the source is not the standard normal one, which this coupling draws itself.
    """
    if config.coupling.name != "host_ot":
        return None
    if source != sources.STANDARD_NORMAL:
        raise InputError(
            "coupling.name='host_ot' draws standard normal points itself; with "
            f"source.name={config.source.name!r} write coupling.name=ot."
        )
    return HostCoupling(_pairs_within(config, conditions), config.coupling.groups)


def _pairs_within(config: ConfigDict, conditions: Any) -> couplings.SameClass | None:
    """Pairs within a class only, where the labels say a class."""
    if not config.coupling.by_label:
        return None
    if isinstance(conditions, ClassIds):
        return couplings.SameClass()
    classes = [name for name, one in named_leaves(conditions).items() if isinstance(one, ClassIds)]
    if not classes:
        return None
    return couplings.SameClass(lambda labels: _columns(labels, classes))


def _columns(labels: Any, names: list[str]) -> Int[Array, "batch columns"]:
    """Several arrays of class ids (batch,) side by side, (batch, k)."""
    leaves = named_leaves(labels)
    return jnp.stack([leaves[name] for name in names], axis=1)
