"""The rows of an activation are split over data and fsdp, where a mesh has these axes."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from fmjax.axes import AXES, split_rows

FREE = P.UNCONSTRAINED


def asked(axes, kinds, shape=(4, 3, 2)):
    """The layouts that a program asks for on a mesh of one device."""
    mesh = jax.make_mesh((1,) * len(axes), axes, axis_types=kinds)
    with jax.sharding.set_mesh(mesh):
        program = jax.make_jaxpr(split_rows)(jnp.zeros(shape))
    return [equation.params["sharding"].spec for equation in program.eqns]


def test_the_rows_are_split_and_every_other_axis_is_free():
    free = (AxisType.Auto,) * 3
    assert asked(AXES, free) == [P(("data", "fsdp"), FREE, FREE)]
    assert asked(AXES, free, (4,)) == [P(("data", "fsdp"))]
    assert asked(("fsdp", "tensor"), free[:2], (4, 3)) == [P("fsdp", FREE)]


@pytest.mark.parametrize(
    ("axes", "kinds"), [(("mine",), (AxisType.Auto,)), (("data", "fsdp"), (AxisType.Explicit,) * 2)]
)
def test_on_another_mesh_nothing_is_asked(axes, kinds):
    assert asked(axes, kinds) == []


def test_without_a_mesh_nothing_is_asked():
    assert jax.make_jaxpr(split_rows)(jnp.zeros((4, 3))).eqns == []
