"""How good samples are: numpy arrays in, numbers out.

scikit-learn and scipy are imported when a function needs them.
"""

from fmjax.metrics.frechet import fit_pca, frechet_distance
from fmjax.metrics.histogram import HistogramTest, histogram_test
from fmjax.metrics.nearest import distance_quantiles, nearest_reference
from fmjax.metrics.reader import accuracy, fit_reader

__all__ = [
    "HistogramTest",
    "accuracy",
    "distance_quantiles",
    "fit_pca",
    "fit_reader",
    "frechet_distance",
    "histogram_test",
    "nearest_reference",
]
