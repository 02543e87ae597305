"""The benchmarks run: a few steps of each, so that they do not rot."""

import hashlib
import importlib.util
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits

from benchmarks.manifolds.kernel_density import fit_kernel_density
from benchmarks.quality.image_classifier import read_classifier, read_examples
from benchmarks.speed.checkouts import compare, table
from benchmarks.timing import interleave
from benchmarks.tokens.causal import NextToken, causal, next_tokens
from fmjax.models.token_transformer import TokenTransformer
from tests.conftest import ROOT

OPTIMISED = {"XLA_FLAGS": ""}  # these train for real: LLVM's effort pays
COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for path in (ROOT / "benchmarks").rglob("*.py")
    if "ArgumentParser" in path.read_text()
)
OPTIONAL = (
    "cosmic_ray",
    "flow_matching",
    "matplotlib",
    "torch",
)  # needed by some benchmarks and by nothing else here


@pytest.fixture
def run_benchmark(run_python):
    """Runs ``python -m module`` with these arguments and returns what it prints."""
    code = "import runpy, sys; runpy.run_module(sys.argv.pop(1), None, '__main__', True)"
    return lambda module, *arguments, **how: run_python(code, module, *arguments, **how)


@pytest.mark.slow
def test_every_benchmark_says_what_its_flags_are(run_python):
    out = run_python(
        f"""
        import runpy, sys
        for module in sys.argv[1:]:
            sys.argv = [module, "--help"]
            try:
                runpy.run_module(module, None, "__main__", True)
            except SystemExit as left:
                print("code", left.code, module)
            except ModuleNotFoundError as error:
                if error.name not in {OPTIONAL!r}:
                    raise
                print("code", 0, module)
        """,
        *COMMANDS,
        devices=1,
    )
    assert re.findall(r"^code (\S+) (\S+)$", out, re.MULTILINE) == [("0", m) for m in COMMANDS]


def test_every_command_that_is_named_anywhere_exists():
    files = [ROOT / "README.md", ROOT / "benchmarks" / "NOTES.md"]
    for folder, kind in (("docs", "md"), ("configs", "py"), ("benchmarks", "py")):
        files += (ROOT / folder).rglob(f"*.{kind}")
    named = {name for file in files for name in re.findall(r"-m (benchmarks[\w.]*\w)", _text(file))}
    assert named == set(COMMANDS)


def _text(file):
    return " ".join(file.read_text().split())


@pytest.mark.nightly
def test_the_two_dimensional_table_is_made_and_goes_on_from_its_cache(run_benchmark, tmp_path):
    out = tmp_path / "two_dim.json"
    arguments = (
        *("--methods", "OT-CFM", "I-CFM", "--tasks", "N -> moons", "--seeds", "1"),
        *("--share", "0.01", "--cores", "2", "--cache", tmp_path / "cache", "--out", out),
    )
    run_benchmark("benchmarks.two_dim", *arguments, devices=1, env=OPTIMISED)
    results = json.loads(out.read_text())
    rows = results["fmjax"]["rows"]["N -> moons"]
    assert {name: row["steps"] for name, row in rows.items()} == {"OT-CFM": 100, "I-CFM": 200}
    # Optimal pairs make straighter paths, even after a hundred steps.
    assert rows["OT-CFM"]["one_step_w2"][0] < rows["I-CFM"]["one_step_w2"][0]
    assert rows["OT-CFM"]["npe"][0] < rows["I-CFM"]["npe"][0]
    assert results["floor"]["N -> moons"]["target_to_target_w2"] < 0.2
    again = run_benchmark("benchmarks.two_dim", *arguments, devices=1, env=OPTIMISED)
    assert again.count("N -> moons") == 2
    assert json.loads(out.read_text())["fmjax"]["rows"] == results["fmjax"]["rows"]


@pytest.mark.nightly
def test_a_classifier_is_trained_on_real_images_and_read_again(run_benchmark, tmp_path):
    images, labels = load_digits(return_X_y=True)
    images = (images * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    parts = {"x_train": images[:1400], "x_test": images[1400:]}
    np.savez(tmp_path / "x.npz", **parts, y_train=labels[:1400], y_test=labels[1400:])
    out = tmp_path / "judge.safetensors"
    arguments = (f"--data={tmp_path / 'x.npz'}", "--epochs=10", "--shift=1", f"--out={out}")
    module = "benchmarks.quality.image_classifier"
    said = run_benchmark(module, *arguments, devices=1, env=OPTIMISED)
    judge = read_classifier(out)
    right = (judge.classify(images[1400:, ..., None]) == labels[1400:]).mean()
    assert right > 0.9
    assert f"{right:.2%} of 397 test images" in said
    assert judge.features(images[:3, ..., None]).shape == (3, 128)
    assert hashlib.sha256(out.read_bytes()).hexdigest() in said


def test_a_classifier_reads_a_prepared_set(tmp_path):
    train, test = read_examples("digits", str(tmp_path))
    assert (train.images.shape, test.images.shape) == ((1500, 8, 8, 1), (297, 8, 8, 1))
    assert set(train.labels.tolist()) == set(test.labels.tolist()) == set(range(10))


@pytest.mark.nightly
def test_own_images_are_timed_from_the_file_to_the_first_steps(run_benchmark, tmp_path):
    small = ("--images=200", "--steps=6", "--statistics=100", "--repeat=1")
    out = f"--out={tmp_path / 'x.json'}"
    run_benchmark("benchmarks.own_data", *small, out, devices=1, env=OPTIMISED)
    found = json.loads((tmp_path / "x.json").read_text())
    for source in ("npz", "folder"):
        assert set(found["prepare"][source]) == {"a_second", "a_second_of_cpu"}
    assert 0 <= found["reading"]["data_wait"] <= 1
    assert found["statistics"]["pca"]["statistics"] > 0
    assert found["load"] >= 0


def _near_the_pole(rng, n):
    x = rng.normal(size=(n, 3)) * 0.1 + [0.0, 0.0, 1.0]
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.slow
def test_the_kernel_density_of_the_sphere_integrates_to_one():
    rng = np.random.default_rng(0)
    kernels = fit_kernel_density(_near_the_pole(rng, 200), _near_the_pole(rng, 100))
    height, weight = np.polynomial.legendre.leggauss(400)
    turn = (np.arange(200) + 0.5) * np.pi / 100
    z, turn = (a.ravel() for a in np.meshgrid(height, turn, indexing="ij"))
    across = np.sqrt(1 - z**2)
    x = np.stack([across * np.cos(turn), across * np.sin(turn), z], axis=1)
    density = np.exp(np.concatenate([kernels.log_prob(part) for part in np.split(x, 20)]))
    assert np.sum(density * np.repeat(weight, 200)) * np.pi / 100 == pytest.approx(1, abs=2e-3)
    drawn = kernels.sample(rng, 4000)
    held = -np.mean(kernels.log_prob(drawn))  # both are its entropy
    exact = -np.sum(density * np.log(density) * np.repeat(weight, 200)) * np.pi / 100
    assert held == pytest.approx(exact, abs=0.1)


@pytest.mark.nightly
def test_the_densities_of_the_earth_go_on_from_their_file(run_benchmark, tmp_path):
    x = _near_the_pole(np.random.default_rng(0), 300)
    degrees = np.rad2deg(np.stack([np.arcsin(x[:, 2]), np.arctan2(x[:, 1], x[:, 0])], axis=1))
    np.savetxt(tmp_path / "volcano.csv", degrees, delimiter=",", header="LATITUDE,LONGITUDE")
    out = tmp_path / "earth.json"
    arguments = (f"--data={tmp_path}", "--sets", "volcano without copies", "--seeds", "0")
    more = ("--share", "0.25", "--points", "64", "--out", out)
    run_benchmark("benchmarks.manifolds.earth", *arguments, *more, devices=1, env=OPTIMISED)
    results = json.loads(out.read_text())
    row = results["runs"]["volcano without copies"]["0"]
    assert row["nll"] < 0  # the uniform density has 2.53
    assert row["integral"][0] == pytest.approx(1, abs=5 * row["integral"][1])
    run_benchmark("benchmarks.manifolds.earth", *arguments, *more, devices=1, env=OPTIMISED)
    assert json.loads(out.read_text())["runs"] == results["runs"]


@pytest.mark.nightly
def test_known_densities_are_learned_on_manifolds(run_benchmark, tmp_path):
    out = tmp_path / "known.json"
    arguments = ("--tasks", "mixture, hyperbolic plane", "--flow-steps", "300", "--map-steps", "20")
    module = "benchmarks.manifolds.synthetic"
    run_benchmark(module, *arguments, "--solver", "20", "--out", out, devices=1, env=OPTIMISED)
    row = json.loads(out.read_text())["rows"]["mixture, hyperbolic plane"]
    assert 0 < row["KL"][0] < 1
    assert row["energy distance"]["flow"] < row["energy distance"]["1 jumps"] + 0.1


@pytest.mark.nightly
def test_the_sampling_benchmark_compares_equal_work(run_benchmark, tmp_path):
    out = tmp_path / "sampling.json"
    arguments = ("--toy", "--repeat", "1", "--only", "diffrax", "--out", out)
    run_benchmark("benchmarks.speed.sampling", *arguments, devices=1)
    result = json.loads(out.read_text())
    # That both take the same steps is checked before they are timed.
    assert {"ours / scan", "seconds"} <= result["diffrax"]["digits' DiT"].keys()


@pytest.mark.nightly
def test_guided_sampling_is_timed_in_images_per_second(run_benchmark, tmp_path):
    out = tmp_path / "sampling_xl.json"
    arguments = ("--toy", "--rounds", "1", "--batch", "4", "--out", out)
    run_benchmark("benchmarks.speed.sampling_xl", *arguments, devices=1)
    result = json.loads(out.read_text())
    row = result["variants"]["fmjax defaults"]
    assert row["images_per_second"] == pytest.approx(4e3 / row["ms"], rel=0.01)
    if importlib.util.find_spec("torch") is not None:  # the same weights and the same steps
        ours, theirs = (r["rms"] for r in result["variants"].values())
        assert theirs == pytest.approx(ours, rel=1e-3)


@pytest.mark.nightly
def test_a_training_step_is_timed_and_held_against_the_peak(run_benchmark, tmp_path):
    out = tmp_path / "train_step.json"
    arguments = (
        *("--toy", "--batches", "4", "--rounds", "2", "--steps", "1", "--warm", "1"),
        # PyTorch's side too where this interpreter has it: it fails unless the two agree.
        *("--theirs", "plain eager", "--out", out),
    )
    run_benchmark("benchmarks.speed.train_step", *arguments, devices=1)
    (case,) = json.loads(out.read_text())["cases"].values()
    row = case["variants"]["fmjax defaults"]
    assert row["images_per_second"] == pytest.approx(4e3 / row["ms"], rel=0.01)
    bounds = case["lower bounds (calculated)"]
    # The bound is of the faster library's peak: no row comes nearer to its own than to that.
    assert row["ms"] * row["mfu"] >= 0.9 * bounds["operations ms"] > 0
    if importlib.util.find_spec("torch") is not None:
        assert case["torch / fmjax"] > 0
        assert case["same function"]["gradient norm over fmjax's"] == pytest.approx(1, abs=1e-4)


def test_a_variant_that_fails_is_left_out_and_the_others_are_timed_in_turn(run_python, tmp_path):
    (tmp_path / "served.py").write_text(
        "from benchmarks.speed.worker import Variants, serve\n"
        "class Served(Variants):\n"
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
        from benchmarks.speed.libraries import Library, ratio, time_variants
        from benchmarks.speed.worker import Worker
        def library(*names):
            return Library(Worker(sys.executable, "served"), {}, list(names), 1.0, None)
        libraries = {"fmjax": library("long", "large"), "torch": library("short")}
        rows, seconds = time_variants("make", 200_000, libraries, 3, 2)
        print(rows["fmjax large"]["error"])
        print(sorted(seconds), ratio(rows)["fastest"])
        try:
            libraries["torch"].worker.must("time", name="short", n=1)  # it was cleared
        except RuntimeError as error:
            print(error)
        for one in libraries.values():
            one.worker.close()
        """,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        devices=1,
    ).splitlines()
    assert out[-3] == "MemoryError: too large"
    assert out[-2] == "['fmjax long', 'torch short'] ['fmjax long', 'torch short']"
    assert "KeyError" in out[-1]


def test_runs_are_interleaved_and_every_second_round_goes_backwards():
    order = []
    runs = {name: lambda name=name: order.append(name) or len(order) for name in "ABC"}
    found = interleave(runs, range(3))
    assert "".join(order) == "ABCCBAABC"
    assert found == {"A": [1, 6, 7], "B": [2, 5, 8], "C": [3, 4, 9]}


def test_two_checkouts_are_compared_by_the_ratio_of_their_medians():
    a, b = ([{"step": seconds} for seconds in found] for found in ((1, 4, 2), (3, 1, 9)))
    rows = compare(a, b)
    assert rows["step"] == {"A": [2000, 1000, 4000], "B": [3000, 1000, 9000], "B / A": 1.5}
    assert "| step | 2000.0 (1000.0 to 4000.0) | 3000.0 (1000.0 to 9000.0) | 1.5 |" in table(rows)


def test_a_command_is_written_down_as_it_was_typed(run_benchmark, tmp_path):
    (tmp_path / "typed.py").write_text("from benchmarks import machine\nprint(machine.command())\n")
    env = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    out = run_benchmark("typed", "--torch=/private/python", "two words", devices=1, env=env)
    assert out.strip() == "python -m typed --torch=PYTHON 'two words'"


@pytest.mark.slow
def test_the_evaluations_needed_are_read_off_the_curve(run_python):
    out = run_python(
        """
        from benchmarks.quality.solvers import needed
        curve = [{"nfe": n, "frechet": f} for n, f in ((6, 90), (12, 50), (24, 20), (48, 10))]
        print(needed(curve, 35), needed(curve, 95), needed(curve, 5))
        """,
        devices=1,
    )
    assert out.split() == ["18.0", "6.0", "None"]  # half way from 50 to 20; at once; never


@pytest.mark.nightly
def test_token_flows_are_measured_against_what_is_known(run_benchmark, tmp_path):
    out = tmp_path / "board.json"
    arguments = (
        "--steps=200",
        "--points=4000",
        "--samples=4000",
        "--solver_steps=16",
        f"--out={out}",
    )
    run_benchmark("benchmarks.tokens.checkerboard", *arguments, devices=1, env=OPTIMISED)
    results = json.loads(out.read_text())
    assert results["floor_nats"] == 9.0109
    for source, tight in (("mask", "masked"), ("uniform", "score entropy")):
        row = results[source]
        exact = row["bounds_of_the_exact_posterior"][tight]
        assert abs(exact["nats"] - 9.0109) < 5 * exact["std_error"]
        assert row["samples_of_the_exact_posterior"]["empty"] < row["samples"]["empty"]
    out = tmp_path / "dirichlet.json"
    arguments = ("--kinds=6", "--steps=300", "--samples=20000", f"--out={out}")
    run_benchmark("benchmarks.tokens.dirichlet", *arguments, devices=1, env=OPTIMISED)
    found = json.loads(out.read_text())["kl_nats"]["6"]
    assert found["floor"] == 0.00012
    for method in ("linear", "fisher", "mask", "uniform"):
        assert found[method]["network, 50 steps"] < 0.05
    for method in ("linear", "fisher"):  # the steps alone: the posterior is exact
        assert found[method]["exact, 50 steps"] < min(0.01, found[method]["network, 50 steps"])


@pytest.mark.nightly
def test_characters_are_modelled_in_three_ways_and_rows_are_kept(run_benchmark, tmp_path):
    out = tmp_path / "characters.json"
    small = ("--length=16", "--width=16", "--depth=1", "--steps=40", "--times=2", f"--out={out}")
    module = "benchmarks.tokens.characters"
    for models in (("mask", "uniform"), ("autoregressive",)):
        run_benchmark(module, *small, "--models", *models, devices=1, env=OPTIMISED)
    found = json.loads(out.read_text())
    assert found["setting"]["text"] == "romeo_and_juliet"
    assert set(found["rows"]) == {"mask", "uniform", "autoregressive"}
    for row in found["rows"].values():
        # Better than every character alike, and not better than a text allows.
        assert 2 < row["held_out"]["bits"] < np.log2(61)
        assert [len(text) for text in row["samples"]] == [16] * 3
    assert found["rows"]["mask"]["parameters"] == found["rows"]["autoregressive"]["parameters"]


@pytest.fixture(scope="module")
def next_token():
    """A causal transformer of 3 tokens whose parameters are random, and its path."""
    model = TokenTransformer(3, width=8, depth=2, heads=2)
    x, t = jnp.zeros((1, 3), int), jnp.zeros(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x, t)["params"]
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    # Not larger, so that no sequence is all but sure.
    drawn = [0.3 * jax.random.normal(k, s.shape) for k, s in zip(keys, leaves, strict=True)]
    return causal(model), jax.tree.unflatten(tree, drawn), NextToken(3)


def _probabilities(next_token):
    """Those of all 27 sequences of three tokens."""
    apply_fn, params, path = next_token
    x1 = jnp.stack(jnp.meshgrid(*[jnp.arange(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    point = path.sample(jnp.full((27, 3), 3), x1, jnp.zeros(27))
    logits = apply_fn(params, point.x_t, jnp.zeros(27))
    return np.exp(-3 * np.asarray(path.distance(logits, x1, point.x_t, jnp.zeros(27)), float))


@pytest.mark.nightly
def test_the_probabilities_of_the_autoregressive_model_sum_to_one(next_token):
    p = _probabilities(next_token)
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert np.sum(-p * np.log(p)) > 2  # of at most log(27) = 3.3


@pytest.mark.slow
def test_samples_of_the_autoregressive_model_have_its_probabilities(next_token):
    apply_fn, params, _ = next_token
    n = 4000
    x = np.asarray(next_tokens(apply_fn, params, 3, jax.random.key(2), n, 3))
    counts = np.bincount(x @ [9, 3, 1], minlength=27)
    expected = n * _probabilities(next_token)
    likely = expected > 5
    rest = [counts[~likely].sum(), expected[~likely].sum()]
    observed = np.append(counts[likely], rest[0])
    expected = np.append(expected[likely], max(rest[1], 1e-9))
    assert np.sum((observed - expected) ** 2 / expected) < stats.chi2(likely.sum()).ppf(0.999)
