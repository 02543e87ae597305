"""The two ways to compile one step over the devices: jit over a mesh, and pmap.

Both take and return the same `TrainState` without a device axis, so one checkpoint serves both.
A layout is an object with the methods of `Jit`; the loop never asks which one it has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PRNGKeyArray, Shaped

from fmjax.axes import AXES, DATA, FSDP, ROWS, TENSOR
from fmjax.errors import InputError, unknown_name
from fmjax.training.mesh import (
    DATA_PARALLEL,
    MeshSizes,
    check_rows_within_processes,
    make_mesh,
    within,
)
from fmjax.training.sharding import Rules, state_shardings
from fmjax.training.state import TrainState
from fmjax.training.step import Batch, Step

State = TypeVar("State")


def _in_a_row(step: Step, steps: int) -> Step:
    """Several steps as one program: batch and metrics get a leading axis of that length."""
    if steps == 1:
        return step

    def several(state, key, batches):
        return jax.lax.scan(lambda s, batch: step(s, key, batch), state, batches)

    return several


@dataclass(frozen=True)
class Jit:
    """One program over a mesh of all devices; the compiler adds the collectives.

    Attributes:
        mesh: all devices.
        steps: of training, in one call of the compiled program.
        rules: which axes of the mesh split which parameters; see `fmjax.training.sharding`.
    """

    mesh: Mesh
    steps: int = 1
    rules: Rules = ()
    axis_name = None

    def init(self, make_state: Callable[[PRNGKeyArray], State], key: PRNGKeyArray) -> State:
        """Makes the state in its shards, so that no device ever holds more than its own."""
        shardings = state_shardings(jax.eval_shape(make_state, key), self.mesh, self.rules)
        return jax.jit(make_state, out_shardings=shardings)(key)

    def compile(self, step: Step) -> jax.stages.Wrapped:
        """The step to be compiled, its state donated."""

        def sharded_step(state, key, batch):
            with within(self.mesh):
                new_state, metrics = step(state, key, batch)
            shardings = state_shardings(new_state, self.mesh, self.rules)
            new_state = jax.tree.map(jax.lax.with_sharding_constraint, new_state, shardings)
            return new_state, metrics

        return jax.jit(_in_a_row(sharded_step, self.steps), donate_argnums=0)

    def ahead(self, step: Step, *args: Any) -> Step:
        """The step compiled ahead of its first call, for arguments like these."""
        return self.compile(step).lower(*args).compile()

    def place(self, batch: dict[str, Any]) -> Batch:
        """A batch of this process's examples, put on the devices."""
        rows = NamedSharding(self.mesh, P(ROWS) if self.steps == 1 else P(None, ROWS))
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(rows, x), batch)

    def to_global(self, state: TrainState) -> TrainState:
        """The state as arrays over all processes, as a checkpoint holds it."""
        return state

    def from_global(self, state: TrainState) -> TrainState:
        """The inverse of `to_global`.

        An identity program: some restored arrays do not donate until they are its outputs.
        """
        shardings = state_shardings(state, self.mesh, self.rules)
        return jax.jit(lambda x: x, out_shardings=shardings)(state)


@dataclass(frozen=True)
class Pmap:
    """One program per device, gradients averaged by name; data parallel only.

    Attributes:
        mesh: all devices, along the data axis.
        steps: of training, in one call of the compiled program.
        rules: as of `Jit`; nothing is split here.
    """

    mesh: Mesh
    steps: int = 1
    rules: Rules = ()
    axis_name = DATA

    def _local(self, *axes: str | None) -> NamedSharding:
        """Of this process's devices, over the one axis that pmap has itself."""
        mesh = Mesh(np.array(self.mesh.local_devices), (DATA,), (AxisType.Auto,))
        return NamedSharding(mesh, P(*axes))

    def init(self, make_state: Callable[[PRNGKeyArray], State], key: PRNGKeyArray) -> State:
        """Makes the state on every device of this process; equal keys make equal states."""
        return jax.jit(make_state, out_shardings=self._local())(key)

    def compile(self, step: Step) -> jax.stages.Wrapped:
        """The step to be compiled, its state donated."""
        return jax.pmap(
            _in_a_row(step, self.steps),
            axis_name=self.axis_name,
            in_axes=(None, None, 0 if self.steps == 1 else 1),
            out_axes=None,
            donate_argnums=0,
            devices=list(self.mesh.devices.flat),
        )

    def ahead(self, step: Step, *args: Any) -> Step:
        """The step compiled ahead of its first call, where pmap can: in a run of one process.

        Of several, what it compiles ahead asks for the arrays of all of them.
        """
        step = self.compile(step)
        return step if jax.process_count() > 1 else step.lower(*args).compile()

    def place(self, batch: dict[str, Any]) -> Batch:
        """A batch of this process's examples, on the devices, with a device axis before rows."""
        before = () if self.steps == 1 else (self.steps,)
        devices = len(self.mesh.local_devices)

        def by_device(x: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
            return x.reshape(*before, devices, -1, *x.shape[len(before) + 1 :])

        split = jax.tree.map(by_device, batch)
        return jax.device_put(split, self._local(*[None] * len(before), DATA))

    def to_global(self, state: TrainState) -> TrainState:
        """The state as arrays over all processes: pmap returns arrays of this process alone."""
        if jax.process_count() == 1:
            return state
        return multihost_utils.host_local_array_to_global_array(state, self.mesh, P())

    def from_global(self, state: TrainState) -> TrainState:
        """The inverse of `to_global`."""
        if jax.process_count() > 1:
            state = multihost_utils.global_array_to_host_local_array(state, self.mesh, P())
        return jax.jit(lambda x: x, out_shardings=self._local())(state)


Parallel = Literal["jit", "pmap"]
LAYOUTS: dict[Parallel, type[Jit] | type[Pmap]] = {"jit": Jit, "pmap": Pmap}


def make_layout(
    name: str,
    devices: Sequence[jax.Device] | None = None,
    sizes: MeshSizes = DATA_PARALLEL,
    steps: int = 1,
    rules: Rules = (),
) -> Jit | Pmap:
    """The layout of that name over the devices given, all of them by default.

    Args:
        name: ``"jit"`` or ``"pmap"``.
        devices: which.
        sizes: of the mesh.
        steps: of training, in one call.
        rules: of the network, by which its parameters are split.

    Raises:
        InputError: the name is unknown, the sizes do not fit the devices, or pmap is asked to split
            parameters.
    """
    return layout_over(make_mesh(devices, sizes), name, steps, rules)


def layout_over(mesh: Mesh, name: str = "jit", steps: int = 1, rules: Rules = ()) -> Jit | Pmap:
    """The layout of that name over a mesh; as `make_layout`, which makes the mesh.

    Raises:
        InputError: the name is unknown, the mesh has other axes than those of `make_mesh`, or pmap
            is asked to split parameters.
    """
    if name not in LAYOUTS:
        raise unknown_name("way to compile (--parallel)", name, LAYOUTS)
    if tuple(mesh.shape) != AXES:
        raise InputError(
            f"the mesh must have the axes {', '.join(AXES)}, as fmjax.training.mesh.make_mesh "
            f"makes it; got {', '.join(map(str, mesh.shape))}."
        )
    if name == "pmap" and mesh.shape[DATA] != mesh.size:
        raise InputError(
            "pmap holds the whole state on every device, so it cannot split it: write "
            f"mesh.{FSDP}=1 mesh.{TENSOR}=1, or --parallel=jit; got mesh.{FSDP}="
            f"{mesh.shape[FSDP]} mesh.{TENSOR}={mesh.shape[TENSOR]}."
        )
    check_rows_within_processes(mesh)
    return LAYOUTS[name](mesh, steps, rules)


def check_divides(
    batch_size: int, parts: int, accumulate: int = 1, name: str = "train.batch_size"
) -> None:
    """Checks that a global batch splits evenly over the mesh and over accumulated parts.

    Args:
        batch_size: the global batch.
        parts: into how many the mesh splits it; see `fmjax.training.mesh.row_shards`.
        accumulate: into how many it is split in time.
        name: of the batch size, as the message says what to write.

    Raises:
        InputError: it does not.
    """
    whole = parts * accumulate
    if batch_size < 1 or batch_size % whole:
        nearest = max(whole, round(batch_size / whole) * whole)
        raise InputError(
            f"a global batch of {batch_size} does not divide over {parts} devices"
            + (f" and {accumulate} accumulated parts" if accumulate > 1 else "")
            + f"; write {name}={nearest}."
        )
