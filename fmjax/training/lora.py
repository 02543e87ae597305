"""LoRA: a small product of two matrices beside each kernel, trained in its place and then added.

    W' = W + (alpha / rank) a b,        a (inputs, rank), b (rank, outputs)

with b = 0 at first, so that the network begins as it was (Hu et al., arXiv:2106.09685).

    adapters = init(key, params, ("blocks/attention/*",), rank=8)
    state = fit(with_base(apply_fn), {"base": params, "adapters": adapters}, data,
                frozen=("base/*",), ...)
    params = merge(params, state.ema_params["adapters"])

The product is added to the kernel before the network is asked, so that any network will do, and
every derivative is there; a step makes the sum of each adapted kernel once.

==========================  =======================================================================
a kernel of two axes        of a dense layer, inputs first
of three                    of attention in Flax: ``query``, ``key``, ``value``, ``qkv`` have one
                            axis of inputs, ``out`` has two
of four and five            of a convolution: the places of its window and its inputs are the inputs
==========================  =======================================================================

A kernel of a stack of blocks has an axis before these, and every block its own product.
"""

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, PRNGKeyArray

from fmjax.checks import check_at_least, check_positive
from fmjax.conventions import ApplyFn, Array
from fmjax.errors import InputError
from fmjax.names import matching, named_leaves
from fmjax.storage.safetensors import read_header, read_tensors, write_weights

STACKED = ("blocks/*", "*_blocks/*")
"""Patterns of the kernels here that have one entry for each block."""
_KERNEL = "kernel"
_OF_ATTENTION = {"query": 1, "key": 1, "value": 1, "qkv": 1, "out": 2}
_ALPHA = "alpha"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Adapters:
    """What is trained: a pytree of arrays.

    Attributes:
        kernels: nested as the parameters are, with ``{"a": (..., rank), "b": (rank, ...)}`` in the
            place of each kernel that is adapted.
        alpha: the product counts alpha / rank times; no array, and not trained.
    """

    kernels: dict[str, Any]
    alpha: float = field(metadata={"static": True})

    @property
    def rank(self) -> int:
        """The length of the inner axis."""
        return next(x for name, x in flatten_dict(self.kernels).items() if name[-1] == "a").shape[
            -1
        ]


def init(
    key: PRNGKeyArray,
    params: Any,
    patterns: Sequence[str] = ("*",),
    rank: int = 8,
    alpha: float | None = None,
    stacked: Sequence[str] = STACKED,
) -> Adapters:
    """Adapters with which a network is as it was, up to the sign of a zero.

    a is normal with variance 1 over the number of inputs, and b is zero.

    Args:
        key: of a.
        params: of the network; arrays, or their shapes.
        patterns: of the names of kernels, such as ``("blocks/attention/*",)``; what else they match
            (biases, norms, tables) is left alone.
        rank: of each product, at most the smaller side of each kernel.
        alpha: the product counts alpha / rank times; None for rank.
        stacked: patterns of kernels with one entry for each block; of those of a network of your
            own, ``()`` for none.

    Returns:
        Float32 arrays.

    Raises:
        InputError: a pattern matches no kernel, or a kernel whose inputs cannot be told from its
            outputs; or rank or alpha does not fit.
    """
    check_at_least("rank", rank)
    alpha = rank if alpha is None else alpha
    check_positive("alpha", alpha)
    leaves = named_leaves(params, "params").items()
    kernels = {name: leaf for name, leaf in leaves if name.rpartition("/")[2] == _KERNEL}
    if not kernels:
        raise InputError(
            "LoRA adapts arrays that are called kernel, as those of Flax are, and params have none."
        )
    chosen = sorted(matching(patterns, _nested(kernels), "the patterns of LoRA"))
    made = {}
    for name, one in zip(chosen, jax.random.split(key, len(chosen)), strict=True):
        before, inputs, outputs = _axes(name, kernels[name].shape, stacked)
        if rank > min(math.prod(inputs), math.prod(outputs)):
            raise InputError(
                f"rank={rank} is more than the smaller side of {name}, a matrix of "
                f"{math.prod(inputs)} x {math.prod(outputs)}: take a smaller rank, or leave it out."
            )
        scale = math.prod(inputs) ** -0.5
        made[f"{name}/a"] = scale * jax.random.normal(one, (*before, *inputs, rank))
        made[f"{name}/b"] = jnp.zeros((*before, rank, *outputs))
    return Adapters(_nested(made), float(alpha))


def merge(params: Any, adapters: Adapters) -> Any:
    """Parameters with the products added, W + (alpha / rank) a b, in the dtypes they have.

    Args:
        params: of the network that the adapters were made for.
        adapters: from `init`, trained or not.

    Raises:
        InputError: the adapters are not of such a network.
    """
    leaves, rest = named_leaves(params, "params"), _by_kernel(adapters)
    merged = [
        _sum(name, leaf, rest.pop(name), adapters.alpha) if name in rest else leaf
        for name, leaf in leaves.items()
    ]
    if rest:
        raise InputError(
            f"the adapters are of another network: it has {next(iter(rest))}, and params has not."
        )
    return jax.tree.unflatten(jax.tree.structure(params), merged)


def with_adapters(apply_fn: ApplyFn, params: Any) -> ApplyFn:
    """A network as a function of its adapters, ``(adapters, x, t, labels)``, its parameters fixed.

    They become constants of whatever is compiled, which suits a small network on one device; for a
    large one, or several devices, take `with_base`.

    Args:
        apply_fn: ``apply_fn(params, x, t, labels)``.
        params: its parameters.
    """

    def adapted(adapters: Adapters, x: Any, t: Any, labels: Any = None) -> Any:
        return apply_fn(merge(params, adapters), x, t, labels)

    return adapted


def with_base(apply_fn: ApplyFn) -> ApplyFn:
    """A network as a function of both, ``{"base": params, "adapters": adapters}``.

    Train it with ``frozen=("base/*",)``.

    Args:
        apply_fn: ``apply_fn(params, x, t, labels)``.
    """

    def adapted(both: dict[str, Any], x: Any, t: Any, labels: Any = None) -> Any:
        return apply_fn(merge(both["base"], both["adapters"]), x, t, labels)

    return adapted


def save(path: str | Path, adapters: Adapters) -> None:
    """Writes adapters as safetensors, under dotted names such as ``out.kernel.a``.

    Args:
        path: of the file; its folder is made if missing.
        adapters: to write; called by all processes, written by process 0.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_weights(path, adapters.kernels, None, {_ALPHA: repr(adapters.alpha)})


def load(path: str | Path) -> Adapters:
    """Reads what `save` wrote, to the bit.

    Args:
        path: of the file.

    Raises:
        InputError: the file cannot be read, or holds no adapters.
    """
    path = Path(path)
    header = read_header(path)
    last = {name.rpartition(".")[2] for name in header.shapes}
    try:
        alpha = float(header.metadata[_ALPHA])
    except (KeyError, ValueError):
        alpha = math.nan
    if last != {"a", "b"} or not 0 < alpha < math.inf:
        raise InputError(
            f"{path} holds no adapters of fmjax: give a file of fmjax.training.lora.save, or of "
            "python -m fmjax weights --adapters."
        )
    tensors = {name: jnp.asarray(x) for name, x in read_tensors(path).items()}
    return Adapters(unflatten_dict(tensors, sep="."), alpha)


def _nested(leaves: dict[str, Any]) -> dict[str, Any]:
    return unflatten_dict(leaves, sep="/")


def _by_kernel(adapters: Adapters) -> dict[str, dict[str, Any]]:
    """The pair of each kernel by its name."""
    pairs: dict[str, dict[str, Any]] = {}
    for (*names, part), leaf in flatten_dict(adapters.kernels).items():
        pairs.setdefault("/".join(names), {})[part] = leaf
    return pairs


def _stack(name: str, stacked: Sequence[str]) -> int:
    return int(any(fnmatch.fnmatchcase(name, pattern) for pattern in stacked))


def _axes(name: str, shape: tuple[int, ...], stacked: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The axes of the stack, of the inputs and of the outputs."""
    start = _stack(name, stacked)
    own = shape[start:]
    if len(own) == 3:
        inputs = _OF_ATTENTION.get(name.removesuffix(f"/{_KERNEL}").rpartition("/")[2])
    else:
        inputs = len(own) - 1 if len(own) in (2, 4, 5) else None
    if inputs is None:
        raise InputError(
            f"{name} of shape {list(shape)} is no kernel of a dense layer, of attention's query, "
            "key, value or out, or of a convolution: which of its axes are inputs cannot be told, "
            "so leave it out of the patterns."
        )
    return shape[:start], own[:inputs], own[inputs:]


def _sum(
    name: str, leaf: Float[Array, "*shape"], pair: dict[str, Any], alpha: float
) -> Float[Array, "*shape"]:
    """W + (alpha / rank) a b of one kernel."""
    a, b = pair["a"], pair["b"]
    rank, stack = a.shape[-1], a.ndim + b.ndim - 2 - leaf.ndim
    before, inputs, outputs = a.shape[:stack], a.shape[stack:-1], b.shape[stack + 1 :]
    if stack not in (0, 1) or (*before, *inputs, *outputs) != leaf.shape:
        raise InputError(
            f"the adapters are of another network: a {list(a.shape)} and b {list(b.shape)} make "
            f"no {name} of shape {list(leaf.shape)}."
        )
    a = a.reshape(*before, math.prod(inputs), rank)
    b = b.reshape(*before, rank, math.prod(outputs))
    product = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST).reshape(leaf.shape)
    return (leaf + (alpha / rank) * product).astype(leaf.dtype)
