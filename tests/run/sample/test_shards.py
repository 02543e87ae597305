"""Samples in shards: the same ones as in one file, resumed where they stopped, by any processes."""

import json
import shutil
import time
import types

import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.conditions import ClassIds
from fmjax.data.codecs import Vectors
from fmjax.errors import InputError
from fmjax.factory import DataSpec, Recipe, make_experiment
from fmjax.folders import lock_folder
from fmjax.run.restore import LATEST, TrainedFlow, Weights
from fmjax.run.sample import to_disk
from fmjax.run.sample.files import SampleFiles, first_samples
from fmjax.run.sample.request import Request
from fmjax.run.sample.sampler import draw_batches
from fmjax.run.sample.shards import by_shard, share_out
from fmjax.run.sample.to_disk import sample
from fmjax.run.workdir import load_record
from fmjax.samplers import solver_spec
from fmjax.samplers.solution import Solution
from fmjax.training.mesh import make_mesh
from tests.run.conftest import small_config
from tests.run.forked import finish, free_port

HEUN = Recipe(solver_spec("heun", 3))
REQUEST = Request(23, (0, 1), (1.5,), seed=4)


def read(out):
    """The samples and the labels of all files, in order."""
    files = [dict(np.load(path)) for path in sorted(out.glob("samples*.npz"))]
    return [np.concatenate([file[name] for file in files]) for name in ("samples", "labels")]


def draw(trained, out, request=REQUEST, weights=LATEST, **changes):
    sizes = {"batch_size": 8, "shard_size": 8}
    return sample(trained, out, request, HEUN, weights, **sizes | changes)


def names(out):
    return sorted(path.name for path in out.iterdir() if path.name != ".lock")


def stamps(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("samples*")}


@pytest.fixture(scope="module")
def shards(trained, tmp_path_factory):
    """23 samples in shards of 8, to be read only."""
    out = tmp_path_factory.mktemp("shards")
    assert draw(trained, out).drawn == 23
    return out


@pytest.fixture
def own(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "own")


@pytest.mark.slow
def test_shards_hold_the_samples_of_one_file(trained, shards, tmp_path):
    assert names(shards) == [
        "grid.png",
        *(f"samples-0000{k}-of-00003.npz" for k in range(3)),
        "samples.json",
    ]
    assert [len(np.load(shards / name)["labels"]) for name in names(shards)[1:4]] == [8, 8, 7]
    draw(trained, tmp_path, shard_size=0)
    for one, other in zip(read(shards), read(tmp_path), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert (shards / "grid.png").read_bytes() == (tmp_path / "grid.png").read_bytes()
    manifest = json.loads((shards / "samples.json").read_text())
    assert {key: manifest[key] for key in ("num", "shard_size", "seed", "labels", "w", "step")} == {
        "num": 23,
        "shard_size": 8,
        "seed": 4,
        "labels": [0, 1],
        "w": [1.5],
        "step": 12,
    }
    assert manifest["versions"].keys() >= {"python", "jax"}


@pytest.mark.slow
def test_the_size_of_shards_and_batches_changes_nothing(trained, shards, tmp_path):
    for size, batch in ((5, 5), (23, 7), (100, 23)):
        out = tmp_path / f"{size}"
        draw(trained, out, shard_size=size, batch_size=batch)
        samples, labels = read(out)
        np.testing.assert_allclose(samples, read(shards)[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(labels, read(shards)[1])


def test_a_job_goes_on_where_it_was_stopped(trained, shards, own):
    """Half a shard without its name, as a kill leaves it, is not taken for one."""
    missing = own / "samples-00001-of-00003.npz"
    half = missing.read_bytes()[:100]
    missing.unlink()
    (own / ".fmjax-0123.tmp").write_bytes(half)
    before = stamps(own)
    result = draw(trained, own)
    assert (result.drawn, result.nfe) == (8, 6)
    assert names(own) == names(shards)
    kept = {k: v for k, v in stamps(own).items() if k != missing.name}
    assert kept.items() <= before.items()
    for name in names(shards)[1:4]:
        assert (own / name).read_bytes() == (shards / name).read_bytes()
    assert 0 < result.seconds < 600
    finished = draw(trained, own)
    assert (finished.drawn, finished.nfe, finished.calls, finished.compile_seconds) == (0, 0, 0, 0)


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    return content[:200] + bytes([content[200] ^ 1]) + content[201:]


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [lambda content: b"", cut, flip])
def test_a_damaged_shard_is_drawn_again_and_said(trained, shards, own, capsys, damaged):
    path = own / "samples-00001-of-00003.npz"
    path.write_bytes(damaged(path.read_bytes()))
    assert draw(trained, own).drawn == 8
    assert f"{path} is damaged: it is made again." in capsys.readouterr().out
    assert path.read_bytes() == (shards / path.name).read_bytes()


def test_two_processes_do_not_share_a_folder(trained, own):
    lock = lock_folder(own, "--out")
    with pytest.raises(InputError, match=r"another process is at work in .* another --out"):
        draw(trained, own)
    lock.close()
    assert draw(trained, own).drawn == 0


def test_nothing_is_written_through_a_link(trained, own, tmp_path):
    outside = tmp_path / "outside"
    (own / "grid.png").rename(outside)
    (own / "grid.png").symlink_to(outside)
    before = outside.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"grid.png is a link"):
            draw(trained, own, overwrite=overwrite)
    assert outside.read_bytes() == before


def test_more_files_than_a_folder_takes_are_refused_at_once(trained, tmp_path):
    with pytest.raises(InputError, match=r"more than 100000 files; write --shard_size=2000"):
        draw(trained, tmp_path, Request(2 * 10**8), shard_size=1)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"request": REQUEST._replace(seed=5)}, "seed=4 .asked: 5."),
        ({"request": REQUEST._replace(num=24)}, "num=23 .asked: 24."),
        ({"request": REQUEST._replace(labels=(1,))}, r"labels=\[0, 1\] .asked: \[1\]."),
        ({"request": REQUEST._replace(w=(2.0,))}, "w="),
        ({"shard_size": 9}, "shard_size=8 .asked: 9."),
        ({"weights": Weights("4")}, "step=12 .asked: 4., parameters="),
        ({"weights": Weights(ema=False)}, "parameters="),
    ],
)
def test_another_request_is_refused_and_its_key_is_named(trained, own, changes, key):
    before = stamps(own)
    with pytest.raises(InputError, match=f"holds other samples, with {key}.*another --out"):
        draw(trained, own, **changes)
    assert stamps(own) == before


def test_another_solver_is_refused(trained, own):
    with pytest.raises(InputError, match=r"solver=.*'steps': 3.*'steps': 4"):
        sample(trained, own, REQUEST, Recipe(solver_spec("heun", 4)), shard_size=8)


@pytest.mark.slow
def test_shards_and_one_file_do_not_mix_and_overwrite_leaves_nothing_old(trained, own):
    with pytest.raises(InputError, match=r"already has samples.json"):
        draw(trained, own, shard_size=0)
    (own / ".fmjax-0123.tmp").write_bytes(b"half a shard")
    draw(trained, own, shard_size=12, overwrite=True)
    shards = ["samples-00000-of-00002.npz", "samples-00001-of-00002.npz"]
    assert names(own) == ["grid.png", *shards, "samples.json"]
    draw(trained, own, shard_size=0, overwrite=True)
    assert names(own) == ["grid.png", "samples.npz"]
    with pytest.raises(InputError, match=r"already has samples.npz"):
        draw(trained, own)


def test_shards_of_an_unknown_request_are_refused(trained, own):
    (own / "samples.json").write_text("{")
    with pytest.raises(InputError, match=r"samples.json cannot be read"):
        draw(trained, own)
    for name in ("samples.json", "grid.png"):
        (own / name).unlink()
    with pytest.raises(InputError, match=r"already has samples-00000-of-00003.npz"):
        draw(trained, own)


def test_a_disk_too_small_for_what_is_missing_is_told_first(trained, own, monkeypatch):
    spec = load_record(trained).spec
    target = SampleFiles(own, 23, 8)
    needed = 8 * (2 * 4 + 4)  # two coordinates and a label
    (own / "samples-00001-of-00003.npz").unlink()
    for free in (needed, needed - 1):
        usage = shutil._ntuple_diskusage(10**6, 10**6 - free, free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        if free == needed:
            target.claim(spec).close()
    with pytest.raises(InputError, match=r"MB free, and the samples need .* --out"):
        target.claim(spec).close()
    monkeypatch.setattr(to_disk, "compiled_for", None)  # nothing is compiled
    with pytest.raises(InputError, match=r"MB free"):
        draw(trained, own)


def test_sizes_that_do_not_serve_are_refused(trained, tmp_path, monkeypatch):
    with pytest.raises(
        InputError, match=r"shard size must be a whole number of at least 0; got -1. For one"
    ):
        draw(trained, tmp_path / "out", shard_size=-1)
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(
        InputError, match=r"2 processes cannot write into one file.*--shard_size=32"
    ):
        draw(trained, tmp_path / "out", shard_size=0)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_not_all_processes_see_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"1 of 1 processes do not see .*samples.json"):
        share_out([tmp_path / "a"], tmp_path / "samples.json", lambda k: True)


def test_one_process_does_not_number_its_progress(capsys, monkeypatch):
    monkeypatch.setattr("fmjax.progress_bar.SECONDS", 0.0)
    part = types.SimpleNamespace(nfe=np.zeros(2))
    for processes in (1, 2):
        monkeypatch.setattr("jax.process_count", lambda n=processes: n)
        for parts in by_shard(iter([part, part]), [range(2), range(2, 4)], 2, "sample"):
            assert list(parts) == [part]
        shown = capsys.readouterr().err
        assert "4 of 4 samples" in shown
        assert ("process 0 of 2" in shown) == (processes == 2)
        assert "process 0 of 1" not in shown


@pytest.mark.slow
def test_a_failed_solve_leaves_no_shard(trained, tmp_path):
    spec = solver_spec("tsit5", rtol=1e-7, atol=1e-7, max_steps=2)
    with pytest.raises(FloatingPointError, match=r"did not reach t = 1"):
        sample(trained, tmp_path, Request(5, (0,)), Recipe(spec), shard_size=2)
    assert names(tmp_path) == ["samples.json"]


def test_the_next_shard_is_computed_while_one_is_written(tmp_path):
    """The first batch of a shard is asked for before the last one of the shard before is given."""
    experiment = make_experiment(small_config(), DataSpec(Vectors(2), ClassIds(2)))
    flow = TrainedFlow(tmp_path, experiment, 0, {}, make_mesh())
    asked = []

    def sample_fn(params, key, index, labels, w):
        asked.append(int(index[0]))
        n = len(index)
        whole = {"nfe": jnp.ones(n, int), "success": jnp.ones(n, bool), "t_end": jnp.ones(n)}
        fields = dict.fromkeys(Solution._fields) | whole
        return Solution(**fields | {"x1": jnp.asarray(index)})

    spans = [range(10, 15), range(20, 22)]
    batches = draw_batches(sample_fn, flow, Request(30, (0,), (1.0,)), 3, spans)
    given = []
    for batch, ahead in zip(batches, ([10, 13], [10, 13, 20], [10, 13, 20]), strict=True):
        assert asked == ahead
        given.append(batch.samples.tolist())
    assert given == [[10, 11, 12], [13, 14], [20, 21]]


@pytest.mark.slow
def test_the_picture_shows_the_first_samples_of_all_shards(trained, shards, tmp_path):
    """Points of 23 samples in one file and in three shards make the same picture."""
    draw(trained, tmp_path, shard_size=0)
    assert (shards / "grid.png").read_bytes() == (tmp_path / "grid.png").read_bytes()
    few = SampleFiles(shards, 23, 8)
    np.testing.assert_array_equal(first_samples(few, 10), read(shards)[0][:10])


# Processes of their own.


@pytest.fixture
def start(commands):
    """Starts sample.py for the request above."""
    request = ["--num=23", "--labels=0,1", "--guidance=1.5", "--seed=4", "--steps=3"]
    request += ["--batch_size=8", "--shard_size=8"]

    def run(workdir, out, *flags, **how):
        where = [f"--workdir={workdir}", f"--out={out}"]
        return commands.start("sample.py", *where, *request, *flags, **how)

    return run


def assert_same_files(out, shards):
    assert names(out) == names(shards)
    for one, other in zip(read(out), read(shards), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.nightly
def test_a_killed_job_ends_as_one_that_was_not(trained, start, tmp_path):
    out, flags = tmp_path / "killed", ("--num=800", "--batch_size=2", "--shard_size=4")
    process = start(trained, out, *flags)
    deadline = time.monotonic() + 120
    while not (out / "samples-00001-of-00200.npz").exists():
        assert process.poll() is None, process.output
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    left = len(list(out.glob("samples-*.npz")))
    assert 2 <= left < 200
    request = REQUEST._replace(num=800)
    sizes = {"batch_size": 2, "shard_size": 4}
    result = draw(trained, out, request, **sizes)
    assert result.drawn == 800 - 4 * left
    draw(trained, tmp_path / "whole", request, **sizes)
    assert_same_files(out, tmp_path / "whole")


@pytest.mark.nightly
def test_two_processes_write_the_files_of_one(trained, shards, start, tmp_path):
    flags = [
        "--distributed=explicit",
        f"--coordinator=127.0.0.1:{free_port()}",
        "--num_processes=2",
    ]
    outputs = finish(*[start(trained, tmp_path, *flags, f"--process_id={i}") for i in range(2)])
    assert_same_files(tmp_path, shards)
    assert "23 samples, 3 of 3 shards to go" in outputs[0]
    assert "samples per second" in outputs[0]
    assert "samples per second" not in outputs[1]


@pytest.mark.nightly
def test_images_are_the_same_on_one_device_and_on_four(train_small, tmp_path, start):
    """To a grey level; to the bit where each device draws as many at a time."""
    workdir = train_small(data__name="digits", train__steps=4)
    four, other = tmp_path / "four", tmp_path / "other"
    sizes = "--num=64", "--batch_size=32", "--shard_size=32"
    finish(start(workdir, four, *sizes, devices=4))
    request = REQUEST._replace(num=64)
    draw(workdir, tmp_path / "one", request, batch_size=8, shard_size=32)
    assert_same_files(four, tmp_path / "one")
    draw(workdir, other, request, batch_size=32, shard_size=16)
    apart = np.abs(read(other)[0].astype(int) - read(four)[0].astype(int))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3
