"""The benchmarks run: a few steps of each, so that they do not rot."""

import importlib.util
import json

import pytest

from tests.conftest import ROOT

OPTIMISED = {"XLA_FLAGS": ""}  # these train for real: LLVM's effort pays


@pytest.mark.slow
def test_the_two_dimensional_table_is_made_and_goes_on_from_its_cache(run_python, tmp_path):
    out = tmp_path / "two_dim.json"
    arguments = (
        *("--methods", "OT-CFM", "I-CFM", "--tasks", "N -> moons", "--seeds", "1"),
        *("--share", "0.01", "--cores", "2", "--cache", tmp_path / "cache", "--out", out),
    )
    run_python(ROOT / "benchmarks" / "two_dim.py", *arguments, devices=1, env=OPTIMISED)
    results = json.loads(out.read_text())
    rows = results["fmjax"]["rows"]["N -> moons"]
    assert {name: row["steps"] for name, row in rows.items()} == {"OT-CFM": 100, "I-CFM": 200}
    # Optimal pairs make straighter paths, even after a hundred steps.
    assert rows["OT-CFM"]["one_step_w2"][0] < rows["I-CFM"]["one_step_w2"][0]
    assert rows["OT-CFM"]["npe"][0] < rows["I-CFM"]["npe"][0]
    assert results["floor"]["N -> moons"]["target_to_target_w2"] < 0.2
    again = run_python(ROOT / "benchmarks" / "two_dim.py", *arguments, devices=1, env=OPTIMISED)
    assert again.count("N -> moons") == 2
    assert json.loads(out.read_text())["fmjax"]["rows"] == results["fmjax"]["rows"]


@pytest.mark.slow
def test_the_sampling_benchmark_compares_equal_work(run_python, tmp_path):
    out = tmp_path / "sampling.json"
    parts = ("--only", "diffrax", "large", "--batch", "4")
    arguments = ("--toy", "--repeat", "1", *parts, "--out", out)
    run_python(ROOT / "benchmarks" / "sampling.py", *arguments, devices=1)
    result = json.loads(out.read_text())
    row = result["large"]["contenders"]["fmjax defaults"]
    assert row["images_per_second"] == pytest.approx(4e3 / row["ms"], rel=0.01)
    if importlib.util.find_spec("torch") is not None:  # the same weights and the same steps
        ours, theirs = (r["rms"] for r in result["large"]["contenders"].values())
        assert theirs == pytest.approx(ours, rel=1e-3)
    # That both take the same steps is checked before they are timed.
    assert {"ours / scan", "seconds"} <= result["diffrax"]["digits' DiT"].keys()


@pytest.mark.slow
def test_a_training_step_is_timed_and_held_against_the_peak(run_python, tmp_path):
    out = tmp_path / "train_step.json"
    arguments = (
        *("--toy", "--batches", "4", "--rounds", "2", "--steps", "1", "--warm", "1"),
        # PyTorch's side too where this interpreter has it: it fails unless the two agree.
        *("--theirs", "plain eager", "--out", out),
    )
    run_python(ROOT / "benchmarks" / "train_step.py", *arguments, devices=1)
    (case,) = json.loads(out.read_text())["cases"].values()
    row = case["contenders"]["fmjax defaults"]
    assert row["images_per_second"] == pytest.approx(4e3 / row["ms"], rel=0.01)
    floor = case["floors (calculated)"]
    # The floor is of the faster library's peak: no row comes nearer to its own than to that.
    assert row["ms"] * row["mfu"] >= 0.9 * floor["operations ms"] > 0
    if importlib.util.find_spec("torch") is not None:
        assert case["torch / fmjax"] > 0
        assert case["same function"]["gradient norm over fmjax's"] == pytest.approx(1, abs=1e-4)


def test_a_contender_that_fails_is_left_out_and_the_others_take_turns(run_python, tmp_path):
    (tmp_path / "served.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
        "from turns import Contenders, serve\n"
        "class Served(Contenders):\n"
        "    def make(self, name, case):\n"
        "        if name == 'large':\n"
        "            raise MemoryError('too large\\nfor this device')\n"
        "        print('chatter')\n"  # what a compiler prints must not be taken for an answer
        "        self.ready[name] = lambda n: sum(range(case * n))\n"
        "        return {'made': name}\n"
        "    def clear(self):\n"
        "        return {'left': self.ready.clear()}\n"
        "serve(Served())\n"
    )
    out = run_python(
        """
        import sys
        sys.path.insert(0, "benchmarks")
        from sides import Side, make_turns, ratio
        from turns import Worker
        def side(*names):
            return Side(Worker(sys.executable, sys.argv[1]), {}, list(names), 1.0, None)
        sides = {"fmjax": side("long", "large"), "torch": side("short")}
        rows, seconds = make_turns("make", 200_000, sides, 3, 2)
        print(rows["fmjax large"]["error"])
        print(sorted(seconds), ratio(rows)["fastest"])
        try:
            sides["torch"].worker.must("time", name="short", n=1)  # it was cleared
        except RuntimeError as error:
            print(error)
        for one in sides.values():
            one.worker.close()
        """,
        tmp_path / "served.py",
        devices=1,
    ).splitlines()
    assert out[-3] == "MemoryError: too large"
    assert out[-2] == "['fmjax long', 'torch short'] ['fmjax long', 'torch short']"
    assert "KeyError" in out[-1]


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
