"""Attention, and which kernel computes it.

    attend(q, k, v) = softmax(q k^T / sqrt(d)) v

``"xla"`` is plain products and a softmax, which the compiler fuses as it can: every device, every
dtype, every derivative. ``"cudnn"`` is the fused kernel of NVIDIA GPUs (flash attention,
arXiv:2205.14135): the T x T weights never reach memory, in 16 bits only, and it has a backward pass
but no forward-mode derivative, so that a likelihood or a flow map's loss needs ``"xla"``.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from fmjax.conventions import Array
from fmjax.errors import InputError, unknown_name

KERNELS = ("xla", "cudnn")
_WIDEST_HEAD = 128  # of cuDNN, but for Hopper, which takes 256


def attend(
    q: Float[Array, "B T heads d"],
    k: Float[Array, "B L heads d"],
    v: Float[Array, "B L heads d"],
    kernel: str = "xla",
    mask: Bool[Array, "..."] | None = None,
) -> Float[Array, "B T heads d"]:
    """Let queries attend to keys.

    Args:
        q: shape (B, T, heads, d).
        k: shape (B, L, heads, d).
        v: as k.
        kernel: ``"xla"`` or ``"cudnn"``.
        mask: bool, of a shape that broadcasts to (B, heads, T, L): True where a key is attended.

    Returns:
        As q; the softmax is float32.
    """
    return jax.nn.dot_product_attention(  # type: ignore[call-overload]  # jax wants a Literal
        q, k, v, mask=mask, implementation=kernel
    )


def _cudnn_objection(dtype: Any, head: int) -> str | None:
    """Why cuDNN's kernel cannot be had, or None."""
    if jnp.dtype(dtype).itemsize != 2:
        return f"it computes in bfloat16 or float16, and the model in {jnp.dtype(dtype).name}"
    if head % 8 or head > _WIDEST_HEAD:
        return f"heads must be a multiple of 8 wide and at most {_WIDEST_HEAD}, and are {head}"
    return None


def check_attention(kernel: str, dtype: Any, head: int) -> None:
    """Checks that a kernel can compute a model's attention.

    Args:
        kernel: which.
        dtype: what the model computes in.
        head: the width of a head.

    Raises:
        InputError: there is no such kernel, or it does not take this dtype or this width.
    """
    if kernel not in KERNELS:
        raise unknown_name("attention kernel", kernel, KERNELS)
    objection = _cudnn_objection(dtype, head) if kernel == "cudnn" else None
    if objection:
        raise InputError(f"attention='cudnn' cannot be had: {objection}. Take attention='xla'.")


def choose_attention(asked: str, dtype: Any, head: int, platform: str) -> str:
    """The kernel for a name that may be ``"auto"``: cuDNN's on a GPU where it can be had.

    Args:
        asked: ``"auto"``, ``"xla"`` or ``"cudnn"``.
        dtype: what the model computes in.
        head: the width of a head.
        platform: of the devices: ``"cpu"``, ``"gpu"`` or ``"tpu"``.

    Returns:
        ``"xla"`` or ``"cudnn"``.

    Raises:
        InputError: the name is unknown, or cuDNN's is asked where it cannot be had.
    """
    if asked == "auto":
        able = platform == "gpu" and _cudnn_objection(dtype, head) is None
        return "cudnn" if able else "xla"
    if asked not in KERNELS:
        raise unknown_name("attention kernel", asked, ("auto", *KERNELS))
    if asked == "cudnn" and platform != "gpu":
        raise InputError(
            f"model.attention='cudnn' needs an NVIDIA GPU, and this is a {platform}; write "
            "model.attention=auto."
        )
    check_attention(asked, dtype, head)
    return asked
