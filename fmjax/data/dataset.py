"""What a data set is to the rest of the package: two random-access splits, or a distribution."""

import dataclasses
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int, Real, Shaped

from fmjax.checks import check_at_least
from fmjax.conditions import ClassIds
from fmjax.conventions import Places
from fmjax.data.codecs import Codec
from fmjax.data.resampling import resample
from fmjax.data.toys import Toy
from fmjax.errors import InputError

SPLITS = ("train", "test")
TOY_POINTS = 10_000


class Reading(NamedTuple):
    """How a prepared set is read where its own answer is not wanted; see ``config.data``.

    Attributes:
        x: the feature that is the data.
        conditions: the features that are conditions, joined by commas; ``"none"`` for none.
        split: what is trained on, as TFDS writes it: ``"train[:90%]"``.
        test_split: what is held out, written likewise.
        size: the side of the square that images are scaled and cropped to.
    """

    x: str | None = None
    conditions: str | None = None
    split: str | None = None
    test_split: str | None = None
    size: int | None = None


AS_IT_SAYS = Reading()
"""How a set is read where nothing else is asked for."""


class Split(Protocol):
    """The examples of one split, by their position; it pickles.

    A split of pairs also has ``read_pairs(indices) -> (x0, x, labels)``, x0 being states. One of
    examples that are not to be visited equally often has ``weights`` (n,), else None or nothing.
    """

    def __len__(self) -> int:
        """How many examples."""

    def __getitem__(self, index: int) -> dict:
        """One example by itself, a dictionary."""

    def read(self, indices: Places) -> tuple[Shaped[np.ndarray, "k ..."], Any]:
        """Data ``(k, ...)`` and labels ``(k, ...)``, or None, at k positions."""


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """The examples of `source` at `indices`, in that order."""

    source: Split
    indices: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict:
        return self.source[int(self.indices[index])]

    @property
    def weights(self) -> Real[np.ndarray, " n"] | None:
        """Those of the source, of this part."""
        weights = getattr(self.source, "weights", None)
        return None if weights is None else weights[self.indices]

    def read(self, indices: Places) -> tuple[Shaped[np.ndarray, "k ..."], Any]:
        """As `Split.read`, at positions in this part."""
        return self.source.read(self.indices[np.asarray(indices)])


class PairedSubset(Subset):
    """The same of pairs."""

    def read_pairs(
        self, indices: Places
    ) -> tuple[Float[np.ndarray, "k ..."], Shaped[np.ndarray, "k ..."], Any]:
        """As `Split` describes, at positions in this part."""
        places = self.indices[np.asarray(indices)]
        return self.source.read_pairs(places)  # type: ignore[attr-defined]  # a split of pairs


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, ready to read.

    Attributes:
        name: what it was loaded by.
        codec: what the data are, and how they become states (`fmjax.data.codecs`).
        conditions: what the labels are (`fmjax.conditions`), built as they are; None for a set
            without labels.
        train: the training split; None for a toy, which is drawn afresh.
        test: examples that are not in `train`; None for a toy.
        toy: the distribution of a toy; None for a set that is stored.
        snapshots: `fmjax.data.snapshots.SnapshotSplits`, where the examples have times and a flow
            goes through them; None for any other set.
        fingerprint: what tells its content from another, as a text; None where it is not known.
    """

    name: str
    codec: Codec
    conditions: Any = None
    train: Split | None = None
    test: Split | None = None
    toy: Toy | None = None
    snapshots: Any = None
    fingerprint: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example as a state."""
        return self.codec.shape

    @property
    def classes(self) -> ClassIds | None:
        """The classes, where the labels are one array of class ids."""
        return self.conditions if isinstance(self.conditions, ClassIds) else None

    def arrays(
        self, split: str, limit: int | None = None
    ) -> tuple[Shaped[np.ndarray, "n ..."], Any]:
        """Examples of a split as arrays, for evaluation: the same ones at every call.

        Examples with weights are drawn by them, some of them several times.

        Args:
            split: ``"train"`` or ``"test"``.
            limit: at most so many examples, a fixed random choice; None for the whole split, or
                for 10,000 points of a toy.

        Returns:
            Data ``(n, ...)``, e.g. uint8 ``(n, H, W, C)``, and labels ``(n, ...)``, e.g. int32
            ``(n,)``, or None where the set has none.

        Raises:
            InputError: for a split that does not exist, or a limit below 1.
        """
        if split not in SPLITS:
            raise InputError(f'the split must be "train" or "test", got {split!r}.')
        if limit is not None:
            check_at_least("the limit", limit, advice="For all examples write None.")
        if self.toy is not None:
            return self._points(self.toy, split, TOY_POINTS if limit is None else limit)
        return self._stored(self.stored(split), limit)

    def stored(self, split: str) -> Split:
        """A split of a set that is stored.

        Raises:
            InputError: the set is a toy, of which each batch is drawn afresh.
        """
        found = self.train if split == "train" else self.test
        if found is None:
            raise InputError(f"the toy {self.name!r} is drawn afresh, and has no {split} split.")
        return found

    def _points(
        self, toy: Toy, split: str, n: int
    ) -> tuple[Shaped[np.ndarray, "n 2"], Int[np.ndarray, " n"] | None]:
        # A spawn key, unlike a plain seed, gives a stream that no training seed can give.
        seed = np.random.SeedSequence(0, spawn_key=(SPLITS.index(split),))
        points, labels = toy.sample(np.random.default_rng(seed), n)
        return points, labels if self.conditions is not None else None

    def _stored(self, source: Split, limit: int | None) -> tuple[Shaped[np.ndarray, "n ..."], Any]:
        weights = getattr(source, "weights", None)
        if weights is not None:
            number = min(len(source), len(source) if limit is None else limit)
            return source.read(resample(weights, number, 0.5))
        chosen = np.random.default_rng(0).permutation(len(source))[:limit]
        return source.read(np.sort(chosen))


def hold_out(source: Split, fraction: float = 0.1) -> tuple[Subset, Subset]:
    """Splits a set that has no test split, always in the same way.

    Args:
        source: at least two examples.
        fraction: the share of the second part, at least one example.

    Returns:
        Two disjoint parts that together are the whole.
    """
    order = np.random.default_rng(0).permutation(len(source))
    cut = max(1, round(fraction * len(source)))
    part = PairedSubset if hasattr(source, "read_pairs") else Subset
    return part(source, np.sort(order[cut:])), part(source, np.sort(order[:cut]))


def stratified_split(
    labels: Int[np.ndarray, " n"], test_size: int, seed: int = 0
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Chooses a test part in which every class has its share, to within one example.

    Every example gets the quantile of its random rank within its class; the test part is the
    `test_size` examples of smallest quantile. One example of each class always stays behind.

    Args:
        labels: int ``(n,)``.
        test_size: how many examples to set apart.
        seed: of the random ranks.

    Returns:
        The indices of the train part and of the test part, both in increasing order.
    """
    rng = np.random.default_rng(seed)
    quantile = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        quantile[members] = (np.arange(len(members)) + 0.5) / len(members)
        quantile[members[-1]] = np.inf
    order = np.argsort(quantile, kind="stable")
    return np.sort(order[test_size:]), np.sort(order[:test_size])
