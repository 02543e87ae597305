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


@pytest.mark.slow
def test_the_sampling_benchmark_compares_equal_work(run_python, tmp_path):
    out = tmp_path / "sampling.json"
    arguments = ("--toy", "--repeat", "1", "--only", "diffrax", "images", "--out", out)
    run_python(ROOT / "benchmarks" / "sampling.py", *arguments, devices=1)
    result = json.loads(out.read_text())
    assert result["images"]["guided digits per second"] > 0
    # That both take the same steps is checked before they are timed.
    assert {"ours / scan", "seconds"} <= result["diffrax"]["digits' DiT"].keys()


def test_the_evaluations_needed_are_read_off_the_curve(run_python):
    out = run_python(
        """
        import sys
        sys.path.insert(0, "benchmarks")
        from solvers import needed
        curve = [{"nfe": n, "frechet": f} for n, f in ((6, 90), (12, 50), (24, 20), (48, 10))]
        print(needed(curve, 35), needed(curve, 95), needed(curve, 5))
        """,
        devices=1,
    )
    assert out.split() == ["18.0", "6.0", "None"]  # half way from 50 to 20; at once; never
