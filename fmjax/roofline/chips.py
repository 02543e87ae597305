"""The peak figures of TPUs and GPUs, which a measured speed is compared with.

All are the vendors' own, for dense matrices (datasheets of NVIDIA often give the doubled figure of
sparse ones), at the clock that the vendor quotes.
"""

from typing import NamedTuple

import jax

T, G = 1e12, 1e9
GiB = 2**30


class Chip(NamedTuple):
    """The peak figures of one jax device.

    Attributes:
        name: the product's name.
        flops: of bfloat16 matmuls with float32 sums, operations per second.
        memory: bytes.
        bandwidth: of the memory, bytes per second.
        links: of the fast links to other chips, bytes per second, both directions added up; None
            where there are none or where the vendor gives no figure.
        cores: of the whole chip, where jax may show each core as a device of its own.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    links: float | None = None
    cores: int = 1


# cloud.google.com/tpu/docs/{v3,v4,v5e,v5p,v6e,tpu7x}, read in November 2026, per chip. The pages
# give some memories in GB: the compiler's limits show that GiB are meant.
_TPU = {
    "TPU v3": Chip("TPU v3", 123 * T, 32 * GiB, 900 * G, cores=2),
    "TPU v4": Chip("TPU v4", 275 * T, 32 * GiB, 1200 * G, cores=2),
    "TPU v5 lite": Chip("TPU v5e", 197 * T, 16 * GiB, 819 * G, 400 * G),
    "TPU v5": Chip("TPU v5p", 459 * T, 95 * GiB, 2765 * G, 1200 * G, cores=2),
    "TPU v6 lite": Chip("TPU v6e", 918 * T, 32 * GiB, 1638 * G, 800 * G),
    "TPU7x": Chip("TPU7x", 2307 * T, 192 * GiB, 7380 * G, 1200 * G, cores=2),
}
# NVIDIA's datasheets of each product; V100's is float16, as it has no bfloat16 units.
_V100 = Chip("V100 SXM2", 125 * T, 16 * GiB, 900 * G, 300 * G)
_V100_PCIE = Chip("V100 PCIe", 112 * T, 16 * GiB, 900 * G)
_A100 = Chip("A100 40GB", 312 * T, 40 * G, 1555 * G, 600 * G)
_H100 = Chip("H100 SXM", 989 * T, 80 * G, 3350 * G, 900 * G)
_NVIDIA = {
    "Tesla V100-SXM2-16GB": _V100,
    "Tesla V100-SXM2-32GB": _V100._replace(memory=32 * GiB),
    "Tesla V100-PCIE-16GB": _V100_PCIE,
    "Tesla V100-PCIE-32GB": _V100_PCIE._replace(memory=32 * GiB),
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": Chip("A100 SXM 80GB", 312 * T, 80 * G, 2039 * G, 600 * G),
    "NVIDIA A100 80GB PCIe": Chip("A100 PCIe 80GB", 312 * T, 80 * G, 1935 * G, 600 * G),
    "NVIDIA H100 80GB HBM3": _H100,
    "NVIDIA H100 PCIe": Chip("H100 PCIe", 756 * T, 80 * G, 2000 * G, 600 * G),
    "NVIDIA H100 NVL": Chip("H100 NVL", 835 * T, 94 * G, 3900 * G, 600 * G),
    "NVIDIA H200": _H100._replace(name="H200 SXM", memory=141 * G, bandwidth=4800 * G),
    "NVIDIA H200 NVL": Chip("H200 NVL", 835 * T, 141 * G, 4800 * G, 900 * G),
    "NVIDIA B200": Chip("B200", 2250 * T, 180 * G, 8000 * G, 1800 * G),
    "NVIDIA L4": Chip("L4", 121 * T, 24 * G, 300 * G),
    "NVIDIA L40S": Chip("L40S", 362 * T, 48 * G, 864 * G),
    # The architectures' whitepapers, for sums in float32.
    "NVIDIA GeForce RTX 3090": Chip("RTX 3090", 71 * T, 24 * GiB, 936 * G),
    "NVIDIA GeForce RTX 4090": Chip("RTX 4090", 165 * T, 24 * GiB, 1008 * G),
}
CHIPS: dict[str, Chip] = _TPU | _NVIDIA
"""By jax's ``device_kind``, which for a GPU is the name that the driver gives it."""


def chip_of(device: jax.Device) -> Chip | None:
    """The figures of a device, None for a CPU and for what `CHIPS` does not have.

    A chip of two cores may be one device or two (a TPU v3 or TPU7x is two): a device that has a
    part of the cores has that part of everything.
    """
    chip = CHIPS.get(device.device_kind)
    if chip is None or chip.cores == 1:
        return chip
    share = getattr(device, "num_cores", chip.cores) / chip.cores
    if share == 1:
        return chip
    return chip._replace(
        name=f"{chip.name} (one core)",
        flops=share * chip.flops,
        memory=share * chip.memory,
        bandwidth=share * chip.bandwidth,
        links=None if chip.links is None else share * chip.links,
        cores=1,
    )


def mfu(flops: float | None, seconds: float, devices: int, chip: Chip | None) -> float | None:
    """Model FLOPs utilisation (arXiv:2204.02311): operations done over those possible.

    Args:
        flops: operations of the model in that time, on all devices; see `fmjax.models.flops`.
        seconds: the time, positive.
        devices: how many.
        chip: what each can do.

    Returns:
        A fraction; None where either the operations or the chip are unknown.
    """
    if flops is None or chip is None:
        return None
    return flops / (seconds * devices * chip.flops)
