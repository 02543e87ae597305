"""The fixtures of conftest.py do what they say."""

import warnings

import jax
import jax.numpy as jnp
import pytest

from tests.conftest import KEPT, rounding


@pytest.mark.parametrize("transform", [jax.jit, jax.pmap])
def test_count_compilations(transform, count_compilations):
    f = transform(lambda x: 2 * x + 1)
    x, wider = jnp.ones((1, 3)), jnp.ones((1, 5))
    with count_compilations() as first:
        f(x)
    with count_compilations() as second:
        f(x)
    with count_compilations() as new_shape:
        f(wider)
    assert first.count >= 1
    assert second.count == 0, second.names
    assert new_shape.count >= 1
    # Outside its context a counter hears nothing.
    assert second.names == []


def test_count_compilations_stops_listening_after_an_error(count_compilations):
    def fail_while_counting():
        with count_compilations() as compiled:
            kept.append(compiled)
            raise KeyError("inside")

    kept = []
    with pytest.raises(KeyError):
        fail_while_counting()
    jax.jit(lambda x: x - 4)(jnp.ones(7))
    assert kept[0].count == 0


def test_count_compilations_nests(count_compilations):
    x = jnp.ones(2)
    with count_compilations() as outer:
        with count_compilations() as inner:
            jax.jit(lambda x: x * 5)(x)
        jax.jit(lambda x: x * 6)(x)
    assert (outer.count, inner.count) == (2, 1)


def test_one_device_and_no_compilation_cache_but_that_of_the_caller():
    if jax.default_backend() == "cpu":
        assert jax.device_count() == 1
    assert jax.config.jax_enable_compilation_cache == bool(KEPT)
    assert jax.config.jax_compilation_cache_dir == KEPT


def test_rank_promotion_raises():
    with pytest.raises(ValueError, match="rank"):
        jnp.ones((2, 3)) + jnp.ones(3)


def _warn_from(module: str) -> None:
    code = "import warnings; warnings.warn('soon gone', DeprecationWarning)"
    exec(code, {"__name__": module})


@pytest.mark.parametrize("module", ["fmjax", "fmjax.paths", "fmjax.training.step"])
def test_a_warning_from_fmjax_is_an_error(module):
    with pytest.raises(DeprecationWarning, match="soon gone"):
        _warn_from(module)


@pytest.mark.parametrize("module", ["fmjaxes", "some.fmjax"])
def test_a_warning_from_elsewhere_is_not(module):
    with warnings.catch_warnings(record=True) as caught:
        _warn_from(module)
    assert len(caught) == 1


def test_run_python_runs_code_on_several_devices(run_python):
    out = run_python(
        """
        import os, jax
        print(jax.device_count(), os.environ["COLOUR"])
        """,
        devices=3,
        env={"COLOUR": "teal"},
    )
    assert out.split() == ["3", "teal"]


@pytest.mark.slow
def test_run_python_runs_a_script_with_arguments(run_python, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys, fmjax\nprint(sys.argv[1:])")
    assert run_python(script, "--a=1", devices=1).strip() == "['--a=1']"


def test_run_python_shows_what_went_wrong(run_python):
    with pytest.raises(AssertionError, match=r"exited with 1[\s\S]*before[\s\S]*KeyError: 'k'"):
        run_python("print('before')\n{}['k']")


def test_the_tolerance_of_rounding_follows_the_largest_value():
    assert rounding([1.0, -4.0], 10) == 10 * 4.0 * 2.0**-23


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("case", range(4))
def test_all_cases_but_the_first_are_slow(case, request):
    alone = len(request.session.items) < 4  # a case that is asked for by its name is the first
    assert (request.node.get_closest_marker("slow") is not None) == (case >= 2 and not alone)


@pytest.mark.day_cases(2)
@pytest.mark.parametrize("case", range(4))
def test_two_cases_in_equal_distances_are_for_the_day(case, request):
    alone = len(request.session.items) < 4
    assert (request.node.get_closest_marker("nightly") is not None) == (case % 2 == 1 and not alone)
