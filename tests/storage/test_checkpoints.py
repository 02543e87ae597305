import contextlib
import gc
import json
import shutil
import sys
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.storage.checkpoints import Checkpoints


def state(k):
    return {
        "step": jnp.int32(k),
        "params": {
            "a": jax.random.normal(jax.random.key(k), (50, 60)),
            "b": jnp.ones(3, jnp.bfloat16),
        },
        "opt_state": (None, {"count": jnp.int32(k)}, ()),
    }


@pytest.fixture
def target():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state(0)
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Four checkpoints, the newest two and the best of which remain."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    checkpoints = Checkpoints(folder, keep=2)
    for k, loss in ((10, 0.5), (20, 0.1), (30, 0.4), (40, 0.3), (50, 0.6)):
        checkpoints.save(k, state(k), loss)
    checkpoints.close()
    return folder


@pytest.fixture
def copied(written, tmp_path):
    shutil.copytree(written.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "checkpoints"


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_the_newest_and_the_best_are_kept(written):
    checkpoints = Checkpoints(written, read_only=True)
    assert checkpoints.steps() == [20, 40, 50]
    assert checkpoints.best_step() == 20
    checkpoints.close()


def test_a_restored_state_is_the_saved_one_to_the_bit(written, target):
    checkpoints = Checkpoints(written, read_only=True)
    for k in (20, 40, 50):
        assert_equal(checkpoints.restore(k, target), state(k))
    assert_equal(
        checkpoints.restore(40, {"params": target["params"]}), {"params": state(40)["params"]}
    )
    checkpoints.close()


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(folder):
    path = largest(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(folder):
    path = largest(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def delete_the_arrays(folder):
    largest(folder).unlink()


def empty_every_file(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def break_the_metrics(folder):
    (folder / "metrics" / "metrics").write_text('{"val_')


def nest_the_metadata(folder):
    (folder / "_CHECKPOINT_METADATA").write_text("[" * 100_000)


def break_a_name_in_the_check(folder):
    path = folder / "check" / "metadata"
    path.write_text(path.read_text().replace("params", "qarams"))


def change(path, name, value):
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


def number_the_performance(folder):
    change(folder / "_CHECKPOINT_METADATA", "performance_metrics", 5)


def list_the_handlers(folder):
    change(folder / "_CHECKPOINT_METADATA", "item_handlers", [1])


def date_it_in_words(folder):
    change(folder / "_CHECKPOINT_METADATA", "init_timestamp_nsecs", "today")


def list_the_metadata(folder):
    (folder / "_CHECKPOINT_METADATA").write_text("[1]")


def leave_out_arrays(folder):
    path = folder / "state" / "_METADATA"
    found = path.read_text()
    assert '"skip_deserialize": false' in found
    path.write_text(found.replace('"skip_deserialize": false', '"skip_deserialize": true'))


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        *(truncate, flip_a_bit, delete_the_arrays, empty_every_file),
        *(break_the_metrics, nest_the_metadata, break_a_name_in_the_check),
        *(
            number_the_performance,
            list_the_handlers,
            date_it_in_words,
            leave_out_arrays,
            list_the_metadata,
        ),
    ],
)
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(copied, target, damage):
    damage(copied / "50")
    said = []
    checkpoints = Checkpoints(copied, keep=2, notify=said.append)
    step, restored = checkpoints.restore_latest(target)
    assert step == 40
    assert_equal(restored, state(40))
    assert len(said) == 1
    assert "step 50" in said[0]
    assert (copied.parent / "corrupt" / "50.0").is_dir()
    # The run goes on and writes that step again.
    checkpoints.save(50, state(50), 0.05)
    checkpoints.wait()
    assert checkpoints.best_step() == 50
    assert_equal(checkpoints.restore(50, target), state(50))
    checkpoints.close()


@pytest.mark.slow
def test_looking_on_moves_nothing(copied, target):
    truncate(copied / "50")
    before = sorted(p.relative_to(copied) for p in copied.rglob("*"))
    checkpoints = Checkpoints(copied, read_only=True, notify=lambda text: None)
    assert checkpoints.restore_latest(target)[0] == 40
    checkpoints.close()
    assert sorted(p.relative_to(copied) for p in copied.rglob("*")) == before


@types.coroutine
def unfinished_read():
    try:
        yield
    except GeneratorExit as end:
        raise ValueError("closed while it was reading") from end


async def read_not_begun():
    pass


@pytest.mark.slow
@pytest.mark.parametrize("in_a_cycle", [False, True])
def test_a_failed_read_leaves_no_traceback_for_later(copied, target, monkeypatch, in_a_cycle):
    def restore(*args, **how):
        held = [unfinished_read(), read_not_begun()]
        held[0].send(None)
        if in_a_cycle:
            held.append(held)
        raise OSError("damaged")

    later = []
    monkeypatch.setattr(sys, "unraisablehook", later.append)
    checkpoints = Checkpoints(copied, read_only=True)
    monkeypatch.setattr(checkpoints._manager, "restore", restore)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(InputError, match="the checkpoint of step 50 cannot be read: damaged"):
            checkpoints.restore(50, target)
        gc.collect()
    assert not later, later
    assert not warned, warned
    checkpoints.close()


@pytest.mark.slow
def test_when_none_can_be_read_it_says_so(copied, target):
    for step in ("20", "40", "50"):
        truncate(copied / step)
    for _ in range(2):  # again and again: nothing is moved, so that no run starts from 0 instead
        checkpoints = Checkpoints(copied, notify=lambda text: None)
        with pytest.raises(InputError, match="none of the checkpoints"):
            checkpoints.restore_latest(target)
        assert checkpoints.steps() == [20, 40, 50]
        checkpoints.close()


def test_what_a_kill_left_half_written_is_passed_over(copied, target):
    half = copied / "60.orbax-checkpoint-tmp" / "metrics"
    half.mkdir(parents=True)
    (half / "metrics").write_text("")
    for read_only in (True, False):
        checkpoints = Checkpoints(copied, read_only=read_only)
        assert checkpoints.restore_latest(target)[0] == 50
        checkpoints.close()


def test_one_process_of_several_that_fails_does_not_wait_for_the_others(tmp_path, monkeypatch):
    checkpoints, closed = Checkpoints(tmp_path / "checkpoints"), []
    monkeypatch.setattr(checkpoints._manager, "close", lambda: closed.append(True))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(OSError, match="lost"), contextlib.closing(checkpoints):
        raise OSError("lost")
    assert not closed
    checkpoints.close()
    assert closed


def test_a_step_that_does_not_exist_is_named_with_those_that_do(written, target):
    checkpoints = Checkpoints(written, read_only=True)
    with pytest.raises(InputError, match=r"no checkpoint of step 7 .*\[20, 40, 50\]"):
        checkpoints.restore(7, target)
    checkpoints.close()


def test_metrics_that_cannot_be_listed_are_named_when_looking_on(copied):
    break_the_metrics(copied / "50")
    with pytest.raises(InputError, match="50"):
        Checkpoints(copied, read_only=True)


def test_an_empty_folder_has_nothing_to_restore(tmp_path, target):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.restore_latest(target) is None
    assert checkpoints.best_step() is None
    checkpoints.close()


ELSEWHERE = """
import sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from fmjax.storage.checkpoints import Checkpoints
from fmjax.training.mesh import make_mesh

folder, mode = sys.argv[1:]
sharding = NamedSharding(make_mesh(), P("data" if mode == "save" else None))
x = np.arange(64, dtype=np.float32).reshape(8, 8)
checkpoints = Checkpoints(folder)
if mode == "save":
    checkpoints.save(1, {"params": jax.device_put(x, sharding)}, 0.0)
    checkpoints.wait()
else:
    target = {"params": jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)}
    step, restored = checkpoints.restore_latest(target)
    np.testing.assert_array_equal(restored["params"], x)
    print("devices", len(restored["params"].sharding.device_set))
checkpoints.close()
"""


@pytest.mark.slow
def test_what_8_devices_wrote_in_shards_2_devices_read(run_python, tmp_path):
    folder = str(tmp_path / "checkpoints")
    run_python(ELSEWHERE, folder, "save", devices=8)
    assert "devices 2" in run_python(ELSEWHERE, folder, "restore", devices=2)
    check = json.loads(
        next((tmp_path / "checkpoints" / "1" / "check").glob("metadata")).read_text()
    )
    assert check.keys() == {"params"}


FULL = """
import resource, signal, sys
from pathlib import Path
import jax.numpy as jnp
from fmjax.storage.checkpoints import Checkpoints

checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(1, {"params": jnp.ones(10)}, 0.5)
checkpoints.wait()
if sys.argv[2] == "full":  # from here on no file may grow past 50 kB
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
else:
    folder = Path(sys.argv[1])
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("not a folder")
try:
    import jax
    checkpoints.save(2, {"params": jax.random.normal(jax.random.key(0), (200, 200))}, 0.4)
    checkpoints.wait()
except OSError as error:
    print("OSError:", error)
checkpoints.close()
if sys.argv[2] != "full":
    folder.unlink()
    folder.with_name("elsewhere").rename(folder)
print(Checkpoints(sys.argv[1]).steps())
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["full", "gone"])
def test_a_checkpoint_that_cannot_be_written_is_an_error_and_spares_the_others(
    run_python, tmp_path, how
):
    # The time is part of it: orbax's threads may wait 300 s for a folder that is never made.
    folder = str(tmp_path / "checkpoints")
    lines = run_python(FULL, folder, how, devices=1, timeout=200).splitlines()
    assert lines[-2].startswith("OSError: a checkpoint could not be written to")
    assert lines[-2].endswith("Those before it are whole.")
    assert lines[-1] == "[1]"
