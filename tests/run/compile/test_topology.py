"""A topology is read from its name, and its devices are those of the TPU compiler."""

import importlib.util

import pytest

from fmjax.errors import InputError
from fmjax.run.compile.topology import Topology, devices_of, parse_topology
from fmjax.training.mesh import make_mesh
from tests.run.compile.compiler import needs_compiler


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("v5e", "is written like v5e:4x4"),
        ("v5e-16", "is written like v5e:4x4"),
        ("v5e:4x4*0", "has 2 axes of at least one chip"),
        ("v5e:4x4x4", "a v5e slice has 2 axes"),
        ("v4:4x4", "a v4 slice has 3 axes"),
        ("v5:4x4", "unknown TPU 'v5'. Did you mean 'v5p'?"),
    ],
)
def test_a_name_that_is_no_topology(name, sentence):
    with pytest.raises(InputError) as error:
        parse_topology(name)
    assert sentence in str(error.value)


def test_a_topology_is_read():
    parsed = parse_topology("v4:2x2x4*3")
    assert parsed == Topology("v4:2x2x4*3", "v4", (2, 2, 4), 3)
    assert parsed.options == {"num_slices": 3, "chip_config_name": "megacore"}


def test_without_the_compiler_the_wheel_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "jax\[tpu\]=='):
        devices_of("v5e:4x4")


@needs_compiler
@pytest.mark.parametrize(("name", "devices"), [("v5e:4x4", 16), ("v4:2x2x1", 4), ("v5e:2x2*2", 8)])
def test_the_devices_of_a_topology(name, devices):
    found = devices_of(name)
    assert len(found) == devices
    assert {device.platform for device in found} == {"tpu"}
    assert make_mesh(found).size == devices


@needs_compiler
def test_a_topology_that_the_compiler_refuses():
    with pytest.raises(InputError, match=r"does not know 'v5e:3x3'.*sizes above 1 are even"):
        devices_of("v5e:3x3")
