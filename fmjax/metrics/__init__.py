"""How good samples are: numpy arrays in, numbers out.

scikit-learn, scipy and ott are imported when a function needs them. The measures of a trajectory
run a velocity function, and are jax: they compile, and give jax arrays.
"""

from fmjax.metrics.classifier import accuracy, fit_classifier
from fmjax.metrics.coverage import Coverage, precision_recall_density_coverage
from fmjax.metrics.frechet import fit_pca, frechet_distance
from fmjax.metrics.histogram import HistogramTest, histogram_test
from fmjax.metrics.kernels import energy_distance, kernel_distance, mmd
from fmjax.metrics.nearest_neighbour import distance_quantiles, nearest_reference
from fmjax.metrics.trajectory import (
    PathStatistics,
    curvature,
    normalized_path_energy,
    path_energy,
    path_statistics,
    straightness,
)
from fmjax.metrics.transport import sinkhorn_divergence, sliced_wasserstein, wasserstein

__all__ = [
    "Coverage",
    "HistogramTest",
    "PathStatistics",
    "accuracy",
    "curvature",
    "distance_quantiles",
    "energy_distance",
    "fit_classifier",
    "fit_pca",
    "frechet_distance",
    "histogram_test",
    "kernel_distance",
    "mmd",
    "nearest_reference",
    "normalized_path_energy",
    "path_energy",
    "path_statistics",
    "precision_recall_density_coverage",
    "sinkhorn_divergence",
    "sliced_wasserstein",
    "straightness",
    "wasserstein",
]
