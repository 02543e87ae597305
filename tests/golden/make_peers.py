"""Makes peers.npz: what flow-matching and torchcfm compute, in float64, on a few fixed arrays.

    pip install --no-deps flow-matching torchcfm && pip install torch torchdiffeq pot
    python tests/golden/make_peers.py

`tests/test_parity.py` holds fmjax to these numbers without torch, and, where the two packages are
installed, holds the file to them.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

FILE = Path(__file__).resolve().parent / "peers.npz"
PACKAGES = ("flow-matching", "torchcfm", "torch", "POT")
SCHEDULERS = ("condot", "polynomial2", "polynomial3", "vp", "linear_vp", "cosine")
MATCHERS = {"independent": 0.1, "target": 0.1, "bridge": 0.7, "trigonometric": 0.0}
TRANSFORMS = (("condot", "cosine"), ("condot", "vp"), ("cosine", "condot"), ("vp", "linear_vp"))
REGULARISATION = 0.5


def inputs() -> dict[str, np.ndarray]:
    """The arrays that all is computed from; t stays off the ends, where peers divide by 0."""
    rng = np.random.default_rng(0)
    n = 8
    return {
        "x0": rng.normal(size=(n, 3)),
        "x1": 0.5 + 2.0 * rng.normal(size=(n, 3)),
        "noise": rng.normal(size=(n, 3)),
        "t": np.linspace(0.03, 0.97, n),
        "snr": np.geomspace(0.05, 50.0, n),
    }


def _schedulers() -> dict:
    from flow_matching.path import scheduler

    return {
        "condot": scheduler.CondOTScheduler(),
        "polynomial2": scheduler.PolynomialConvexScheduler(2),
        "polynomial3": scheduler.PolynomialConvexScheduler(3),
        "vp": scheduler.VPScheduler(beta_min=0.1, beta_max=20.0),
        "linear_vp": scheduler.LinearVPScheduler(),
        "cosine": scheduler.CosineScheduler(),
    }


def _flow_matching(given: dict) -> dict:
    """Schedules, paths and conversions of the package flow-matching."""
    from flow_matching.path import AffineProbPath

    x0, x1, t = given["x0"], given["x1"], given["t"]
    out = {}
    for name, schedule in _schedulers().items():
        values = schedule(t)
        for field in ("alpha_t", "sigma_t", "d_alpha_t", "d_sigma_t"):
            out[f"{name}/{field}"] = getattr(values, field)
        out[f"{name}/snr_inverse"] = schedule.snr_inverse(given["snr"])
        path = AffineProbPath(schedule)
        sample = path.sample(x_0=x0, x_1=x1, t=t)
        x_t, column = sample.x_t, t[:, None].expand_as(x0)
        out[f"{name}/x_t"], out[f"{name}/dx_t"] = x_t, sample.dx_t
        # Any array may be a prediction: x1 serves as the velocity, too.
        out[f"{name}/x1_to_velocity"] = path.target_to_velocity(x1, x_t, column)
        out[f"{name}/x0_to_velocity"] = path.epsilon_to_velocity(x0, x_t, column)
        out[f"{name}/velocity_to_x1"] = path.velocity_to_target(x1, x_t, column)
        out[f"{name}/velocity_to_x0"] = path.velocity_to_epsilon(x1, x_t, column)
        out[f"{name}/x0_to_x1"] = path.epsilon_to_target(x0, x_t, column)
        out[f"{name}/x1_to_x0"] = path.target_to_epsilon(x1, x_t, column)
    return out


def _changed_paths(given: dict) -> dict:
    """One velocity, sin(x) + t, trained on one schedule and used on another."""
    import torch
    from flow_matching.path.scheduler.schedule_transform import ScheduleTransformedModel
    from flow_matching.utils import ModelWrapper

    class Velocity(ModelWrapper):
        def forward(self, x, t, **extras):
            return torch.sin(x) + t

    schedules, out = _schedulers(), {}
    for source, target in TRANSFORMS:
        changed = ScheduleTransformedModel(
            Velocity(torch.nn.Identity()), schedules[source], schedules[target]
        )
        rows = [changed(x, t) for x, t in zip(given["x0"], given["t"], strict=True)]
        out[f"{source}_to_{target}"] = torch.stack(rows)
    return out


def _torchcfm(given: dict) -> dict:
    """Paths and plans of torchcfm; its noise is given, its plans are taken before it draws."""
    from torchcfm import conditional_flow_matching as cfm
    from torchcfm.optimal_transport import OTPlanSampler, wasserstein

    makers = {
        "independent": cfm.ConditionalFlowMatcher,
        "target": cfm.TargetConditionalFlowMatcher,
        "bridge": cfm.SchrodingerBridgeConditionalFlowMatcher,
        "trigonometric": cfm.VariancePreservingConditionalFlowMatcher,
    }
    x0, x1, t, noise = (given[name] for name in ("x0", "x1", "t", "noise"))
    out = {}
    for name, sigma in MATCHERS.items():
        matcher = makers[name](sigma=sigma)
        # The target matcher ignores x0: its noise is the source.
        epsilon = x0 if name == "target" else noise
        x_t = matcher.sample_xt(x0, x1, t, epsilon)
        out[f"{name}/x_t"] = x_t
        out[f"{name}/u_t"] = matcher.compute_conditional_flow(x0, x1, t, x_t)
    bridge = makers["bridge"](sigma=MATCHERS["bridge"])
    out["bridge/lambda"] = bridge.compute_lambda(t)
    out["plan/exact"] = OTPlanSampler("exact").get_map(x0, x1)
    out["plan/sinkhorn"] = OTPlanSampler("sinkhorn", reg=REGULARISATION).get_map(x0, x1)
    for power in (1, 2):
        out[f"wasserstein/{power}"] = wasserstein(x0, x1, method="exact", power=power)
    return out


def arrays() -> dict[str, np.ndarray]:
    """Everything in the file but the versions: name -> float64 array."""
    import torch

    given = {name: torch.from_numpy(x) for name, x in inputs().items()}
    out = given | _flow_matching(given) | _changed_paths(given) | _torchcfm(given)
    return {name: np.asarray(x, np.float64) for name, x in out.items()}


if __name__ == "__main__":
    versions = {name: version(name) for name in PACKAGES}
    np.savez_compressed(FILE, versions=json.dumps(versions), **arrays())
    print(f"{FILE}: {versions}")
