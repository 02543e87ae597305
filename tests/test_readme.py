"""What the README shows runs as it stands there, and points at what exists."""

import re

import numpy as np
import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
INDEX = (ROOT / "docs" / "index.md").read_text()
LIBRARY, FIT = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.slow
def test_the_library_example_learns_its_two_gaussians(tmp_path, monkeypatch):
    names = {}
    exec(compile(LIBRARY, "README.md", "exec"), names)
    for label in (0, 1):
        x = np.asarray(names["samples"])[np.asarray(names["labels"]) == label]
        np.testing.assert_allclose(x.mean(axis=0), [4 * label - 2, 0], atol=0.1)
        np.testing.assert_allclose(x.std(axis=0), 0.3, atol=0.1)
    monkeypatch.chdir(tmp_path)
    exec(compile(FIT, "README.md", "exec"), names)
    assert int(names["state"].step) == 1000
    assert sorted(path.name for path in tmp_path.glob("runs/mine/checkpoints/*")) == ["1000", "500"]


@pytest.mark.slow
def test_the_library_example_uses_each_key_once(run_python):
    few = LIBRARY.replace("jax.random.key(1), 1000)", "jax.random.key(1), 2)")
    assert few != LIBRARY
    run_python(few, devices=1, env={"JAX_DEBUG_KEY_REUSE": "1"})
    twice = few.replace("draw(draw_key,", "draw(data_key,")
    with pytest.raises(AssertionError, match="KeyReuseError"):
        run_python(twice, devices=1, env={"JAX_DEBUG_KEY_REUSE": "1"})


@pytest.mark.nightly
def test_the_example_of_the_index_draws_its_data(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", INDEX, flags=re.DOTALL)
    exec(compile(example, "index.md", "exec"), {})
    samples = np.array(re.findall(r"-?\d+\.\d*", capsys.readouterr().out), float).reshape(6, 2)
    np.testing.assert_allclose(np.abs(samples), [[2, 0]] * 6, atol=0.4)


def test_every_file_it_names_exists():
    named = set(re.findall(r"(?:configs|fmjax|tests|benchmarks|docs)/[\w./]+\.\w+", README))
    named |= set(re.findall(r"\]\(([\w./]+)\)", README))
    assert len(named) > 4
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_it_is_short_and_names_every_configuration():
    assert len(README.splitlines()) <= 150
    assert all(f"`{path.stem}`" in README for path in (ROOT / "configs").glob("*.py"))


def test_the_list_of_features_names_every_solver():
    from fmjax.samplers import METHODS, SOLVERS

    features = (ROOT / "docs" / "features.md").read_text().lower().replace("-", "_")
    names = {"churn": "churn", "overshoot": "overshooting", "refresh": "noise refresh"}
    for name in (*SOLVERS, *METHODS):
        assert names.get(name, name.replace("stochastic_heun", "stochastic heun")) in features, name


def test_no_placeholder_is_left():
    files = [ROOT / "README.md", *(ROOT / "configs").glob("*.py")]
    assert [f.name for f in files if re.search("RESULTS|HEADER|TODO", f.read_text())] == []
