"""The mesh: all devices in a grid of data, fsdp and tensor; see `fmjax.axes`."""

import contextlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax.axes import AXES, DATA, FSDP, ROWS
from fmjax.errors import InputError


class MeshSizes(NamedTuple):
    """How many devices along each axis; one of them may be -1, for all that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


DATA_PARALLEL = MeshSizes()


def fill_sizes(sizes: MeshSizes, devices: int) -> MeshSizes:
    """The sizes with -1 replaced, once they multiply to the number of devices.

    Raises:
        InputError: they do not; what would is named.
    """
    asked = ", ".join(f"mesh.{axis}={size}" for axis, size in sizes._asdict().items())
    free = [axis for axis, size in sizes._asdict().items() if size == -1]
    if len(free) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise InputError(
            f"the sizes of the mesh are positive, and one of them may be -1 for the rest; "
            f"got {asked}."
        )
    fixed = math.prod(size for size in sizes if size != -1)
    if devices % fixed or not (free or fixed == devices):
        raise InputError(
            f"{asked} does not multiply to the {devices} devices there are"
            + ("" if free else "; write mesh.data=-1 to let the rest be data parallel")
            + (f"; {fixed} does not divide {devices}." if devices % fixed else ".")
        )
    return sizes._replace(**dict.fromkeys(free, devices // fixed))


def make_mesh(
    devices: Sequence[jax.Device] | None = None, sizes: MeshSizes = DATA_PARALLEL
) -> Mesh:
    """The mesh of the devices given, all of them (over all processes) by default.

    The axes lie so that tensor has the nearest neighbours and data the farthest: TPU devices by
    their place in the torus, GPUs by host. Several slices, joined by a network that is slower than
    the links inside them, divide the data axis, whose one exchange a step is the gradients' sum.

    Args:
        devices: which.
        sizes: of the axes data, fsdp and tensor.

    Returns:
        A mesh with all three axes, those of size 1 included.

    Raises:
        InputError: the sizes do not multiply to the number of devices, or the slices do not divide
            the data axis.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = fill_sizes(sizes, len(devices))
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    # A torus of 8x8 chips as data=16, fsdp=4 cuts a side of the torus in two.
    split = {"allow_split_physical_axes": True}
    if slices == 1:
        grid = mesh_utils.create_device_mesh(shape, devices, **split)
    elif shape.data % slices:
        raise InputError(
            f"the {slices} slices must divide the data axis, which has {shape.data} devices: take "
            f"mesh.data=-1 with mesh.fsdp times mesh.tensor at most {len(devices) // slices}, the "
            "devices of a slice."
        )
    else:
        within = shape._replace(data=shape.data // slices)
        grid = mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1), devices, **split)
    # Auto axes: under jax's default of explicit ones a Linen embedding does not trace.
    return Mesh(grid, AXES, (AxisType.Auto,) * len(AXES))


def row_shards(mesh: Mesh) -> int:
    """Into how many parts a batch is split."""
    return mesh.shape[DATA] * mesh.shape[FSDP]


def by_rows(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its leading axis over data and fsdp."""
    return NamedSharding(mesh, P(ROWS))


def within(mesh: Mesh) -> contextlib.AbstractContextManager:
    """The context in which `fmjax.axes.split_rows`, inside a network, knows of the mesh."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def check_rows_within_processes(mesh: Mesh) -> None:
    """Checks that no two processes need the same rows, as each reads rows of its own.

    Raises:
        InputError: the tensor axis crosses processes.
    """
    for row in mesh.devices.reshape(row_shards(mesh), -1):
        if len({device.process_index for device in row}) > 1:
            raise InputError(
                f"mesh.tensor={row.size} crosses processes, which read different examples; "
                f"it may be at most {len(mesh.local_devices)}, the devices of one process."
            )
