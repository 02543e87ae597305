"""Parameters in a safetensors file: each in its place, and those of another model named."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from fmjax.errors import InputError
from fmjax.storage.safetensors import check_same, read_header, read_weights, write_weights


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            {"a.b": (2, 3), "c": (4,)},
            r"a.b has shape \(2, 3\) there and has shape \(3, 2\)",
        ),
        ({"c": (4,)}, r"a.b does not exist there and has shape \(3, 2\)"),
        ({"a.b": (3, 2), "c": (4,), "z": ()}, r"z has shape \(\) there and does not exist in this"),
    ],
)
def test_the_first_leaf_that_differs_is_named(tmp_path, found, sentence):
    with pytest.raises(InputError, match=f"another model: {sentence}"):
        check_same(found, {"a.b": (3, 2), "c": (4,)}, tmp_path)
    check_same({"c": (4,), "a.b": (3, 2)}, {"a.b": (3, 2), "c": (4,)}, tmp_path)  # in any order


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyError, match="float16"):
        write_weights(tmp_path / "x", {"a": np.ones(2, np.float32)}, dtype="float16")
    with pytest.raises(InputError, match=r"x cannot be read as a safetensors file \(.+\); give a"):
        read_weights(tmp_path / "x", {"a": jax.ShapeDtypeStruct((2,), "float32")})
    assert list(tmp_path.iterdir()) == []


def test_an_array_is_written_in_the_order_of_its_indices(tmp_path):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_weights(tmp_path / "x", {"a": {"b": x.T}, "c": np.float32(3)}, metadata={"step": "1"})
    np.testing.assert_array_equal(load_file(tmp_path / "x")["a.b"], x.T)
    assert read_header(tmp_path / "x") == ({"a.b": (3, 2), "c": ()}, {"step": "1"})
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.slow
def test_each_device_reads_its_shards_alone(tmp_path, run_python):
    x = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    one = {"a": {"b": jax.numpy.asarray(x)}, "c": jax.numpy.asarray(x[0])}
    write_weights(tmp_path / "one", one)
    code = f"""
        import jax, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec as P
        from fmjax.storage import safetensors

        read = []
        class Piece:
            def __init__(self, piece): self.piece = piece
            def __getitem__(self, index):
                read.append(self.piece[index].shape)
                return self.piece[index]
        place = safetensors._place
        safetensors._place = lambda piece, leaf: place(Piece(piece), leaf)

        mesh = jax.make_mesh((8,), ("fsdp",))
        def leaf(shape, *axes):
            return jax.ShapeDtypeStruct(shape, "float32", sharding=NamedSharding(mesh, P(*axes)))
        target = {{"a": {{"b": leaf((16, 6), "fsdp")}}, "c": leaf((6,))}}
        params = safetensors.read_weights("{tmp_path}/one", target)
        assert read.count((2, 6)) == 8 and (16, 6) not in read, read
        b = params["a"]["b"]
        assert {{shard.data.shape for shard in b.addressable_shards}} == {{(2, 6)}}
        assert b.sharding == target["a"]["b"].sharding
        safetensors.write_weights(__import__("pathlib").Path("{tmp_path}/eight"), params)
        """
    run_python(code, devices=8)
    assert (tmp_path / "eight").read_bytes() == (tmp_path / "one").read_bytes()
