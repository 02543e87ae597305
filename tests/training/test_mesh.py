"""The mesh: sizes that multiply, slices that divide, and rows that stay in their process."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from fmjax.axes import AXES, split_rows
from fmjax.errors import InputError
from fmjax.training.mesh import (
    MeshSizes,
    check_rows_within_processes,
    fill_sizes,
    make_mesh,
    row_shards,
)
from fmjax.training.parallelism import check_divides, make_layout


@pytest.mark.parametrize(
    ("sizes", "devices", "filled"),
    [
        (MeshSizes(), 8, (8, 1, 1)),
        (MeshSizes(1, -1, 2), 8, (1, 4, 2)),
        (MeshSizes(2, 2, 2), 8, (2, 2, 2)),
        (MeshSizes(-1, 8, 1), 8, (1, 8, 1)),
    ],
)
def test_what_is_left_goes_to_the_free_axis(sizes, devices, filled):
    assert fill_sizes(sizes, devices) == filled


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (MeshSizes(2, 2, 1), "mesh.data=2, mesh.fsdp=2, mesh.tensor=1 .* the 8 devices.*data=-1"),
        (MeshSizes(-1, 3, 1), "3 does not divide 8"),
        (MeshSizes(-1, -1, 1), "one of them may be -1"),
        (MeshSizes(-1, 0, 1), "positive.*mesh.fsdp=0"),
        (MeshSizes(-1, 16, 1), "16 does not divide 8"),
    ],
)
def test_sizes_that_do_not_multiply_are_refused(sizes, message):
    with pytest.raises(InputError, match=message):
        fill_sizes(sizes, 8)


class Fake(SimpleNamespace):
    """A device, as far as a mesh looks at it."""

    __hash__ = object.__hash__


def fake(slices, per_slice):
    """Devices of several slices of a TPU pod."""
    return [
        Fake(
            slice_index=s, process_index=s, id=s * per_slice + k, platform="fake",
            device_kind="fake", coords=(k, 0, 0), core_on_chip=0,
        )
        for s in range(slices)
        for k in range(per_slice)
    ]  # fmt: skip


def test_slices_divide_the_data_axis_alone():
    mesh = make_mesh(fake(2, 4), MeshSizes(-1, 4, 1))
    of_slice = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    np.testing.assert_array_equal(of_slice[:, :, 0], [[0] * 4, [1] * 4])
    assert mesh.axis_names == AXES
    with pytest.raises(InputError, match="2 slices must divide the data axis, which has 1"):
        make_mesh(fake(2, 4), MeshSizes(-1, 8, 1))


def test_a_tensor_axis_across_processes_is_refused():
    def mesh_of(processes):
        devices = [SimpleNamespace(process_index=p) for p in processes]
        return SimpleNamespace(
            devices=np.array(devices).reshape(2, 1, 2), shape={"data": 2, "fsdp": 1},
            local_devices=devices[:1],
        )  # fmt: skip

    check_rows_within_processes(mesh_of([0, 0, 1, 1]))
    with pytest.raises(InputError, match=r"mesh\.tensor=2 crosses processes.*at most 1"):
        check_rows_within_processes(mesh_of([0, 1, 0, 1]))


def test_pmap_splits_no_parameters(monkeypatch):
    device = jax.devices()[0]
    mesh = Mesh(np.array([device]).reshape(1, 1, 1), AXES, (AxisType.Auto,) * 3)
    assert row_shards(mesh) == 1
    monkeypatch.setattr(
        "fmjax.training.parallelism.make_mesh",
        lambda devices, sizes: SimpleNamespace(shape=sizes._asdict(), size=8),
    )
    with pytest.raises(InputError, match=r"mesh\.fsdp=1 mesh\.tensor=1, or --parallel=jit"):
        make_layout("pmap", sizes=MeshSizes(4, 2, 1))


def test_a_batch_divides_over_parts_not_over_devices():
    check_divides(6, 3)
    with pytest.raises(InputError, match=r"6 does not divide over 4 devices; write.*batch_size=8"):
        check_divides(6, 4)


def test_rows_are_not_split_without_a_mesh():
    x = np.ones((4, 3), np.float32)
    assert "sharding_constraint" not in str(jax.make_jaxpr(split_rows)(x))
    with jax.sharding.use_abstract_mesh(make_mesh().abstract_mesh):
        assert "sharding_constraint" in str(jax.make_jaxpr(split_rows)(x))
