"""The names of the mesh's axes, and the constraint that a model puts on its activations.

    data     copies of the parameters, each with its part of the batch
    fsdp     the batch is split further, and so are the large parameters: a part on each device
    tensor   the width of the matrix products is split: heads, and hidden units

A batch is split over the first two, and every device of the third sees the same rows.
"""

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jaxtyping import Shaped

DATA, FSDP, TENSOR = "data", "fsdp", "tensor"
AXES = (DATA, FSDP, TENSOR)
ROWS = (DATA, FSDP)


def split_rows(x: Shaped[jax.Array, "*shape"]) -> Shaped[jax.Array, "*shape"]:
    """Asks the compiler to keep the leading axis of x, the batch, split over data and fsdp.

    Where parameters are split, the compiler may otherwise choose to split an activation by its
    features and to move it about, which is many times the bytes of the parameters. Nothing happens
    outside a mesh of these axes: on one device, under pmap, and in a program of a user's own.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types or (), strict=True))
    axes = tuple(axis for axis in ROWS if kinds.get(axis) == AxisType.Auto)
    if not axes:
        return x
    rest = [P.UNCONSTRAINED] * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, P(axes, *rest))
