"""What the identities of a flow map need of a manifold: exp and log in place of plus and minus.

With z = (t - s) u the tangent vector of a jump, X = exp_x(z):

    end of a jump      d/dt X = D exp_x(z) [u + (t - s) du/dt]
    its start          u = (t - s) du/ds - D_x log_x(X) [v]     where d/ds X = 0 along the flow
    two jumps          u = log_x(exp_y(z_2)) / (t - s),  y = exp_x(z_1)

In flat space D exp = 1 and D_x log_x(X) [v] = -v. The derivatives are those of the arrays,
projected to the tangent space: what the connection adds to du/ds and to D_x log_x(X) is the same,
as both are of one vector, and cancels. Sources: arXiv:2510.21608 (generalised flow maps),
arXiv:2602.07744 (Riemannian MeanFlow).

log gives the shortest way, so that the last two hold for jumps that are shortest ways themselves.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fmjax.conventions import Array, Batched, Span, expand
from fmjax.flow_maps.fields import Averages, Share, combined, moved
from fmjax.manifolds import Manifold


def at_the_end(
    x: Batched,
    duration: Float[Array, " batch"],
    average: Averages,
    rate: Batched,
    manifold: Manifold,
) -> tuple[Batched, Batched]:
    """The velocity of the end of a jump.

    Args:
        x: where it starts (batch, ...).
        duration: t - s (batch,).
        average: of the jump.
        rate: d/dt of (t - s) u, a tangent vector at x.
        manifold: where x is.

    Returns:
        The end (batch, ...), without a gradient, and its velocity, a tangent vector there.
    """
    z = expand(duration, x) * average["velocity"]
    end, velocity = jax.jvp(lambda z: manifold.exp(x, z), (z,), (rate,))
    return jax.lax.stop_gradient(end), velocity


def at_the_start(
    x: Batched, duration: Float[Array, " batch"], average: Averages, v: Batched, manifold: Manifold
) -> Batched:
    """-D_x log_x(X) [v]: how the way from x to the end of a jump changes as x moves with v."""
    end = jax.lax.stop_gradient(moved(x, duration, average, manifold))
    way = jax.jvp(lambda x: manifold.log(x, end), (x,), (v,))[1]
    return manifold.to_tangent(x, -way)


def joined(
    x: Batched,
    middle: Batched,
    span: Span,
    shares: tuple[Share, Share],
    averages: tuple[Averages, Averages],
    manifold: Manifold | None,
) -> Averages:
    """The averages of one jump that leads where two lead, one after the other.

    Args:
        x: where the first starts (batch, ...).
        middle: where the second starts.
        span: s and t of both together.
        shares: of the time t - s that each takes, which sum to 1.
        averages: of each.
        manifold: where x is; None in flat space.
    """
    (a, b), (first, second) = shares, averages
    found = combined(a, first, b, second)
    if manifold is None:
        return found
    duration = span.t - span.s
    way = manifold.log(x, moved(middle, b * duration, second, manifold))
    none = duration == 0
    velocity = way / expand(jnp.where(none, 1, duration), way)
    return found | {"velocity": jnp.where(expand(none, way), found["velocity"], velocity)}
