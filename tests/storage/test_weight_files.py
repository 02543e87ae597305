"""Published weights are found wherever they lie, and what is wrong with them is one sentence."""

import json
import pickle
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from fmjax.errors import InputError
from fmjax.storage.weight_files import open_weights

A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(4, np.float16)


def sharded(folder, weight_map=None):
    save_file({"a": A}, folder / "m-1.safetensors")
    save_file({"b": B}, folder / "m-2.safetensors")
    where = {"a": "m-1.safetensors", "b": "m-2.safetensors"} if weight_map is None else weight_map
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return index


def check(files):
    assert files.shapes == {"a": (2, 3), "b": (4,)}
    np.testing.assert_array_equal(files.read("a"), A)
    assert files.read("b").dtype == np.float16


def test_one_file_an_index_and_a_folder_hold_the_same(tmp_path):
    save_file({"a": A, "b": B}, tmp_path / "whole.safetensors")
    check(open_weights(tmp_path / "whole.safetensors"))
    parts = tmp_path / "parts"
    parts.mkdir()
    check(open_weights(sharded(parts)))
    (parts / "config.json").write_text('{"depth": 3}')
    check(open_weights(parts))
    assert open_weights(parts).config == {"depth": 3}


def test_two_halves_of_a_folder_are_put_together(tmp_path):
    save_file({"0.weight": A}, tmp_path / "t_encoder.safetensors")
    save_file({"0.weight": B}, tmp_path / "t_decoder.safetensors")
    files = open_weights(str(tmp_path))
    assert files.shapes == {"encoder.0.weight": (2, 3), "decoder.0.weight": (4,)}
    np.testing.assert_array_equal(files.read("decoder.0.weight"), B)


def test_the_usual_name_is_taken_among_variants(tmp_path):
    save_file({"a": A}, tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    save_file({"a": A, "b": B}, tmp_path / "diffusion_pytorch_model.safetensors")
    check(open_weights(tmp_path))


@pytest.mark.parametrize("file", ["../m-1.safetensors", "/m-1.safetensors", "x/m-1.safetensors"])
def test_an_index_does_not_lead_out_of_its_folder(tmp_path, file):
    inner = tmp_path / "inner"
    inner.mkdir()
    save_file({"a": A}, tmp_path / "m-1.safetensors")
    with pytest.raises(InputError, match=r"no \.safetensors file of its own folder; such an index"):
        open_weights(sharded(inner, {"a": file}))


BAD = {
    "nothing there": (lambda d: d / "no.safetensors", "there is no .*no.safetensors: give a"),
    "an empty folder": (lambda d: d, "holds no weights, .safetensors or .pt"),
    "another kind": (lambda d: written(d / "x.txt"), "x.txt is none of the files"),
    "damaged": (lambda d: written(d / "x.safetensors"), "cannot be read as a safetensors file"),
    "truncated": (lambda d: truncated(d), "cannot be read as a safetensors file"),
    "integers": (lambda d: integers(d), "holds n as I64; parameters are floating-point numbers"),
    "several": (lambda d: several(d), "holds several weight files, a.safetensors, b.safetensors"),
    "a pipeline": (lambda d: pipeline(d), "give one of its folders transformer, vae"),
    "an index without a file": (
        lambda d: sharded(d, {"a": "gone.safetensors"}),
        "names gone.safetensors, which is missing",
    ),
    "an index that lies": (
        lambda d: sharded(d, {"c": "m-1.safetensors"}),
        "says that m-1.safetensors holds c, and it does not",
    ),
    "an index of numbers": (lambda d: sharded(d, {"a": 3}), "must be a text; got 3"),
    "an index without names": (lambda d: empty_index(d), "has no 'weight_map'"),
}


def written(path):
    path.write_bytes(b"no weights")
    return path


def truncated(folder):
    path = folder / "x.safetensors"
    save_file({"a": A}, path)
    path.write_bytes(path.read_bytes()[:-4])
    return path


def integers(folder):
    save_file({"n": np.arange(3)}, folder / "x.safetensors")
    return folder / "x.safetensors"


def several(folder):
    for name in "ab":
        save_file({"a": A}, folder / f"{name}.safetensors")
    return folder


def pipeline(folder):
    for name in ("transformer", "vae"):
        (folder / name).mkdir()
        save_file({"a": A}, folder / name / "m.safetensors")
    return folder


def empty_index(folder):
    path = folder / "m.safetensors.index.json"
    path.write_text("{}")
    return path


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_one_sentence(name, tmp_path):
    make, message = BAD[name]
    path = make(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        open_weights(path)
    assert "\n" not in str(error.value)


def test_without_torch_its_files_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(InputError, match="torch alone reads: pip install torch, or give"):
        open_weights(written(tmp_path / "x.pt"))


class Touches:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_file_of_torch_is_read_and_its_averaged_weights_come_first(tmp_path):
    torch = pytest.importorskip("torch")
    content = {"a": torch.from_numpy(A), "b": torch.from_numpy(B)}
    torch.save(content, tmp_path / "x.pt")
    check(open_weights(tmp_path / "x.pt"))
    other = {"model": {"a": torch.zeros(1)}, "ema": content, "opt": {}}
    torch.save(other, tmp_path / "y.pt", _use_new_zipfile_serialization=False)
    check(open_weights(tmp_path / "y.pt"))
    trained = torch.nn.Parameter(torch.ones(2).bfloat16())
    torch.save({"a": trained}, tmp_path / "z.pt")
    assert open_weights(tmp_path / "z.pt").read("a").dtype.name == "bfloat16"
    torch.save({"a": torch.arange(3)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"holds a as torch\.int64; parameters are floating-point"):
        open_weights(tmp_path / "w.pt")


def test_a_pickled_program_does_not_run(tmp_path):
    torch = pytest.importorskip("torch")
    trace = tmp_path / "trace"
    torch.save({"a": Touches(trace)}, tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Touches(trace)))
    for name in ("x.pt", "y.pt"):
        with pytest.raises(InputError, match=r"[xy]\.pt"):
            open_weights(tmp_path / name)
    assert not trace.exists()


def test_a_damaged_or_empty_file_of_torch_is_named(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.ones(3), tmp_path / "x.pt")
    with pytest.raises(InputError, match="holds no tensors by name, but Tensor"):
        open_weights(tmp_path / "x.pt")
    whole = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "y.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"y\.pt"):
        open_weights(tmp_path / "y.pt")
    with zipfile.ZipFile(tmp_path / "z.pt", "w") as archive:
        archive.writestr("note", "nothing")
    with pytest.raises(InputError, match="cannot be read as a file of PyTorch"):
        open_weights(tmp_path / "z.pt")
