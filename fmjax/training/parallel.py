"""The two ways to compile one step over the devices: jit over a mesh, and pmap.

Both take and return the same `TrainState` without a device axis, so one checkpoint serves both.
A layout is an object with the methods of `Jit`; the loop never asks which one it has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax.errors import InputError, unknown_name
from fmjax.training.state import TrainState
from fmjax.training.step import Batch, Step

DATA_AXIS = "data"


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh of the devices given, all of them (over all processes) by default."""
    devices = jax.devices() if devices is None else devices
    # Auto axes: under jax's default of explicit ones a Linen embedding does not trace.
    return jax.make_mesh((len(devices),), (DATA_AXIS,), (AxisType.Auto,), devices=devices)


def state_shardings(abstract_state: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of the state: replicated, which is data parallelism."""
    return jax.tree.map(lambda _: NamedSharding(mesh, P()), abstract_state)


def place_rows(x: np.ndarray, mesh: Mesh) -> jax.Array:
    """This process's rows of a global batch, split over the devices of the mesh."""
    return jax.make_array_from_process_local_data(NamedSharding(mesh, P(DATA_AXIS)), x)


@dataclass(frozen=True)
class Jit:
    """One program over a mesh of all devices; the compiler adds the collectives."""

    mesh: Mesh
    axis_name = None

    def init(self, make_state: Callable[[jax.Array], TrainState], key: jax.Array) -> TrainState:
        """Makes the state in its shards, so that no device ever holds more than its own."""
        shardings = state_shardings(jax.eval_shape(make_state, key), self.mesh)
        return jax.jit(make_state, out_shardings=shardings)(key)

    def compile(self, step: Step) -> Step:
        """The step compiled, its state donated."""

        def sharded_step(state, key, batch):
            new_state, metrics = step(state, key, batch)
            shardings = state_shardings(new_state, self.mesh)
            new_state = jax.tree.map(jax.lax.with_sharding_constraint, new_state, shardings)
            return new_state, metrics

        return jax.jit(sharded_step, donate_argnums=0)

    def place(self, batch: dict[str, np.ndarray]) -> Batch:
        """A batch of this process's examples, put on the devices."""
        return {name: place_rows(x, self.mesh) for name, x in batch.items()}

    def to_global(self, state: TrainState) -> TrainState:
        """The state as arrays over all processes, as a checkpoint holds it."""
        return state

    def from_global(self, state: TrainState) -> TrainState:
        """The inverse of `to_global`.

        An identity program: some restored arrays do not donate until they are its outputs.
        """
        return jax.jit(lambda x: x, out_shardings=state_shardings(state, self.mesh))(state)


@dataclass(frozen=True)
class Pmap:
    """One program per device, gradients averaged by name; data parallel only."""

    mesh: Mesh
    axis_name = DATA_AXIS

    @property
    def _local_mesh(self) -> Mesh:
        return make_mesh(self.mesh.local_devices)

    def init(self, make_state: Callable[[jax.Array], TrainState], key: jax.Array) -> TrainState:
        """Makes the state on every device of this process; equal keys make equal states."""
        return Jit(self._local_mesh).init(make_state, key)

    def compile(self, step: Step) -> Step:
        """The step compiled, its state donated."""
        return jax.pmap(
            step,
            axis_name=self.axis_name,
            in_axes=(None, None, 0),
            out_axes=None,
            donate_argnums=0,
            devices=list(self.mesh.devices.flat),
        )

    def place(self, batch: dict[str, np.ndarray]) -> Batch:
        """A batch of this process's examples, on the devices, with a leading device axis."""
        local = self._local_mesh
        rows = NamedSharding(local, P(DATA_AXIS))
        split = {k: x.reshape(local.size, -1, *x.shape[1:]) for k, x in batch.items()}
        return jax.device_put(split, rows)

    def to_global(self, state: TrainState) -> TrainState:
        """The state as arrays over all processes: pmap returns arrays of this process alone."""
        if jax.process_count() == 1:
            return state
        return multihost_utils.host_local_array_to_global_array(state, self.mesh, P())

    def from_global(self, state: TrainState) -> TrainState:
        """The inverse of `to_global`."""
        if jax.process_count() > 1:
            state = multihost_utils.global_array_to_host_local_array(state, self.mesh, P())
        return Jit(self._local_mesh).from_global(state)


LAYOUTS = {"jit": Jit, "pmap": Pmap}


def make_layout(name: str, devices: list[jax.Device] | None = None) -> Jit | Pmap:
    """The layout of that name over the devices given, all of them by default.

    Raises:
        InputError: the name is unknown.
    """
    if name not in LAYOUTS:
        raise unknown_name("way to compile (--parallel)", name, LAYOUTS)
    return LAYOUTS[name](make_mesh(devices))


def check_divides(batch_size: int, devices: int, accumulate: int = 1) -> None:
    """Checks that a global batch splits evenly over devices and accumulated parts.

    Raises:
        InputError: it does not.
    """
    parts = devices * accumulate
    if batch_size < 1 or batch_size % parts:
        nearest = max(parts, round(batch_size / parts) * parts)
        raise InputError(
            f"a global batch of {batch_size} does not divide over {devices} devices"
            + (f" and {accumulate} accumulated parts" if accumulate > 1 else "")
            + f"; write train.batch_size={nearest}."
        )
