"""The linear assignment problem inside a compiled program, exactly.

    min over permutations p of sum_i C[i, p(i)]

There are two parts. The first finds dual potentials u, v by Sinkhorn iterations (Cuturi,
arXiv:1306.0895): whole-matrix work, quick on every backend, but approximate. Subtracting them,
C[i, j] - u[i] - v[j], changes the sum of every permutation by the same number and leaves the
optimum where it is. The second part finds the optimum of these reduced costs by shortest
augmenting paths (Jonker and Volgenant, Computing 38, 1987; Crouse, IEEE TAES 52, 2016), which are
exact but go row after row: after the first part most rows are matched at once, and the searches
for the rest are short.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float, Int

from fmjax.conventions import AnyArray, Array

# Entropic warm start: eps from HIGH to LOW times the spread of the costs, in STAGES of ITERATIONS.
# Any numbers give the same permutation; these were the quickest of those tried at 512 and 2048.
# Larger steps between stages let kernels underflow.
HIGH, LOW, STAGES, ITERATIONS = 0.1, 2e-4, 5, 8
# Over-relaxation of the scalings (Thibault et al., arXiv:1711.01851) saves iterations.
OMEGA = 1.7


@jax.jit
def assign(cost: Float[Array, "n n"]) -> Int[Array, " n"]:
    """The permutation of least total cost.

    Args:
        cost: costs (n, n), floating. Infinity forbids a pair; some permutation must be free of it.
            NaN is read as infinity, so that the program ends, with a permutation of no meaning.

    Returns:
        The column of each row, int (n,), a permutation.
    """
    allowed = jnp.isfinite(cost)
    spread = jnp.std(cost, where=allowed)
    largest = jnp.max(jnp.abs(cost), where=allowed, initial=0)
    # Above any sum of allowed costs: one forbidden pair is worse than every way around it.
    cost = jnp.where(allowed, cost, (2 * len(cost) + 1) * largest + 1)
    # Warm start: potentials near their optimum leave most rows with a column of reduced cost 0.
    u, v = potentials(cost, spread)
    # Exact part: match those rows, then search shortest paths for the others.
    return _augment(jnp.maximum(cost - u[:, None] - v[None, :], 0))


def potentials(
    cost: Float[Array, "n n"], spread: Float[Array, ""]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Feasible dual potentials near the optimum: u[i] + v[j] <= C[i, j], by Sinkhorn iterations.

    Args:
        cost: finite costs (n, n).
        spread: the scale of the costs, a scalar.

    Returns:
        u and v (n,); every row and every column has a pair at which equality holds.
    """
    epsilons = jnp.geomspace(HIGH, LOW, STAGES, dtype=cost.dtype) * spread
    epsilons = jnp.maximum(epsilons, jnp.finfo(cost.dtype).tiny)

    def stage(potentials, epsilon):
        u, v = potentials
        # Sinkhorn scalings at this epsilon, on costs reduced by the potentials of the last stage.
        kernel = jnp.exp((u[:, None] + v[None, :] - cost) / epsilon)

        def scale(_, scalings):
            a, b = scalings
            a = a ** (1 - OMEGA) / (kernel @ b) ** OMEGA
            return a, b ** (1 - OMEGA) / (a @ kernel) ** OMEGA

        start = (1 / jnp.sum(kernel, axis=1), jnp.ones_like(v))
        a, b = lax.fori_loop(0, ITERATIONS, scale, start)
        # The scalings are absorbed by the potentials, around which the next kernel is computed.
        new = u + epsilon * jnp.log(a), v + epsilon * jnp.log(b)
        # Where the kernel underflowed the stage is lost; tight potentials keep the next one whole.
        whole = jnp.all(jnp.isfinite(new[0])) & jnp.all(jnp.isfinite(new[1]))
        return lax.cond(whole, lambda: new, lambda: tighten(cost, v)), None

    # From coarse to fine; at the end v alone is kept, and u follows from it exactly.
    (_, v), _ = lax.scan(stage, tighten(cost, jnp.zeros_like(cost[0])), epsilons)
    return tighten(cost, v)


def tighten(
    cost: Float[AnyArray, "n m"], v: Float[AnyArray, " m"]
) -> tuple[Float[AnyArray, " n"], Float[AnyArray, " m"]]:
    """The largest u below C - v, then the largest v below C - u; arrays of jax or of numpy."""
    u = (cost - v[None, :]).min(axis=1)
    return u, (cost - u[:, None]).min(axis=0)


def _augment(cost: Float[Array, "n n"]) -> Int[Array, " n"]:
    """Shortest augmenting paths on costs that are non-negative, with a zero in every row."""
    n = len(cost)
    rows = jnp.arange(n)
    # Each row asks for its cheapest column, and the first to ask has it. n stands for "free".
    cheapest = cost == jnp.min(cost, axis=1)[:, None]  # argmin of a matrix is slow on CPU
    wish = jnp.min(jnp.where(cheapest, rows[None, :], n), axis=1)
    row_of = jnp.full(n, n).at[wish].min(rows)
    happy = row_of[wish] == rows
    column_of = jnp.where(happy, wish, n)
    waiting = jnp.argsort(happy)  # the rows without a column first

    def add(k, state):
        """One more row gets a column; the rows on its path change theirs."""
        v, row_of, column_of = state
        start = waiting[k]
        # The shortest path from the row to a free column, rows and columns by turns.
        end, length, settled, before = _search(cost, v, row_of, start)
        # Lower the prices of the settled columns: matched pairs stay the cheapest of their rows.
        v = jnp.where(settled < jnp.inf, v + settled - length, v)

        # Back along the path, each column goes to the row before it.
        def flip(state):
            j, row_of, column_of = state
            i = before[j]
            return column_of[i], row_of.at[j].set(i), column_of.at[i].set(j)

        # Under vmap a problem that is solved still takes part in the turns of the others: its
        # searches find no free column, and must end and change nothing.
        end = jnp.where(length < jnp.inf, end, n)
        _, row_of, column_of = lax.while_loop(
            lambda state: state[0] < n, flip, (end, row_of, column_of)
        )
        return v, row_of, column_of

    start = (jnp.zeros_like(cost[0]), row_of, column_of)
    return lax.fori_loop(0, n - jnp.sum(happy), add, start)[2]


def _search(
    cost: Float[Array, "n n"],
    v: Float[Array, " n"],
    row_of: Int[Array, " n"],
    start: Int[Array, ""],
) -> tuple[Array, ...]:
    """Dijkstra from a row to the nearest free column, along reduced costs.

    Returns:
        The free column, its distance (infinity: there is none), the distances of the columns
        settled on the way (infinity elsewhere), and for each column the row before it.
    """
    n = len(cost)
    columns = jnp.arange(n)

    def row(i):
        return lax.dynamic_index_in_dim(cost, i, keepdims=False) - v

    def step(state):
        # Settle column j, the nearest one reached, and go on from the row that holds it.
        j, distance, reach, settled, before = state
        i = row_of[j]
        edges = row(i)
        through = edges + (distance - edges[j])
        here = columns == j
        # Relax the edges of that row; settled columns are out of reach, at infinity.
        nearer = (through < reach) & (reach < jnp.inf) & ~here
        settled = jnp.where(here, distance, settled)
        reach = jnp.where(here, jnp.inf, jnp.where(nearer, through, reach))
        j = jnp.argmin(reach)  # the next column to settle
        return j, reach[j], reach, settled, jnp.where(nearer, i, before)

    # The edges of the starting row; then settle columns until one is free or none is in reach.
    reach = row(start)
    j = jnp.argmin(reach)
    state = (j, reach[j], reach, jnp.full_like(v, jnp.inf), jnp.full(n, start))
    j, distance, _, settled, before = lax.while_loop(
        lambda state: (row_of[state[0]] < n) & (state[1] < jnp.inf), step, state
    )
    return j, distance, settled, before


@jax.jit
def greedy(score: Float[Array, "n n"]) -> Int[Array, " n"]:
    """A permutation of large total score by whole-matrix rounds, without a sequential search.

    In each round every free row names its best free column, every free column its best free row,
    and those who name each other are paired; the best pair left always is, so each round makes one
    at least and usually a good share. It comes to taking the pairs one by one, best first.

    Args:
        score: scores (n, n), floating; what is not finite comes last.

    Returns:
        The column of each row, int (n,), a permutation.
    """
    n = len(score)
    rows = jnp.arange(n)
    score = jnp.where(jnp.isfinite(score), score, jnp.finfo(score.dtype).min)

    def round_(column_of):
        # Scores between free rows and free columns; the others are out of the round.
        taken = jnp.zeros(n + 1, bool).at[column_of].set(True)[:n]
        open_ = (column_of == n)[:, None] & ~taken[None, :]
        left = jnp.where(open_, score, -jnp.inf)
        # Each row names a column, and has it if that column names the row.
        wish = jnp.argmax(left, axis=1)
        mutual = (jnp.argmax(left, axis=0)[wish] == rows) & (column_of == n)
        return jnp.where(mutual, wish, column_of)

    start = jnp.full(n, n)
    return lax.while_loop(lambda column_of: jnp.any(column_of == n), round_, start)
