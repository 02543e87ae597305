"""Parameters out to a safetensors file and in again, bit by bit, and never to another model."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fmjax.errors import InputError
from fmjax.factory import Recipe, make_experiment
from fmjax.run.restore import load_params, open_run, restore_flow
from fmjax.run.sample.request import Request
from fmjax.run.sample.to_disk import sample
from fmjax.run.weights.export import export_weights
from fmjax.run.weights.initial import Initial, check_initial, initial_params
from fmjax.run.workdir import load_record
from fmjax.samplers import solver_spec
from fmjax.storage.fingerprint import fingerprint
from fmjax.storage.safetensors import named, read_header
from fmjax.training.mesh import make_mesh
from tests.run.conftest import small_config, write_record

NAMES = ("ema.safetensors", "params.safetensors")


def params_of(workdir, ema=True, checkpoint="latest"):
    return load_params(workdir, open_run(workdir), checkpoint, ema, make_mesh())[1]


def assert_same(one, other):
    one, other = named(one), named(other)
    assert list(one) == list(other)
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, other[name], err_msg=name)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The averaged parameters of the trained run, to be read only."""
    out = tmp_path_factory.mktemp("exported") / "ema"
    assert f"{out / 'ema.safetensors'}: step 12, " in export_weights(trained, out)
    return out


@pytest.fixture
def own(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "own")


@pytest.mark.slow
def test_what_is_read_is_what_was_trained_to_the_bit(trained, exported):
    assert sorted(path.name for path in exported.glob("[!.]*")) == [NAMES[0], "run.json"]
    params = params_of(trained)
    assert_same(params_of(exported), params)
    assert load_record(exported) == load_record(trained)
    plain = load_file(exported / NAMES[0])  # any program's reader
    assert plain.keys() == named(params).keys() >= {"out.kernel", "out.bias"}
    for name, leaf in named(params).items():
        assert plain[name].dtype == np.float32
        np.testing.assert_array_equal(plain[name], leaf)
    usual = (exported / "run.json").stat().st_mode
    assert (exported / NAMES[0]).stat().st_mode == usual


def test_the_parameters_themselves_have_a_file_of_their_own(trained, exported, tmp_path):
    assert "step 8, " in export_weights(trained, tmp_path, ema=False, checkpoint="8")
    assert_same(params_of(tmp_path, ema=False), params_of(trained, False, "8"))
    with pytest.raises(InputError, match=r"params.safetensors alone; write --ema=False"):
        params_of(tmp_path)
    with pytest.raises(InputError, match=r"ema.safetensors alone; write --ema=True"):
        params_of(exported, ema=False)
    export_weights(trained, tmp_path)  # the same run, the other file: beside it
    assert_same(params_of(tmp_path), params_of(trained))


def test_a_checkpoint_is_asked_of_the_run_it_lies_in(exported, trained, tmp_path):
    assert_same(params_of(exported, checkpoint="12"), params_of(exported))
    for name in ("best", "4"):
        with pytest.raises(InputError, match=f"of step 12 alone, not those of '{name}'"):
            params_of(exported, checkpoint=name)
    shutil.copy(trained / "run.json", tmp_path)
    with pytest.raises(InputError, match="has no checkpoint yet"):
        params_of(tmp_path)


@pytest.mark.slow
def test_samples_of_the_folder_are_those_of_the_run(trained, exported, tmp_path):
    for workdir, out in ((trained, "run"), (exported, "folder")):
        sample(workdir, tmp_path / out, Request(9, (0, 1)), Recipe(solver_spec("heun", 3)))
    one, other = (np.load(tmp_path / out / "samples.npz")["samples"] for out in ("run", "folder"))
    np.testing.assert_array_equal(one, other)


def test_reflow_takes_the_folder_for_the_run(trained, exported):
    one, other = (
        restore_flow(folder, open_run(folder), local=True) for folder in (trained, exported)
    )
    assert one.step == other.step
    assert int(fingerprint(one.params)) == int(fingerprint(other.params))
    assert_same(one.params, other.params)


@pytest.mark.slow
def test_bfloat16_rounds_to_the_nearest_and_halves_the_file(trained, exported, tmp_path):
    export_weights(trained, tmp_path, dtype="bfloat16")
    rounded, plain = named(params_of(tmp_path)), load_file(tmp_path / NAMES[0])
    changed = 0
    for name, leaf in named(params_of(trained)).items():
        leaf = np.asarray(leaf)
        assert rounded[name].dtype == np.float32
        assert plain[name].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(rounded[name], leaf.astype(ml_dtypes.bfloat16))
        assert np.all(np.abs(rounded[name] - leaf) <= np.abs(leaf) / 256)
        changed += np.sum(np.asarray(rounded[name]) != leaf)
    assert changed > 0
    bytes_ = [sum(x.nbytes for x in load_file(f / NAMES[0]).values()) for f in (exported, tmp_path)]
    assert bytes_[0] == 2 * bytes_[1]


def test_another_model_does_not_begin_with_them(trained, exported):
    spec = load_record(trained).spec
    for changes, leaf in (
        ({"model__width": 17}, "has shape"),
        ({"model__depth": 2}, "does not exist there"),
        ({"labels__conditional": False}, "does not exist in this one"),
    ):
        other = make_experiment(small_config(**changes), spec)
        for source in (trained, exported, exported / NAMES[0]):
            with pytest.raises(InputError, match=rf"parameters of another model: .*{leaf}"):
                check_initial(Initial(source), other)


def test_a_run_begins_with_a_run_a_folder_or_a_file(trained, exported, tmp_path):
    experiment, mesh = open_run(trained), make_mesh()
    ema = params_of(trained)
    for source in (trained, exported, exported / NAMES[0]):
        assert_same(initial_params(Initial(source), experiment, mesh), ema)
    foreign = {name: np.asarray(leaf, np.float64) for name, leaf in named(ema).items()}
    save_file(foreign, tmp_path / "foreign.safetensors")
    assert_same(initial_params(Initial(tmp_path / "foreign.safetensors"), experiment, mesh), ema)
    export_weights(trained, tmp_path / "raw", ema=False)
    assert_same(
        initial_params(Initial(tmp_path / "raw"), experiment, mesh), params_of(trained, False)
    )


def test_nothing_to_begin_with_is_named(trained, tmp_path):
    experiment = open_run(trained)
    with pytest.raises(InputError, match="holds no run"):
        check_initial(Initial(tmp_path), experiment)
    with pytest.raises(InputError, match=r"none.safetensors cannot be read .*No such file"):
        check_initial(Initial(tmp_path / "none.safetensors"), experiment)
    save_file({"a": np.arange(3)}, tmp_path / "whole.safetensors")
    with pytest.raises(InputError, match="holds a as I64; parameters are floating-point"):
        check_initial(Initial(tmp_path / "whole.safetensors"), experiment)
    shutil.copy(trained / "run.json", tmp_path)
    with pytest.raises(InputError, match="has no checkpoint yet"):
        check_initial(Initial(tmp_path), experiment)


def test_a_damaged_file_is_noticed(own):
    path = own / NAMES[0]
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-4])
    with pytest.raises(InputError, match="cannot be read as a safetensors file"):
        params_of(own)
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged: its fingerprint differs"):
        params_of(own)


def test_folders_that_do_not_serve_are_refused(trained, exported, own, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="unknown dtype 'int8'"):
        export_weights(trained, tmp_path / "out", dtype="int8")
    with pytest.raises(InputError, match="holds the checkpoints of a run"):
        export_weights(exported, trained)
    with pytest.raises(InputError, match=r"is there already; .*--overwrite"):
        export_weights(trained, own)
    record = json.loads((own / "run.json").read_text())
    record["config"]["train"]["seed"] = 9
    write_record(own, record)
    with pytest.raises(InputError, match="parameters of another run"):
        export_weights(trained, own, ema=False)
    export_weights(trained, own, overwrite=True, checkpoint="4")
    assert_same(params_of(own), params_of(trained, checkpoint="4"))
    assert load_record(own) == load_record(trained)
    full = shutil._ntuple_diskusage(100, 99, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(InputError, match="MB free, and the parameters need"):
        export_weights(trained, tmp_path / "full")


@pytest.mark.parametrize(
    ("key", "value"), [("step", "many"), ("step", "-1"), ("fingerprint", "1.5"), ("step", "9" * 99)]
)
def test_numbers_in_a_header_that_are_none_are_named(own, key, value):
    path = own / NAMES[0]
    header = read_header(path).metadata
    save_file(load_file(path), path, header | {key: value})
    with pytest.raises(InputError, match=f"its {key} must be a whole number"):
        params_of(own)


def test_weights_of_another_network_of_equal_shapes_are_refused(trained, own, tmp_path, capsys):
    path = own / NAMES[0]
    header = read_header(path).metadata
    about = json.loads(header["architecture"])
    assert {"model.time_scale", "loss.prediction", "path.name"} <= about.keys()
    changed = {"architecture": json.dumps(about | {"loss.prediction": "x1"})}
    save_file(load_file(path), path, header | changed)
    with pytest.raises(InputError, match=r"another network, with loss.prediction=x1 \(here: velo"):
        params_of(own)
    for source in (trained, path):
        experiment = make_experiment(small_config(model__time_scale=3.0), load_record(trained).spec)
        with pytest.raises(InputError, match=r"another network, with model.time_scale=100.0"):
            check_initial(Initial(source), experiment)
    del header["architecture"]
    save_file(load_file(path), path, header)
    params_of(own)
    assert "does not say of what network it is" in capsys.readouterr().err


def test_a_record_that_was_changed_is_refused(own):
    path = own / "run.json"
    path.write_text(path.read_text().replace('"velocity"', '"x1"', 1))
    with pytest.raises(InputError, match="changed after it was written"):
        load_record(own)
