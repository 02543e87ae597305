"""A published file of PyTorch is read without PyTorch; any other file is not even opened."""

import collections
import hashlib
import io
import os
import pickle

import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.storage import torch_files
from fmjax.storage.torch_files import read_torch_tensors

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
COUNT = np.array([7], np.int64)


class Named:
    """Pickled as a name of another module."""

    def __init__(self, name):
        self.name = name


class Stored:
    def __init__(self, kind, name, size):
        self.pid = ("storage", Named(kind), name, "cpu", size, None)


class Rebuilt:
    def __init__(self, storage, offset, shape, strides):
        self.args = (storage, offset, shape, strides, False, collections.OrderedDict())


class Writer(pickle._Pickler):
    """What torch.save wrote before version 1.6, without torch."""

    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Stored) else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Named):
            module, _, name = obj.name.rpartition(".")
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        elif isinstance(obj, Rebuilt):
            self.save(Named("torch._utils._rebuild_tensor_v2"))
            self.save(obj.args)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


def written(tensors, storages, magic=torch_files._MAGIC):
    out = io.BytesIO()
    for part in (magic, 1001, {"little_endian": True}, tensors, list(storages)):
        Writer(out, protocol=2).dump(part)
    for content in storages.values():
        out.write(np.int64(content.size).tobytes() + content.tobytes())
    return out.getvalue()


def good():
    floats, whole = Stored("torch.FloatStorage", "a", 24), Stored("torch.LongStorage", "b", 1)
    tensors = collections.OrderedDict(
        x=Rebuilt(floats, 0, (2, 3, 4), (12, 4, 1)),
        turned=Rebuilt(floats, 0, (4, 3, 2), (1, 4, 12)),
        part=Rebuilt(floats, 12, (3,), (4,)),
        count=Rebuilt(whole, 0, (), ()),
    )
    return written(tensors, {"a": X, "b": COUNT})


def read(path, content):
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return read_torch_tensors(path, digest, digest)


def test_tensors_are_read_with_their_strides_and_offsets(tmp_path):
    found = read(tmp_path / "x.pth", good())
    assert list(found) == ["x", "turned", "part", "count"]
    assert np.array_equal(found["x"], X)
    assert np.array_equal(found["turned"], X.T)
    assert np.array_equal(found["part"], [12, 16, 20])
    assert found["count"] == 7


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_a_file_that_runs_a_program_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(torch_files._MAGIC) + pickle.dumps(Harmful())
    with pytest.raises(InputError, match=r"without PyTorch \(it names posix.mkdir\)"):
        read(tmp_path / "x.pth", content)
    assert not (tmp_path / "harm").exists()


def test_another_file_is_refused_before_it_is_read(tmp_path):
    with pytest.raises(InputError, match=r"sha256 aaaaaaaaaaaa\.\.\., and the published file bbb"):
        read_torch_tensors(tmp_path / "is not there", "a" * 64, "b" * 64)
    with pytest.raises(InputError, match=r"before version 1\.6"):
        read(tmp_path / "x.pth", written({}, {}, magic=3))


@pytest.mark.parametrize("name", ["torchvision.FloatStorage", "a.FloatStorage", "torch.Tensor"])
def test_a_storage_of_another_name_is_refused(tmp_path, name):
    tensors = {"x": Rebuilt(Stored(name, "a", 24), 0, (24,), (1,))}
    with pytest.raises(InputError, match=rf"without PyTorch \(it names {name}\)"):
        read(tmp_path / "x.pth", written(tensors, {"a": X}))
