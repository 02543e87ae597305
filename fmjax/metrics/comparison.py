"""Samples beside real examples in some features: every figure with what it was measured in."""

from typing import Any

import numpy as np
from jaxtyping import Float

from fmjax.metrics.coverage import precision_recall_density_coverage
from fmjax.metrics.features import Features
from fmjax.metrics.frechet import frechet_distance
from fmjax.metrics.kernels import kernel_distance_of_subsets
from fmjax.metrics.reference import ReferenceStatistics
from fmjax.metrics.streaming import Collected

NEIGHBOUR = 5
_SUBSETS, _SUBSET_SIZE = 100, 1000


def compare(
    features: Features, samples: Collected, real: Collected | ReferenceStatistics
) -> dict[str, Any]:
    """Measures samples against real examples.

    Args:
        features: that both were collected in.
        samples: from `fmjax.metrics.collect`.
        real: from `collect` too, or statistics of real examples, of which a Fréchet distance alone
            can be told.

    Returns:
        A dict that goes into JSON. ``features``, their ``digest`` and their number, ``dims``;
        ``samples`` and ``real``, how many examples, and ``singular`` where one of them is not more
        than the features, so that its covariance has no inverse and the distance lies far too high.
        ``frechet``: the squared distance of the ``samples`` from all real examples, and that
        between two ``real_halves``. ``kernel``: the kernel distance over subsets, and
        ``coverage``: precision, recall, density and coverage, both at ``examples`` a set, of the
        ``samples`` from one half and of the ``real_halves``; left out where these are too few.
    """
    drawn = samples.whole
    count = real.count if isinstance(real, ReferenceStatistics) else real.whole.count
    report: dict[str, Any] = {
        "features": features.name,
        "digest": features.digest,
        "dims": len(drawn.mean),
        "samples": drawn.count,
        "real": count,
        "singular": min(drawn.count, count or drawn.count) <= len(drawn.mean),
    }
    if isinstance(real, ReferenceStatistics):
        apart, halves = frechet_distance(drawn.gaussian(), real.gaussian), real.real_halves
        return report | {"frechet": {"samples": apart, "real_halves": halves}}
    report["frechet"] = {
        "samples": frechet_distance(drawn.gaussian(), real.whole.gaussian()),
        "real_halves": frechet_distance(*(half.gaussian() for half in real.halves)),
    }
    return report | _of_rows(samples.all_rows, *real.rows)


def _of_rows(
    samples: Float[np.ndarray, "n features"],
    half: Float[np.ndarray, "m features"],
    other: Float[np.ndarray, "k features"],
) -> dict[str, Any]:
    """The figures of single examples, at equal numbers; rows are in random order."""
    n = min(len(half), len(other), len(samples))
    pairs = {"samples": samples[:n], "real_halves": other[:n]}
    report: dict[str, Any] = {}
    size = min(n // 2, _SUBSET_SIZE)  # subsets of the whole would all be one
    if size >= 2:
        report["kernel"] = {"examples": n, "subsets": _SUBSETS, "size": size}
        for name, rows in pairs.items():
            kernel = kernel_distance_of_subsets(half[:n], rows, subsets=_SUBSETS, size=size)
            report["kernel"][name] = kernel._asdict()
    if n > NEIGHBOUR:
        report["coverage"] = {"examples": n, "k": NEIGHBOUR}
        for name, rows in pairs.items():
            coverage = precision_recall_density_coverage(half[:n], rows, NEIGHBOUR)
            report["coverage"][name] = coverage._asdict()
    return report


def describe_comparison(report: dict[str, Any], distance: str) -> str:
    """The report in a few lines for a person.

    Args:
        report: from `compare`.
        distance: what the Fréchet distance is called, from `Features.distance`.
    """
    digest = f", sha256 {report['digest'][:12]}" if report["digest"] else ""
    real = "an unknown number of" if report["real"] is None else report["real"]
    f = report["frechet"]
    if f["real_halves"] is None:
        halves = "the statistics do not say how far two halves of the real ones are apart"
    else:
        each = "" if report["real"] is None else f", {report['real'] // 2} each"
        halves = f"two halves of the real ones{each}: {f['real_halves']:.4g}"
    lines = [
        f"in {report['dims']} features ({report['features']}{digest}):",
        f"{distance} (squared) of {report['samples']} samples from {real} real examples: "
        f"{f['samples']:.4g} ({halves})",
    ]
    if "kernel" in report:
        k = report["kernel"]
        ours, halves = (
            f"{k[name]['mean']:.4g} ± {k[name]['standard_error']:.2g}"
            for name in ("samples", "real_halves")
        )
        lines.append(
            f"kernel distance (KID) of {k['examples']} samples from {k['examples']} real examples, "
            f"{k['subsets']} subsets of {k['size']}: {ours} (two halves of the real ones: {halves})"
        )
    if "coverage" in report:
        c = report["coverage"]
        figures = ", ".join(
            f"{name} {c['samples'][name]:.3f} ({c['real_halves'][name]:.3f})"
            for name in c["samples"]
        )
        lines.append(
            f"{figures} of {c['examples']} samples against {c['examples']} real examples, k = "
            f"{c['k']} (in brackets: two halves of the real ones)"
        )
    if report["singular"]:
        lines.append(
            f"note: not more examples than the {report['dims']} features: the covariance is "
            "singular and the Fréchet distance far too high; take more, or read the kernel "
            "distance, which has no such bias"
        )
    return "\n".join(lines)
