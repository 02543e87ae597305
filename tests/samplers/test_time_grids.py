import jax
import numpy as np
import pytest
from scipy import stats

from fmjax.errors import InputError
from fmjax.samplers.time_grids import (
    GRIDS,
    BetaGrid,
    CustomGrid,
    EDMGrid,
    ExponentialGrid,
    FinalStepGrid,
    KarrasGrid,
    SD3Grid,
    ShiftedGrid,
    UniformGrid,
    fixed_grid,
    named_grid,
    time_grid,
)
from fmjax.schedules import Cosine, Linear, log_snr

NAMES = sorted(GRIDS)
OF_ANY_PART = sorted(set(NAMES) - {"beta_diffusers", "edm_diffusers", "karras_diffusers", "sd3"})


def grid_of(name):
    return named_grid(name, 3.0 if name == "shifted" else 1.0)


@pytest.mark.parametrize(
    ("name", "t0", "t1"),
    [(name, *way) for name in NAMES for way in ((0.0, 1.0), (1.0, 0.0))]
    + [(name, *way) for name in OF_ANY_PART for way in ((0.2, 0.9), (0.9, 0.2))],
)
def test_a_grid_goes_strictly_from_t0_to_t1(name, t0, t1):
    times = time_grid(grid_of(name), 9, t0, t1)
    assert times.shape == (10,)
    assert (times[0], times[-1]) == (t0, t1)
    assert np.all(np.diff(times) * (t1 - t0) > 0)
    np.testing.assert_allclose(times[::-1], time_grid(grid_of(name), 9, t1, t0), atol=1e-12)


def test_a_grid_and_its_steps_may_be_left_out():
    assert fixed_grid(None, None, default=7) == (7, UniformGrid())
    assert fixed_grid(3, None, default=7) == (3, UniformGrid())
    assert fixed_grid(None, KarrasGrid(), default=7) == (7, KarrasGrid())
    assert fixed_grid(3, "karras", default=7) == (3, KarrasGrid())
    assert fixed_grid(None, None, 2.0, default=7) == (7, ShiftedGrid(2.0))
    for steps in (None, 1):
        assert fixed_grid(steps, [0.0, 1.0], default=7) == (1, CustomGrid((0.0, 1.0)))


@pytest.mark.parametrize("name", OF_ANY_PART)
def test_a_part_of_a_grid_is_spaced_as_the_whole_is(name):
    whole = time_grid(grid_of(name), 12)
    part = time_grid(grid_of(name), 6, whole[3], whole[9])
    np.testing.assert_allclose(part, whole[3:10], atol=1e-9)


def test_edm_is_equally_spaced_in_the_root_of_the_noise_to_signal_ratio():
    inner = time_grid(EDMGrid(), 20)[1:-1]
    roots = ((1 - inner) / inner) ** (1 / 7)
    expected = np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 21)[1:-1]
    np.testing.assert_allclose(roots, expected, rtol=1e-9)


def test_karras_is_equally_spaced_in_the_root_of_the_noise():
    inner = time_grid(KarrasGrid(), 20)[1:-1]
    expected = np.linspace(1, 1e-3 ** (1 / 7), 21)[1:-1]
    np.testing.assert_allclose((1 - inner) ** (1 / 7), expected, rtol=1e-9)


@pytest.mark.parametrize(("schedule", "tolerance"), [(Linear(), 1e-9), (Cosine(), 1e-4)])
def test_exponential_is_equally_spaced_in_the_log_signal_to_noise_ratio(schedule, tolerance):
    inner = time_grid(ExponentialGrid(), 10, schedule=schedule)[1:-1]
    ratios = np.asarray(log_snr(schedule, inner), np.float64)
    expected = np.linspace(-2 * np.log(20), -2 * np.log(0.01), 11)[1:-1]
    np.testing.assert_allclose(ratios, expected, rtol=max(tolerance, 1e-5))


@pytest.mark.parametrize("name", NAMES)
def test_every_grid_is_made_in_float64_too(name):
    with jax.enable_x64(True):
        times = time_grid(grid_of(name), 9, schedule=Cosine())
    np.testing.assert_allclose(times, time_grid(grid_of(name), 9, schedule=Cosine()), atol=1e-6)


def test_beta_has_equally_likely_steps():
    times = time_grid(BetaGrid(0.6, 0.8), 10)
    np.testing.assert_allclose(np.diff(stats.beta(0.6, 0.8).cdf(times)), 0.1, atol=1e-9)


def noise(name, steps):
    """1 - t at the nodes, which diffusers calls sigmas."""
    return 1 - time_grid(named_grid(name), steps)


def test_karras_of_diffusers_has_n_nodes_down_to_sigma_min_and_then_0():
    # FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)._convert_to_karras, then 0.
    ramp, low, high = np.linspace(0, 1, 6), 1e-3 ** (1 / 7), 1.0
    expected = [*(high + ramp * (low - high)) ** 7, 0]
    np.testing.assert_allclose(noise("karras_diffusers", 6), expected, atol=1e-12)


def test_edm_of_diffusers_has_n_ratios_down_to_sigma_min_and_then_0():
    # EDMEulerScheduler: 80 to 0.002, then 0. The first node is pure noise here, not ratio 80.
    ramp, low, high = np.linspace(0, 1, 6), 0.002 ** (1 / 7), 80 ** (1 / 7)
    times = time_grid(named_grid("edm_diffusers"), 6)
    ratios = [*(high + ramp * (low - high)) ** 7, 0]
    np.testing.assert_allclose((1 - times[1:]) / times[1:], ratios[1:], atol=1e-12)
    assert times[0] == 0


def test_beta_of_diffusers_has_n_quantiles_down_to_sigma_min_and_then_0():
    # FlowMatchEulerDiscreteScheduler(use_beta_sigmas=True)._convert_to_beta, then 0.
    quantiles = stats.beta.ppf(1 - np.linspace(0, 1, 6), 0.6, 0.6)
    expected = [*(1e-3 + quantiles * (1 - 1e-3)), 0]
    np.testing.assert_allclose(noise("beta_diffusers", 6), expected, atol=1e-9)


def test_sd3_shifts_its_sigma_min_twice():
    # FlowMatchEulerDiscreteScheduler(shift=3.0).set_timesteps(28).
    def shifted(sigma):
        return 3 * sigma / (1 + 2 * sigma)

    sigmas = shifted(np.linspace(1, 1000, 1000)[::-1] / 1000)
    timesteps = np.linspace(1000 * sigmas[0], 1000 * sigmas[-1], 28)
    expected = [*shifted(timesteps / 1000), 0]
    np.testing.assert_allclose(noise("sd3", 28), expected, atol=1e-12)
    assert noise("sd3", 28)[-2] == pytest.approx(shifted(shifted(1e-3)))


def test_the_grids_of_diffusers_belong_to_a_whole_solve():
    grid = FinalStepGrid(KarrasGrid())
    np.testing.assert_array_equal(time_grid(grid, 1), [0, 1])
    np.testing.assert_array_equal(time_grid(grid, 5, 1.0, 0.0), time_grid(grid, 5)[::-1])
    with pytest.raises(InputError, match=r"from 0 to 1, and the solve from 0\.2 to 1"):
        time_grid(grid, 5, 0.2, 1.0)


def test_a_shift_is_that_of_sd3():
    tau = 1 - np.linspace(0, 1, 8)  # their time, 1 at the noise
    expected = 1 - 3 * tau / (1 + 2 * tau)
    np.testing.assert_allclose(time_grid(ShiftedGrid(3.0), 7), expected, atol=1e-12)


def test_cosine_is_dense_at_both_ends():
    times = time_grid(named_grid("cosine"), 4)
    np.testing.assert_allclose(times, [0, 0.5 - np.sqrt(0.125), 0.5, 0.5 + np.sqrt(0.125), 1])


def test_a_grid_of_ones_own_runs_either_way():
    grid = CustomGrid((0.0, 0.1, 0.7, 1.0))
    np.testing.assert_array_equal(time_grid(grid, 3), [0, 0.1, 0.7, 1])
    np.testing.assert_array_equal(time_grid(grid, 3, 1.0, 0.0), [1, 0.7, 0.1, 0])
    with pytest.raises(InputError, match=r"from 0 to 1, and the solve from 0 to 0\.5"):
        time_grid(grid, 3, 0.0, 0.5)


def test_equal_steps_may_leave_the_unit_interval_and_others_may_not():
    np.testing.assert_allclose(time_grid(UniformGrid(), 2, -1.0, 2.0), [-1, 0.5, 2])
    with pytest.raises(InputError, match="must lie in"):
        time_grid(EDMGrid(), 2, -1.0, 2.0)


def test_a_grid_that_has_no_room_is_refused():
    with pytest.raises(InputError, match="do not fit"):
        time_grid(EDMGrid(), 5, 0.9995, 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *(
            (
                lambda ends=ends: time_grid(KarrasGrid(), 5, *ends),
                r"must lie in \[0, 1\] on this grid",
            )
            for ends in ((-0.1, 1.0), (1.1, 0.0), (0.0, -0.1), (0.0, 1.1), (0.5, np.nan))
        ),
        (lambda: CustomGrid((0.5,)), r"at least two times; got shape \(1,\)"),
        (lambda: CustomGrid(((0.0, 1.0),)), r"at least two times; got shape \(1, 2\)"),
        (lambda: fixed_grid(3, (0.0, 1.0), default=7), "the grid has 1 steps, and steps=3 were"),
        (lambda: fixed_grid(None, KarrasGrid(), 3.0, default=7), "leave shift=3.0 out"),
        (lambda: fixed_grid(0, None, default=7), "steps must be .* at least 1; got 0"),
        (lambda: ShiftedGrid(0.0), "positive"),
        (lambda: BetaGrid(-1.0, 1.0), "a of the beta grid"),
        (lambda: BetaGrid(1.0, np.inf), "b of the beta grid"),
        (lambda: KarrasGrid(rho=0.0), "rho"),
        (lambda: KarrasGrid(sigma_min=1.0), r"\(0, 1\)"),
        (lambda: BetaGrid(sigma_min=1.0), "sigma_min of the beta grid"),
        (lambda: SD3Grid(shift=-1.0), "the shift"),
        (lambda: SD3Grid(sigma_min=0.0), "sigma_min of SD3"),
        (lambda: EDMGrid(sigma_min=2.0, sigma_max=1.0), "sigma_min < sigma_max"),
        (lambda: ExponentialGrid(sigma_min=0.0), "sigma_min < sigma_max"),
        *(
            (lambda name=name: named_grid(name, 2.0), f"the {name} grid has its own spacing")
            for name in sorted(set(NAMES) - {"shifted", "uniform"})
        ),
        (lambda: CustomGrid((0, 0.5, 0.4, 0.6, 0.7, 1)), r"got \(0, 0.5, 0.4, 0.6, 0.7, 1\)\."),
        (
            lambda: CustomGrid((0, 0.1, 0.2, 0.3, 0.4, 0.5, 2)),
            r"got \(0, 0.1, 0.2, 0.3, 0.4, 0.5, \.\.\.\)\.",
        ),
        (lambda: named_grid("uniforn"), "Did you mean 'uniform'"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
