"""What is logged of the steps, and what stops a run."""

import errno
import itertools
import os
import struct
import sys
import types

import numpy as np
import pytest

from fmjax.plots import save_png
from fmjax.roofline.chips import CHIPS
from fmjax.training.events import Events
from fmjax.training.progress import Progress, duration
from fmjax.training.step_metrics import StepMetrics, peak_memory


class Lines:
    """In the place of the progress: it keeps what it is given."""

    def __init__(self):
        self.lines, self.estimated = [], []

    def write(self, step, values):
        self.lines.append((step, values))

    def estimate(self, *estimated):
        self.estimated.append(estimated)


def told(calls, log_every=4, batch_size=8, flops=None, steps=1):
    """The lines after some calls of `steps` steps each; a call is a dict of their metrics."""
    log = Lines()
    meter = StepMetrics(batch_size, log_every, log, flops)
    for k, metrics in enumerate(calls, start=1):
        meter.add(k * steps, {name: np.float32(x) for name, x in metrics.items()}, waited=0.0)
    meter.drain()
    return log.lines


def test_several_steps_in_a_call_are_read_one_by_one():
    losses = np.arange(8.0)
    one = told([{"loss": loss} for loss in losses])
    four = told([{"loss": losses[:4]}, {"loss": losses[4:]}], steps=4)
    assert [(step, line["loss"]) for step, line in one] == [(4, 1.5), (8, 5.5)]
    assert [(step, line["loss"]) for step, line in four] == [(4, 1.5), (8, 5.5)]
    with pytest.raises(FloatingPointError, match="the loss is nan at step 6"):
        told([{"loss": losses[:4]}, {"loss": [4.0, np.nan, 6.0, 7.0]}], steps=4)


def test_steps_left_out_are_counted_and_not_averaged():
    def step(loss, norm, skipped):
        return {"loss": loss, "grad_norm": norm, "skipped": skipped}

    calls = [step(1.0, 1.0, 0), step(9.0, np.inf, 1), step(2.0, 1.0, 0), step(3.0, 1.0, 0)]
    ((_, line),) = told(calls)
    assert (line["loss"], line["grad_norm"], line["skipped"]) == (2.0, 1.0, 1)
    with pytest.raises(FloatingPointError, match="3 of the 4 steps up to 4 were left out"):
        told([step(1.0, 1.0, 0)] + 3 * [step(np.nan, np.nan, 1)])
    with pytest.raises(FloatingPointError, match="the grad_norm is inf at step 1"):
        told([step(1.0, np.inf, 0)])


def test_the_time_that_is_left_is_estimated_once_from_the_first_steps(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    log = Lines()
    meter = StepMetrics(8, 1, log)
    for step in range(2, 20, 2):
        now[0] += 7.0 if step == 2 else 1.0  # the first call warms up
        meter.add(step, {"loss": np.ones(2)}, waited=0.0)
        with meter.paused():  # of which nothing is counted
            now[0] += 50.0 if step == 4 else 0.0
    meter.drain()
    assert log.estimated == [(8, 0.5, 6)]  # three calls of two steps, a second each


def test_an_estimate_names_what_it_is_made_of(capsys):
    with Progress(None, 0, 3000) as log:
        log.estimate(10, 0.32, 8)
        log.estimate(2995, 0.32, 8)  # hardly anything is left
    said = "about 16 min for the 2990 steps that are left, estimated from the first 8; what is done"
    assert capsys.readouterr().err.count(said) == 1


def test_utilisation_is_operations_over_the_peak(monkeypatch):
    chip = CHIPS["NVIDIA H200"]
    monkeypatch.setattr("fmjax.training.step_metrics.chip_of", lambda device: chip)
    lines = told([{"loss": 1.0}] * 8, flops=10**9)
    speed = lines[-1][1]
    assert speed["mfu"] == pytest.approx(speed["examples_per_second"] * 1e9 / chip.flops)
    monkeypatch.setattr("fmjax.training.step_metrics.chip_of", lambda device: None)
    assert "mfu" not in told([{"loss": 1.0}] * 8, flops=10**9)[-1][1]


@pytest.mark.parametrize("name", [r"metrics\.jsonl", r"events\.out.*"])
def test_a_full_disk_is_said_with_the_file_it_hit(tmp_path, monkeypatch, name):
    log, write = Progress(tmp_path, 0, 10), os.write
    full = (log._file if "metrics" in name else log._events._file)._handle

    def no_space(handle, content):
        if handle == full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, content)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", no_space)
        with pytest.raises(OSError, match=rf"{name} could not be written: No space left"):
            log.write(1, {"loss": 1.0})
    log.write(2, {"loss": 1.0})
    log.close()


def events_in(path):
    from tensorboardX.proto.event_pb2 import Event

    content, events = path.read_bytes(), []
    while content:  # length, its checksum, the event, its checksum
        (length,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def test_tensorboard_reads_what_is_logged(tmp_path):
    with Progress(tmp_path, 4, 10) as log:
        log.write(5, {"loss": 1.5, "lr": 0.25})
    (path,) = (tmp_path / "tensorboard").iterdir()
    version, began, scalars = events_in(path)
    assert version.file_version == "brain.Event:2"
    assert (began.step, began.HasField("session_log")) == (5, True)
    assert scalars.step == 5
    assert {v.tag: v.simple_value for v in scalars.summary.value} == {"loss": 1.5, "lr": 0.25}


def test_tensorboard_reads_texts_and_pictures(tmp_path):
    picture = tmp_path / "grid.png"
    save_png(np.zeros((5, 7, 3), np.uint8), picture)
    events = Events(tmp_path / "new" / "folder", 2)
    events.write_text(3, "configuration", "train: steps: 5")
    events.write_picture(3, "samples", picture)
    events.close()
    (path,) = (tmp_path / "new" / "folder").iterdir()
    text, image = (event.summary.value[0] for event in events_in(path)[2:])
    assert text.tag.startswith("configuration")
    assert text.tensor.string_val[0] == b"train: steps: 5"
    assert (image.tag, image.image.height, image.image.width) == ("samples", 5, 7)
    assert image.image.encoded_image_string == picture.read_bytes()


def test_what_is_no_terminal_gets_a_line_for_each_report(tmp_path, monkeypatch):
    clock = iter([10.0, 12.0, 14.0, 16.0])
    monkeypatch.setattr("fmjax.training.progress.time.perf_counter", lambda: next(clock))
    with (tmp_path / "log").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress(None, 0, 100) as log:
            log.advance(1)  # the first call may compile: the pace is that of the others
            log.advance(9)
            log.write(10, {"loss": 1.5, "examples_per_second": 64.2, "lr": 0.1})
            log.say("a sentence")
            log.advance(90)
            log.write(100, {"val_loss": 0.25})
    assert (tmp_path / "log").read_text().splitlines() == [
        "step 10/100: loss 1.5000, ex/s 64; 20 s left",
        "a sentence",
        "step 100/100: held-out loss 0.2500",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(89, "89 s"), (90, "2 min"), (5340, "89 min"), (9000, "2 h 30 min")]
)
def test_a_duration_is_written_for_a_person(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "line",
    [b"{}", b"[]", b'{"step": null}', b"\xff", b'{"step": 2', b"[" * 100_000, b'{"step":true}'],
)
def test_a_damaged_line_of_metrics_ends_what_is_kept(tmp_path, line):
    good = b'{"step": 1}\n'
    (tmp_path / "metrics.jsonl").write_bytes(good + line + b"\n" + good)
    Progress(tmp_path, 5, 10).close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == good


def test_examples_per_second_grow_with_the_batch(monkeypatch):
    def speed(batch_size):
        ticks = itertools.count()
        clock = types.SimpleNamespace(perf_counter=lambda: next(ticks))
        monkeypatch.setattr("fmjax.training.step_metrics.time", clock)
        return [line["examples_per_second"] for _, line in told([{"loss": 1.0}] * 8, 4, batch_size)]

    np.testing.assert_allclose(speed(16), 2 * np.array(speed(8)))


def test_memory_is_told_in_gigabytes():
    (told_of,) = peak_memory().values()
    assert 0.05 < told_of < 1000
