"""Makes manifolds.npz: what geomstats computes, in float64, at a few fixed points.

    pip install geomstats "numpy<2" "scipy<1.14"
    python tests/golden/make_manifolds.py

`tests/manifolds/test_peers.py` holds fmjax to these numbers without geomstats.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

FILE = Path(__file__).resolve().parent / "manifolds.npz"
N = 4
TRANSPORTED = ("sphere", "spd", "so3")  # geomstats has no closed form on the others


def _spaces() -> dict:
    """A space of geomstats for each name."""
    from geomstats.geometry.hypersphere import Hypersphere
    from geomstats.geometry.poincare_ball import PoincareBall
    from geomstats.geometry.spd_matrices import SPDAffineMetric, SPDMatrices
    from geomstats.geometry.special_orthogonal import SpecialOrthogonal

    positive = SPDMatrices(3, equip=False)
    positive.equip_with_metric(SPDAffineMetric)
    return {
        "sphere": Hypersphere(3),
        "hyperbolic": PoincareBall(3),
        "spd": positive,
        "so3": SpecialOrthogonal(3),
    }


def _points(name: str, rng: np.random.Generator) -> np.ndarray:
    draws = rng.normal(size=(N, 3, 3))
    if name == "sphere":
        points = rng.normal(size=(N, 4))
        return points / np.linalg.norm(points, axis=-1, keepdims=True)
    if name == "hyperbolic":
        return 0.7 * np.tanh(rng.normal(size=(N, 3))) / np.sqrt(3)
    if name == "spd":
        return draws @ draws.swapaxes(1, 2) + 0.5 * np.eye(3)
    q = np.linalg.qr(draws)[0]
    return q * np.sign(np.linalg.det(q))[:, None, None]


def main() -> None:
    """Writes the file."""
    out = {"versions": np.array(json.dumps({"geomstats": version("geomstats")}))}
    rng = np.random.default_rng(0)
    for name, space in _spaces().items():
        x, y = _points(name, rng), _points(name, rng)
        metric = space.metric
        u = space.to_tangent(rng.normal(size=x.shape), x)
        v = space.to_tangent(rng.normal(size=x.shape), x)
        log = metric.log(y, x)
        out |= {f"{name}/x": x, f"{name}/y": y, f"{name}/u": u, f"{name}/v": v}
        out[f"{name}/log"] = log
        out[f"{name}/exp"] = metric.exp(0.5 * u, x)
        out[f"{name}/inner"] = metric.inner_product(u, v, x)
        out[f"{name}/dist"] = metric.dist(x, y)
        if name in TRANSPORTED:
            out[f"{name}/transport"] = metric.parallel_transport(u, x, direction=log)
    np.savez_compressed(FILE, **out)


if __name__ == "__main__":
    main()
