"""Arrays of an .npz: as numpy writes them, or an InputError before memory is taken."""

import io
import zipfile

import numpy as np
import pytest

from fmjax import npz
from fmjax.errors import InputError
from fmjax.npz import read_array, read_arrays


def header(shape, dtype="|u1", version=b"\x01\x00"):
    """A .npy file of that shape without content."""
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode()


def write(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path, save):
    arrays = {
        "x": np.arange(6, dtype=np.float32).reshape(2, 3),
        "t": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "none": np.zeros((0, 3), np.uint8),
        "one": np.float64(3),
    }
    save(tmp_path / "a.npz", **arrays)
    found = read_arrays(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        assert found[name].flags.writeable


DAMAGED = [
    b"no array",
    header((9 * 2**40,)),
    header((-3,)) + b"abc",
    header((-1, 0)),
    header((2**62, 4)) + b"a",
    header((2,), "|O") + b"ab",
    header((3,)) + b"ab",
    header((3,)) + b"abcd",
    header("(" * 5000),
    header((1,), version=b"\x03\x00") + b"a",
    b"\x93NUMPY\x01\x00\xff\xff",
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_member_that_is_no_plain_array_is_refused(tmp_path, content):
    path = write(tmp_path / "a.npz", x=content)
    with pytest.raises(InputError, match="cannot be read as an"):
        read_arrays(path)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("content", [*DAMAGED, b""])
def test_a_file_that_is_no_plain_array_is_refused(tmp_path, content, mapped):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy cannot be read as an \.npy"):
        read_array(tmp_path / "a.npy", mapped)


@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (0, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_the_same_whether_it_is_read_or_mapped(tmp_path, shape, order, monkeypatch):
    array = np.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape), order=order)
    np.save(tmp_path / "a.npy", array)
    read, mapped = read_array(tmp_path / "a.npy"), read_array(tmp_path / "a.npy", mapped=True)
    for found in (read, mapped):
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype
    assert isinstance(mapped, np.memmap) == bool(array.size)
    monkeypatch.setattr(npz, "check_memory", lambda *_: pytest.fail("no memory is taken"))
    read_array(tmp_path / "a.npy", mapped=True)


def test_a_npy_and_half_a_file_and_a_flipped_bit_are_refused(tmp_path):
    whole = io.BytesIO()
    np.savez(whole, x=np.arange(100))
    good = whole.getvalue()
    alone = io.BytesIO()
    np.save(alone, np.arange(3))
    flipped = bytearray(good)
    flipped[400] ^= 1
    for content in (b"", good[: len(good) // 2], bytes(flipped), alone.getvalue()):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.npz cannot be read"):
            read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("shape", [(-1,), (-3,), (-1, 0), (-2, -2), (30,), (9 * 2**40,)])
def test_a_shape_that_cannot_be_in_the_file_is_named_before_it_is_read(tmp_path, shape):
    path = write(tmp_path / "a.npz", x=header(shape, "<f8") + bytes(8))
    with pytest.raises(InputError, match=r"an array of shape \(.*\) does not fit into its"):
        read_arrays(path)
