"""The benchmarks run: a few steps of each, so that they do not rot."""

import json

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_two_dimensional_table_is_made_and_goes_on_from_its_cache(run_python, tmp_path):
    out = tmp_path / "two_dim.json"
    arguments = (
        *("--methods", "OT-CFM", "I-CFM", "--tasks", "N -> moons", "--seeds", "1"),
        *("--share", "0.01", "--cores", "2", "--cache", tmp_path / "cache", "--out", out),
    )
    run_python(ROOT / "benchmarks" / "two_dim.py", *arguments, devices=1)
    results = json.loads(out.read_text())
    rows = results["fmjax"]["rows"]["N -> moons"]
    assert {name: row["steps"] for name, row in rows.items()} == {"OT-CFM": 100, "I-CFM": 200}
    # Optimal pairs make straighter paths, even after a hundred steps.
    assert rows["OT-CFM"]["one_step_w2"][0] < rows["I-CFM"]["one_step_w2"][0]
    assert rows["OT-CFM"]["npe"][0] < rows["I-CFM"]["npe"][0]
    assert results["floor"]["N -> moons"]["target_to_target_w2"] < 0.2
    again = run_python(ROOT / "benchmarks" / "two_dim.py", *arguments, devices=1)
    assert again.count("N -> moons") == 2
    assert json.loads(out.read_text())["fmjax"]["rows"] == results["fmjax"]["rows"]
