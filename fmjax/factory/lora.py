"""The LoRA of a configuration: adapters in the place of the network's own parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import PRNGKeyArray

from fmjax.config import ConfigDict
from fmjax.conventions import ApplyFn
from fmjax.errors import InputError
from fmjax.training import lora

FROZEN = ("base/*",)


class Lora(NamedTuple):
    """What ``config.lora`` asks for.

    Attributes:
        rank: of each adapter.
        alpha: an adapter counts alpha / rank times.
        patterns: of the kernels that have one.
    """

    rank: int
    alpha: float
    patterns: tuple[str, ...]

    def beside(self, params: Any, key: PRNGKeyArray) -> dict[str, Any]:
        """A network's parameters and fresh adapters, as `with_base` takes them.

        Args:
            params: of the network.
            key: of the adapters.
        """
        adapters = lora.init(key, params, self.patterns, self.rank, self.alpha)
        return {"base": params, "adapters": adapters}

    def init(self, init_params: Callable[[PRNGKeyArray], Any]) -> Callable[[PRNGKeyArray], Any]:
        """``init(key)`` of both, from that of the network."""
        return lambda key: self.beside(init_params(key), self.key(key))

    def key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """The key of the adapters of a run, from that of its parameters."""
        return jax.random.fold_in(key, 1)


def make_lora(config: ConfigDict) -> Lora | None:
    """The LoRA of a configuration; None where it asks for none.

    Raises:
        InputError: it asks for frozen parameters, too, or for values of something it does not have.
    """
    c = config.lora
    if c.rank == 0:
        if c.alpha is not None or c.patterns is not None:
            raise InputError(
                f"lora.alpha={c.alpha} and lora.patterns={c.patterns} are of adapters, and there "
                "are none: give lora.rank=8, say, or leave them out."
            )
        return None
    if config.train.frozen is not None:
        raise InputError(
            "with lora.rank above 0 the network is frozen and the adapters are trained: leave "
            f"train.frozen={config.train.frozen} out, and choose kernels by lora.patterns."
        )
    alpha = float(c.rank if c.alpha is None else c.alpha)
    return Lora(c.rank, alpha, tuple((c.patterns or "*").split(",")))


def adapted(network: ApplyFn, asked: Lora | None) -> ApplyFn:
    """The network as a function of what is trained."""
    return network if asked is None else lora.with_base(network)


def without_lora(config: ConfigDict) -> ConfigDict:
    """The same configuration without adapters: that of the merged network.

    Args:
        config: every key; it stays as it is.
    """
    merged = config.copy_and_resolve_references()
    merged.lora.update({"rank": 0, "alpha": None, "patterns": None})
    return merged
