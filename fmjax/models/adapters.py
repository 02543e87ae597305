"""A module of any of three libraries as a pure function `apply_fn(params, x, t, labels)`.

    apply_fn         = from_linen(module)        # params: module.init(...)["params"]
    apply_fn, params = from_nnx(module)
    apply_fn, params = from_equinox(module)

x has shape (B, ...), t (B,), or is a `Span` of two such for a network of two times; labels are
(B,), a pytree of arrays with a leading axis B, or None. The velocity has the shape of x. An
`apply_fn` holds no state: it can be jitted, vmapped, differentiated and called again with other
params, and what a module would write to itself is dropped.
`extend_params` puts the parameters of one network into those of a larger one.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fmjax.conventions import ApplyFn
from fmjax.errors import InputError
from fmjax.names import named_leaves


def from_linen(module: nn.Module) -> ApplyFn:
    """Adapt a Linen module called as `module(x, t, labels)`.

    Args:
        module: its only collection is "params": one with others (batch statistics, say) fails with
            Flax's own error, as the velocity must be a function of params alone.

    Returns:
        `apply_fn`, for `params = module.init(key, x, t, labels)["params"]`.

    Example:
        >>> from fmjax.models.mlp import MLP
        >>> model, x, t = MLP(width=16, depth=1), jnp.zeros((4, 2)), jnp.zeros(4)
        >>> params = model.init(jax.random.key(0), x, t, None)["params"]
        >>> from_linen(model)(params, x, t, None).shape
        (4, 2)
    """

    def apply_fn(params: Any, x: Any, t: Any, labels: Any = None) -> Any:
        return module.apply({"params": params}, x, t, labels)

    return apply_fn


def from_nnx(module: Any) -> tuple[ApplyFn, Any]:
    """Adapt a Flax NNX module called as `module(x, t, labels)`.

    What is an `nnx.Param` becomes `params`. Everything else (batch statistics, random streams,
    caches) is kept at its present value: each call starts from it, and what the call changes is
    dropped. Call `module.eval()` first if the module has dropout or batch statistics: otherwise
    every call draws the same mask.

    Args:
        module: an `nnx.Module`. It is read once and not touched again.

    Returns:
        `apply_fn`, and `params`: nested dicts of arrays, copied from the module.

    Example:
        >>> from flax import nnx
        >>> class Net(nnx.Module):
        ...     def __init__(self, rngs):
        ...         self.linear = nnx.Linear(2, 2, rngs=rngs)
        ...     def __call__(self, x, t, labels):
        ...         return t[:, None] * self.linear(x)
        >>> apply_fn, params = from_nnx(Net(nnx.Rngs(0)))
        >>> apply_fn(params, jnp.ones((4, 2)), jnp.ones(4), None).shape
        (4, 2)
    """
    from flax import nnx

    # Two filters give two states.
    graph, state, rest = nnx.split(module, nnx.Param, ...)  # type: ignore[misc]
    params, rest = jax.tree.map(_copy, (nnx.to_pure_dict(state), rest))
    template = jax.eval_shape(lambda s: s, state)  # structure alone: holds no second set of weights

    def apply_fn(params: Any, x: Any, t: Any, labels: Any = None) -> Any:
        state = jax.tree.map(lambda leaf: leaf, template)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state, rest, copy=True)(x, t, labels)

    return apply_fn, params


def from_equinox(module: Any) -> tuple[ApplyFn, Any]:
    """Adapt an Equinox module called on one example as `module(x, t, label)`.

    Equinox modules act on single examples by convention, so the batch is mapped over here: inside,
    x has shape (...), t has shape (), and label is one example's label or None.

    Args:
        module: an `equinox.Module`, or any callable pytree; stateful layers are not supported.
            Arrays of floating dtype are parameters; freeze one with `jax.lax.stop_gradient`.

    Returns:
        `apply_fn`, and `params`: the module with all but its floating arrays replaced by None.

    Example:
        >>> import equinox as eqx
        >>> class Net(eqx.Module):
        ...     linear: eqx.nn.Linear
        ...     def __call__(self, x, t, label):  # of one example
        ...         return t * self.linear(x)
        >>> apply_fn, params = from_equinox(Net(eqx.nn.Linear(2, 2, key=jax.random.key(0))))
        >>> apply_fn(params, jnp.ones((4, 2)), jnp.ones(4), None).shape
        (4, 2)
    """
    import equinox as eqx

    params, static = eqx.partition(module, eqx.is_inexact_array)
    params = jax.tree.map(_copy, params)

    def apply_fn(params: Any, x: Any, t: Any, labels: Any = None) -> Any:
        return jax.vmap(eqx.combine(params, static))(x, t, labels)

    return apply_fn, params


def extend_params(fresh: Any, trained: Any) -> Any:
    """The parameters of one network in those of another that has more.

    A network that gains an input or a layer which adds zero at first, as `guidance` and `span` of
    the networks here do, so starts as the trained one.

    Args:
        fresh: of the larger network, as `init` gives them.
        trained: of the smaller one; each array is found under its name in `fresh`.

    Returns:
        A tree like `fresh`: trained arrays where there are any, fresh ones elsewhere.

    Raises:
        InputError: the larger network lacks one of the arrays, or has it in another shape.

    Example:
        >>> extend_params({"a": jnp.zeros(2), "b": jnp.zeros(1)}, {"a": jnp.ones(2)})
        {'a': Array([1., 1.], dtype=float32), 'b': Array([0.], dtype=float32)}
    """
    new, old = named_leaves(fresh, "params"), named_leaves(trained, "params")
    for name, leaf in old.items():
        if name not in new:
            raise InputError(
                f"the larger network has no parameter {name}, which the trained one has: build it "
                "with the same fields, and more."
            )
        if jnp.shape(new[name]) != jnp.shape(leaf):
            raise InputError(
                f"the parameter {name} has shape {jnp.shape(leaf)} in the trained network and "
                f"{jnp.shape(new[name])} in the larger one: build both with the same sizes."
            )
    return jax.tree.unflatten(jax.tree.structure(fresh), list((new | old).values()))


def _copy(leaf: Any) -> Any:
    # Training may donate its params: their buffers must not be those of the caller's module.
    return leaf.copy() if isinstance(leaf, jax.Array) else leaf
