"""How good samples are: numpy arrays in, numbers out.

scikit-learn, scipy and ott are imported when a function needs them. The measures of a trajectory
run a velocity function, and are jax: they compile, and give jax arrays.

| files | hold |
|---|---|
| `features` | what two sets are compared in: pixels, principal components, a network |
| `moments`, `streaming` | count, mean, covariance of a stream of examples; features of some |
| `frechet`, `kernels`, `coverage`, `transport` | distances between two sets of features |
| `reference` | statistics of real data in a file |
| `comparison` | all figures of samples beside real examples, in words and for JSON |
| `classifier`, `histogram`, `nearest_neighbour` | classes of samples, and copies among them |
| `trajectory` | how straight a flow is |
"""

from fmjax.metrics.classifier import accuracy, fit_classifier
from fmjax.metrics.comparison import compare, describe_comparison
from fmjax.metrics.coverage import Coverage, precision_recall_density_coverage
from fmjax.metrics.features import Features, network_features, pca_features, pixel_features
from fmjax.metrics.frechet import fit_pca, frechet_distance
from fmjax.metrics.histogram import HistogramTest, histogram_test
from fmjax.metrics.kernels import (
    SubsetMean,
    energy_distance,
    kernel_distance,
    kernel_distance_of_subsets,
    mmd,
)
from fmjax.metrics.moments import Gaussian, Moments, merge_moments, moments_of
from fmjax.metrics.nearest_neighbour import distance_quantiles, nearest_reference
from fmjax.metrics.reference import (
    ReferenceStatistics,
    make_reference,
    read_reference,
    write_reference,
)
from fmjax.metrics.streaming import Collected, collect
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
    "Collected",
    "Coverage",
    "Features",
    "Gaussian",
    "HistogramTest",
    "Moments",
    "PathStatistics",
    "ReferenceStatistics",
    "SubsetMean",
    "accuracy",
    "collect",
    "compare",
    "curvature",
    "describe_comparison",
    "distance_quantiles",
    "energy_distance",
    "fit_classifier",
    "fit_pca",
    "frechet_distance",
    "histogram_test",
    "kernel_distance",
    "kernel_distance_of_subsets",
    "make_reference",
    "merge_moments",
    "mmd",
    "moments_of",
    "nearest_reference",
    "network_features",
    "normalized_path_energy",
    "path_energy",
    "path_statistics",
    "pca_features",
    "pixel_features",
    "precision_recall_density_coverage",
    "read_reference",
    "sinkhorn_divergence",
    "sliced_wasserstein",
    "straightness",
    "wasserstein",
    "write_reference",
]
