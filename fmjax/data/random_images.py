"""Random images, for measuring speed and memory where nothing has to be learned."""

import dataclasses
import re

import numpy as np
from jaxtyping import Int, UInt8

from fmjax.conventions import Places
from fmjax.errors import InputError

PREFIX = "random/"
_NAME = re.compile(r"random/(\d+)x(\d+)x(\d+)(?:/(\d+))?")


@dataclasses.dataclass(frozen=True)
class RandomImages:
    """Images of independent levels, example i a function of i alone.

    Attributes:
        shape: (H, W, C).
        num_classes: of the labels, which are as random; None for none.
        size: how many examples.
        first: the number of the first one.
    """

    shape: tuple[int, ...]
    num_classes: int | None
    size: int = 2**20
    first: int = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        images, labels = self.read([index])
        return {"image": images[0]} | ({} if labels is None else {"label": int(labels[0])})

    def read(
        self, indices: Places
    ) -> tuple[UInt8[np.ndarray, "k height width channels"], Int[np.ndarray, " k"] | None]:
        """As `fmjax.data.dataset.Split.read`."""
        size = int(np.prod(self.shape))
        raw = [
            np.random.Generator(np.random.Philox(self.first + int(i))).bytes(size + 4)
            for i in indices
        ]
        levels = np.frombuffer(bytearray().join(raw), np.uint8).reshape(-1, size + 4)
        images = levels[:, 4:].reshape(-1, *self.shape)
        if self.num_classes is None:
            return images, None
        numbers = np.ascontiguousarray(levels[:, :4]).view(np.uint32)[:, 0]
        return images, (numbers % self.num_classes).astype(np.int32)


def parse_shape(name: str) -> tuple[tuple[int, ...], int | None]:
    """The shape and the number of classes of ``random/HxWxC`` or ``random/HxWxC/classes``.

    Raises:
        InputError: the name has another form, or a size is 0.
    """
    found = _NAME.fullmatch(name)
    numbers = [int(part) for part in found.groups() if part] if found else [0]
    if min(numbers) < 1:
        raise InputError(
            f"random images are random/HEIGHTxWIDTHxCHANNELS or, with labels, "
            f"random/HEIGHTxWIDTHxCHANNELS/CLASSES, e.g. random/32x32x4/1000; got {name!r}."
        )
    return tuple(numbers[:3]), numbers[3] if len(numbers) == 4 else None
