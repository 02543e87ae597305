"""A user's own images, timed from the file to the first steps: ``python -m benchmarks.own_data``.

- ``prepare``: images of 32x32x3 a second, from an ``.npz`` and from a folder of PNG files, by
  `fmjax.data.prepare`: checked, encoded, shuffled and written; of the wall clock, and of the
  process's own CPU time, which other work on the machine disturbs less;
- ``reading``: the share of its time that a training on them waits for data, as its log says it, by
  ``configs/images.py``: a DiT of 4.2 million parameters, batches of 64;
- ``statistics``: seconds for the statistics of 10,000 images of 28x28, and to compare as many
  samples with them, by `fmjax.run.evaluate`, in each of ``--features``.

The images are noise, which PNG cannot make smaller: real ones are quicker to write and to read. A
rate is the best of several runs, and the load of the machine before the first is noted: it is one
beside which a figure is to be read.
"""

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import machine
from benchmarks.timing import seconds_of
from configs.images import get_config
from fmjax.data import prepare
from fmjax.run.evaluate.examples import open_examples
from fmjax.run.evaluate.in_features import Asked, measure_in_features, open_real_side
from fmjax.run.train.training import train
from fmjax.training.folder import METRICS

RESULTS = machine.RESULTS / "own_data.json"
PACKAGES = (*machine.PACKAGES, "numpy", "pillow", "tensorflow-datasets")
_CLASSES = 10


def noise(number: int, side: int, channels: int) -> np.ndarray:
    """Images of noise, uint8 (number, side, side, channels)."""
    shape = (number, side, side, channels)
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


def save_folder(folder: Path, images: np.ndarray) -> None:
    """Class folders of PNG files."""
    for k in range(_CLASSES):
        (folder / str(k)).mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / str(i % _CLASSES) / f"{i}.png")


def quietly(run, *arguments) -> tuple[float, float]:
    """Seconds that a call takes, of the wall clock and of the CPU, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cpu = time.process_time()
        return seconds_of(lambda: run(*arguments)), time.process_time() - cpu


def measure_prepare(place: Path, number: int, repeat: int) -> dict[str, dict[str, int]]:
    """Images of 32x32x3 a second, from either source; the sets are left in `place`."""
    images = noise(number, 32, 3)
    np.savez(place / "images.npz", images=images, labels=np.arange(number) % _CLASSES)
    save_folder(place / "folder", images)
    found = {}
    for name, source in (("npz", "images.npz"), ("folder", "folder")):
        flags = [f"--name={name}", f"--source={place / source}", f"--data_dir={place / 'sets'}"]
        runs = [quietly(prepare.main, [*flags, "--overwrite"]) for _ in range(repeat)]
        wall, cpu = np.min(runs, axis=0)
        found[name] = {"a_second": round(number / wall), "a_second_of_cpu": round(number / cpu)}
    return found


def measure_reading(place: Path, steps: int) -> dict[str, float]:
    """What the log says of a training on the set of `measure_prepare`, after its first line."""
    config = get_config()
    config.data.update({"name": "npz", "dir": str(place / "sets")})
    config.train.update({"steps": steps, "log_every": max(1, steps // 6), "sample_every": 0})
    config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, steps // 2)
    config.eval.num = 0
    quietly(train, config, place / "run")
    lines = map(json.loads, (place / "run" / METRICS).read_text().splitlines())
    found = [line for line in lines if "data_wait" in line][1:]
    return {
        name: round(float(np.mean([line[name] for line in found])), 4)
        for name in ("data_wait", "examples_per_second")
    }


def measure_statistics(place: Path, number: int, features: list[str]) -> dict[str, dict]:
    """Seconds for the statistics of images of 28x28, and to compare as many samples with them."""
    np.save(place / "real.npy", noise(number, 28, 1))
    np.save(place / "drawn.npy", noise(number + 1, 28, 1)[:number])
    return {name: _statistics_seconds(place, name) for name in features}


def _statistics_seconds(place: Path, features: str) -> dict[str, float]:
    asked, sides = Asked(str(place / "real.npy"), features=features), []
    real = seconds_of(lambda: sides.append(open_real_side(asked)))
    samples = open_examples(str(place / "drawn.npy"), "train")
    compared = seconds_of(lambda: measure_in_features(sides[0], samples, len(samples)))
    return {"statistics": round(real, 2), "comparison": round(compared, 2)}


def main() -> None:
    """Measures, prints and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=8000, help="to prepare")
    parser.add_argument("--steps", type=int, default=60, help="of the training")
    parser.add_argument("--statistics", type=int, default=10_000, help="images of 28x28")
    parser.add_argument("--features", nargs="+", default=["pca"], help="of the statistics")
    parser.add_argument("--repeat", type=int, default=3, help="preparations of each source")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    record = machine.about(PACKAGES, device="cpu") | {"load": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        record["prepare"] = measure_prepare(place, args.images, args.repeat)
        print("images of 32x32x3 prepared a second:", record["prepare"], flush=True)
        record["reading"] = measure_reading(place, args.steps)
        print("a training on them:", record["reading"], flush=True)
        record["statistics"] = measure_statistics(place, args.statistics, args.features)
        print("seconds for the statistics:", record["statistics"])
    machine.write_json(args.out, record)


if __name__ == "__main__":
    main()
