"""The table of chips: found by jax's names, plausible figures, shares of chips with two cores."""

from types import SimpleNamespace

import jax
import pytest

from fmjax.roofline.chips import CHIPS, chip_of, mfu


def _device(kind: str, **fields) -> SimpleNamespace:
    return SimpleNamespace(device_kind=kind, **fields)


def test_a_cpu_and_an_unknown_chip_have_no_figures():
    assert chip_of(jax.devices("cpu")[0]) is None
    assert chip_of(_device("NVIDIA H100 80GB HBM3 MIG 1g.10gb")) is None


@pytest.mark.parametrize(
    ("kind", "tera", "giga"),
    [
        ("TPU v5 lite", 197, 819),
        ("TPU v6 lite", 918, 1638),
        ("NVIDIA A100-SXM4-80GB", 312, 2039),
        ("NVIDIA H100 80GB HBM3", 989, 3350),
        ("NVIDIA H200", 989, 4800),
    ],
)
def test_a_chip_is_found_by_the_name_that_jax_gives_it(kind, tera, giga):
    chip = chip_of(_device(kind, num_cores=1))
    assert chip.flops == pytest.approx(tera * 1e12)
    assert chip.bandwidth == pytest.approx(giga * 1e9)


@pytest.mark.parametrize(
    ("kind", "cores", "share"),
    [("TPU v3", 1, 0.5), ("TPU v4", 1, 0.5), ("TPU v4", 2, 1), ("TPU v5", 2, 1), ("TPU7x", 1, 0.5)],
)
def test_a_core_that_is_a_device_has_its_share(kind, cores, share):
    chip, whole = chip_of(_device(kind, num_cores=cores)), CHIPS[kind]
    for field in ("flops", "memory", "bandwidth"):
        assert getattr(chip, field) == share * getattr(whole, field)
    assert chip.links == (whole.links and share * whole.links)
    assert ("core" in chip.name) == (share < 1)


@pytest.mark.parametrize("kind", CHIPS)
def test_the_figures_are_of_the_units_that_they_claim(kind):
    chip = CHIPS[kind]
    assert 50e12 < chip.flops < 5e15
    assert 14e9 < chip.memory < 300e9
    assert 250e9 < chip.bandwidth < 10e12
    assert chip.links is None or 200e9 < chip.links < 2e12
    assert 50 < chip.flops / chip.bandwidth < 700  # operations per byte, at the ridge


def test_mfu():
    chip = CHIPS["TPU v5 lite"]
    assert mfu(2 * 197e12, 1.0, 4, chip) == pytest.approx(0.5)
    assert mfu(2 * 197e12, 0.5, 4, chip) == pytest.approx(1.0)
    assert mfu(None, 1.0, 4, chip) is None
    assert mfu(1.0, 1.0, 4, None) is None
