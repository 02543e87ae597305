"""Where a coupling runs: in groups without communication, or on the batch of all devices.

Which of the two a run takes is decided in `fmjax.factory.draw.place_coupling`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import PRNGKeyArray

from fmjax.checks import check_at_least, check_methods, check_multiple
from fmjax.conventions import Array, Labels
from fmjax.couplings.base import Coupling, paired
from fmjax.errors import InputError

Axes = str | tuple[str, ...]


@dataclass(frozen=True)
class InGroups:
    """A coupling of each of several equal blocks of the batch by itself; see `in_groups`."""

    coupling: Coupling
    groups: int
    axis_name: Axes | None = None
    mesh: Mesh | None = None

    def __call__(
        self, key: PRNGKeyArray, x0: Any, x1: Any, labels: Labels = None
    ) -> tuple[Any, Any, Labels]:
        """Pairs within each block; see `in_groups` for the errors."""
        return _on_devices(self._here, self.axis_name, self.mesh)(key, x0, x1, labels)

    def _here(self, key: PRNGKeyArray, x0: Any, x1: Any, labels: Labels):
        """The groups of this device, numbered over all of them."""
        groups = self.groups
        first: int | Array = 0
        if self.axis_name is not None:
            devices = jax.lax.axis_size(self.axis_name)
            check_multiple("groups", groups, devices, f"devices of axis {self.axis_name!r}")
            groups //= devices
            first = groups * jax.lax.axis_index(self.axis_name)
        check_multiple("the batch", len(jax.tree.leaves(x1)[0]), groups, "groups")
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, first + jnp.arange(groups))
        split = jax.tree.map(lambda a: _split(a, groups), (x0, x1, labels))
        each = jax.vmap(functools.partial(paired, self.coupling))(keys, *split)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), each)


def in_groups(
    coupling: Coupling, groups: int, axis_name: Axes | None = None, mesh: Mesh | None = None
) -> InGroups:
    """Couples each of several equal contiguous blocks of the batch by itself.

    Group g has ``fold_in(key, g)``. Costs fall with the square of the size, and memory with it. The
    result is the same however the groups are placed; what differs is where they run:

    - neither `axis_name` nor `mesh`: under one vmap, on the batch at hand;
    - `mesh`, under jit: each device couples its own groups. Without it the compiler splits the
      groups too, but every turn of a loop waits for all devices to ask whether one goes on;
    - `axis_name`, inside pmap or shard_map: x0 and x1 are this device's rows.

    Args:
        coupling: the coupling of one block.
        groups: how many blocks, over all devices.
        axis_name: the mapped axis, or several; by default the first of the mesh where there is one.
        mesh: the mesh over whose axis the batch is split.

    Returns:
        The coupling.

    Raises:
        InputError: groups is below 1. Calling the result raises it when the groups do not divide
            the batch, or the devices the groups.
    """
    check_at_least("groups", groups)
    check_methods("the coupling", coupling, such_as="couplings.exact()")
    return InGroups(coupling, groups, _axis(axis_name, mesh), mesh)


@dataclass(frozen=True)
class Gathered:
    """A coupling of the batch of all devices; see `gathered`."""

    coupling: Coupling
    axis_name: Axes
    mesh: Mesh | None = None

    def __call__(
        self, key: PRNGKeyArray, x0: Any, x1: Any, labels: Labels = None
    ) -> tuple[Any, Any, Labels]:
        """Pairs over all devices and gives back this device's rows."""
        return _on_devices(self._here, self.axis_name, self.mesh)(key, x0, x1, labels)

    def _here(self, key: PRNGKeyArray, x0: Any, x1: Any, labels: Labels):
        rows = len(jax.tree.leaves(x1)[0])
        whole = jax.tree.map(
            lambda a: jax.lax.all_gather(a, self.axis_name, tiled=True), (x0, x1, labels)
        )
        pairs = paired(self.coupling, key, *whole)
        first = rows * jax.lax.axis_index(self.axis_name)
        return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, first, rows), pairs)


def gathered(
    coupling: Coupling, axis_name: Axes | None = None, mesh: Mesh | None = None
) -> Gathered:
    """Couples the batch of all devices: one gather, then the same pairing on each of them.

    The result is that of the plain coupling on the whole batch, on any number of devices.

    - `mesh`, under jit, where the batch is global already: the gather is made once, in place of
      communication in every turn of a loop;
    - `axis_name`, inside pmap or shard_map: x0 and x1 are this device's rows, and the key must be
      the same on all devices.

    Args:
        coupling: the coupling of the whole batch.
        axis_name: the mapped axis, or several; by default the first of the mesh where there is one.
        mesh: the mesh over whose axis the batch is split.

    Returns:
        The coupling.

    Raises:
        InputError: neither an axis nor a mesh is given.
    """
    check_methods("the coupling", coupling, such_as="couplings.exact()")
    axis_name = _axis(axis_name, mesh)
    if axis_name is None:
        raise InputError(
            "gathered needs the axis of pmap or shard_map, axis_name='data', or the mesh of jit, "
            "mesh=mesh. On one device call the coupling itself."
        )
    return Gathered(coupling, axis_name, mesh)


def _axis(axis_name: Axes | None, mesh: Mesh | None) -> Axes | None:
    return mesh.axis_names[0] if axis_name is None and mesh is not None else axis_name


def _on_devices(here: Callable, axis_name: Axes | None, mesh: Mesh | None) -> Callable:
    """The function of one device's rows as one of all rows of the mesh, or as it is."""
    if mesh is None:
        return here
    rows = P(axis_name)
    # What every device computes alike is not tracked through the loops, so it is not checked.
    return jax.shard_map(
        here, mesh=mesh, in_specs=(P(), rows, rows, rows), out_specs=rows, check_vma=False
    )


def _split(a: Array, groups: int) -> Array:
    return a.reshape(groups, -1, *a.shape[1:])
