import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.factory import Guidance, Recipe
from fmjax.run.sample import export
from fmjax.run.sample.export import check_target, export_run
from fmjax.run.sample.request import Request
from fmjax.run.sample.to_disk import sample
from fmjax.samplers import sde_spec, solver_spec

NUM = 7
FILE = "moons.jaxexport"
RUNNER = """
    import sys
    import numpy as np
    from jax import export

    n = int(sys.argv[1])
    index, labels = np.arange(n, dtype=np.int32), np.arange(n, dtype=np.int32) % 2
    for folder in sys.argv[2:]:
        sampler = export.deserialize(bytearray(open(f"{folder}/moons.jaxexport", "rb").read()))
        assert sampler.platforms == ("cpu", "cuda", "tpu")
        samples = sampler.call(np.uint32(4), index, labels, np.full(n, 1.5, np.float32))
        np.save(f"{folder}/made.npy", samples)
    print([name for name in sys.modules if name.startswith(("fmjax", "diffrax", "flax"))])
"""
HOW = {
    "fixed": Recipe(solver_spec("heun", 3), Guidance(interval=(0.2, 0.8))),
    "sample": Recipe(solver_spec("tsit5", rtol=1e-3), Guidance()),
    "noise": Recipe(sde_spec("churn", 3), Guidance()),
}


@pytest.mark.slow
def test_an_exported_sampler_gives_the_same_samples_without_fmjax(trained, tmp_path, run_python):
    (tmp_path / "empty").mkdir()
    for name, recipe in HOW.items():
        request = Request(NUM, (0, 1), (1.5,), seed=4)
        folder = tmp_path / name
        folder.mkdir()
        file = folder / FILE
        said = export_run(trained, file, request, recipe)
        assert f"step 12, {file.stat().st_size / 1e6:.1f} MB" in said
        assert [path.name for path in folder.iterdir()] == [FILE]  # no part is left behind
        sample(trained, folder, request, recipe)
    # In an empty folder, with no path to the project.
    how = {"devices": 1, "env": {"PYTHONPATH": ""}, "cwd": tmp_path / "empty"}
    out = run_python(RUNNER, NUM, *[tmp_path / name for name in HOW], **how)
    assert out.strip() == "[]"
    for name in HOW:
        with np.load(tmp_path / name / "samples.npz") as content:
            expected = content["samples"]
        made = np.load(tmp_path / name / "made.npy")
        # To the bit with jax 0.10; 0.12 fuses the two programs differently.
        np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.nightly
def test_an_exported_sampler_takes_any_batch_label_and_scale(trained, tmp_path):
    from jax import export as jax_export

    request = Request(1, (0,), (1.5,), seed=4)
    file = tmp_path / "moons.jaxexport"
    heun = Recipe(solver_spec("heun", 3))
    export_run(trained, file, request, heun)
    sampler = jax_export.deserialize(bytearray(file.read_bytes()))
    for n, w in ((3, 0.0), (10, 2.5)):
        index, labels = np.arange(n, dtype=np.int32), np.ones(n, np.int32)
        samples = sampler.call(np.uint32(1), index, labels, np.full(n, w, np.float32))
        asked = Request(n, (1,), (w,), seed=1)
        sample(trained, tmp_path / str(n), asked, heun)
        with np.load(tmp_path / str(n) / "samples.npz") as content:
            np.testing.assert_allclose(samples, content["samples"], rtol=1e-5, atol=1e-5)


def test_a_file_that_cannot_be_written_is_named_before_any_work(tmp_path):
    (tmp_path / "there").write_text("")
    with pytest.raises(InputError, match="there already; give another --export"):
        check_target(tmp_path / "there", overwrite=False)
    check_target(tmp_path / "there", overwrite=True)
    with pytest.raises(InputError, match="is a folder"):
        check_target(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="another --export"):
        check_target(tmp_path / "there" / "file", overwrite=False)


def test_a_file_that_is_there_is_kept_unless_asked_otherwise(trained, tmp_path):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(InputError, match="there already; give another --export"):
        export_run(trained, tmp_path / "there", Request(NUM, (0,)), HOW["fixed"])
    assert (tmp_path / "there").read_text() == "mine"


def test_parameters_that_are_too_large_for_one_program_are_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_LIMIT", 100)
    with pytest.raises(InputError, match="exported program holds"):
        export_run(trained, tmp_path / "file", Request(1, (0,)), Recipe(solver_spec("heun", 3)))
    assert not list(tmp_path.iterdir())
