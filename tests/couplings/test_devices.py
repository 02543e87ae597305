import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.couplings import exact, gathered, in_groups
from fmjax.errors import InputError

KEY = jax.random.key(0)
N = 64
X0 = jax.random.normal(jax.random.key(1), (N, 2))
X1 = jax.random.normal(jax.random.key(2), (N, 2))
LABELS = jnp.arange(N)


def noted(key, x0, x1, labels):
    """A coupling that shows the key it was given, and turns its block around."""
    return x0[::-1], x1, (labels, jnp.full(len(x1), jax.random.bits(key)))


@pytest.mark.slow
def test_each_block_is_coupled_by_itself_with_its_own_key():
    x0, x1, (labels, bits) = in_groups(noted, 4)(KEY, X0, X1, LABELS)
    np.testing.assert_array_equal(x0.reshape(4, 16, 2), X0.reshape(4, 16, 2)[:, ::-1])
    np.testing.assert_array_equal(x1, X1)
    np.testing.assert_array_equal(labels, LABELS)
    expected = [jax.random.bits(jax.random.fold_in(KEY, g)) for g in range(4)]
    np.testing.assert_array_equal(bits.reshape(4, 16)[:, 0], expected)


@pytest.mark.slow
def test_exact_groups_are_the_exact_couplings_of_the_blocks():
    # Two problems of 64 under one vmap, compiled once for the pair.
    x0, x1 = jnp.concatenate([X0, X1]), jnp.concatenate([X1, X0])
    found, _, labels = in_groups(exact(), 2)(KEY, x0, x1, None)
    assert labels is None
    for rows in (slice(0, N), slice(N, 2 * N)):
        np.testing.assert_array_equal(found[rows], exact()(KEY, x0[rows], x1[rows])[0])


def test_axis_names_give_the_groups_and_the_whole_on_one_device():
    def over(coupling):
        mapped = jax.pmap(coupling, axis_name="data", in_axes=(None, 0, 0, 0))
        return jax.tree.map(lambda a: a[0], mapped(KEY, X0[None], X1[None], LABELS[None]))

    for plain, placed in (
        (in_groups(noted, 4), in_groups(noted, 4, axis_name="data")),
        (noted, gathered(noted, "data")),
    ):
        found, expected = over(placed), plain(KEY, X0, X1, LABELS)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
def test_every_device_gives_its_groups_keys_of_their_own():
    # A mapped axis of two stands for two devices; `noted` shows the keys that it was given.
    x0, x1, labels = (a.reshape(2, N // 2, *a.shape[1:]) for a in (X0, X1, LABELS))
    mapped = jax.vmap(in_groups(noted, 4, "data"), (None, 0, 0, 0), axis_name="data")
    found, expected = mapped(KEY, x0, x1, labels), in_groups(noted, 4)(KEY, X0, X1, LABELS)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.reshape(b.shape), b), found, expected)


@pytest.mark.slow
def test_the_global_coupling_is_one_on_one_device_and_on_eight(run_python):
    """Under jit and pmap; and groups on their devices need no communication."""
    out = run_python(
        """
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec as P
        from fmjax.couplings import exact, gathered, in_groups, schroedinger_bridge

        mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
        key = jax.random.key(0)
        x0 = jax.random.normal(jax.random.key(1), (64, 2))
        x1 = jax.random.normal(jax.random.key(2), (64, 2))
        batch = (x0, x1, {"class": jnp.arange(64)})
        spread = jax.device_put(batch, NamedSharding(mesh, P("data")))
        split = jax.tree.map(lambda a: a.reshape(8, 8, *a.shape[1:]), batch)

        def same(found, expected):
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
                np.testing.assert_array_equal(np.reshape(a, b.shape), b)

        def pmapped(coupling):
            return jax.pmap(coupling, axis_name="data", in_axes=(None, 0, 0, 0))(key, *split)

        for coupling in (exact(), schroedinger_bridge(1.0)):
            expected = jax.jit(coupling)(key, *batch)
            same(jax.jit(gathered(coupling, mesh=mesh))(key, *spread), expected)
            same(pmapped(gathered(coupling, "data")), expected)
        same(jax.jit(exact())(key, *spread), jax.jit(exact())(key, *batch))

        expected = jax.jit(in_groups(exact(), 16))(key, *batch)
        local = jax.jit(in_groups(exact(), 16, mesh=mesh)).lower(key, *spread).compile()
        same(local(key, *spread), expected)
        same(pmapped(in_groups(exact(), 16, "data")), expected)
        text = local.as_text()
        print([name for name in ("all-reduce", "all-gather", "all-to-all", "permute(")
               if name in text])
        """
    )
    assert out.strip() == "[]"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: in_groups(exact(), 0), "groups must be a whole number of at least 1; got 0"),
        (
            lambda: in_groups(exact(), 5)(KEY, X0, X1),
            r"5 \(groups\); got 64. Write 60 or 65",
        ),
        (lambda: gathered(exact()), "needs the axis of pmap or shard_map"),
    ],
)
def test_bad_groups_are_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
