"""The devices of a TPU topology, to compile for on a machine without TPUs, by the libtpu wheel."""

import importlib.metadata
import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

import jax

from fmjax.errors import InputError, unknown_name

_EXAMPLES = "v5e:4x4, v6e:16x16, v4:2x2x4, v5p:4x4x8, tpu7x:2x2x2, or v5e:16x16*2 for two slices"
_DIMENSIONS = {"v3": 2, "v5e": 2, "v6e": 2, "v4": 3, "v5p": 3, "tpu7x": 3}
_TOPOLOGY = re.compile(r"(?P<kind>\w+):(?P<sizes>\d+(?:x\d+)+)(?:\*(?P<slices>\d+))?")
# What libtpu reads when it is loaded; kept where they are set, as on a TPU host.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # else it asks Google's metadata server what machine this is
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # else one process at a time: it locks the TPU it lacks
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # else it warns; the topology asked for is what counts
    "TPU_WORKER_HOSTNAMES": "localhost",
}


class Topology(NamedTuple):
    """The shape of a TPU slice, or of several joined by the data-centre network.

    Attributes:
        name: as it is written.
        kind: the generation, a key of `_DIMENSIONS`.
        sizes: chips along each axis.
        slices: how many of them.
    """

    name: str
    kind: str
    sizes: tuple[int, ...]
    slices: int

    @property
    def options(self) -> dict[str, Any]:
        """What jax has to be told beside the name of one slice."""
        options: dict[str, Any] = {}
        if self.slices > 1:
            options["num_slices"] = self.slices
        if self.kind == "v4":  # a chip's two cores are one device, as on Cloud TPU
            options["chip_config_name"] = "megacore"
        if math.prod(self.sizes) == 1:  # hosts have four chips unless it is told otherwise
            options["chips_per_host_bounds"] = (1, 1, 1)
        return options


def parse_topology(name: str) -> Topology:
    """Reads the name of a topology.

    Raises:
        InputError: it has another form, another generation, or the wrong number of axes.
    """
    found = _TOPOLOGY.fullmatch(name)
    if found is None:
        raise InputError(f"a TPU topology is written like {_EXAMPLES}; got {name!r}.")
    kind, sizes = found["kind"], tuple(int(size) for size in found["sizes"].split("x"))
    if kind not in _DIMENSIONS:
        raise unknown_name("TPU", kind, _DIMENSIONS)
    if len(sizes) != _DIMENSIONS[kind] or 0 in sizes or found["slices"] == "0":
        raise InputError(
            f"a {kind} slice has {_DIMENSIONS[kind]} axes of at least one chip; got {name!r}. "
            f"Write {_EXAMPLES}."
        )
    return Topology(name, kind, sizes, int(found["slices"] or 1))


def devices_of(name: str) -> list[jax.Device]:
    """The devices of a topology, to build a mesh of and compile for; nothing runs on them.

    Args:
        name: e.g. ``"v5e:16x16"``; ``"v5e:16x16*2"`` for two such slices.

    Raises:
        InputError: the compiler is not installed, or it knows no such topology.
    """
    topology = parse_topology(name)
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            "compiling for a TPU needs its compiler, the wheel libtpu (no TPU is needed): "
            f'pip install "jax[tpu]=={importlib.metadata.version("jax")}"'
        )
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    try:
        described = topologies.get_topology_desc(name.partition("*")[0], "tpu", **topology.options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0].partition(": ")[2] or str(error)
        raise InputError(
            f"the TPU compiler does not know {name!r} ({reason}). Write {_EXAMPLES}; sizes above 1 "
            "are even, as hosts have 2x2 chips."
        ) from error
    return list(described.devices)
