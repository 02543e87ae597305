"""Flows of tokens: text, levels of pixels, atoms, anything that is one of a number of things.

A token flow turns source tokens, masks or random ones, into data tokens one jump at a time. A path
says with which probabilities, the network guesses the data from what is there, and a solver of
jumps takes the place of an ODE solver.

    path = MixturePath(27, "mask", loss=Masked())
    loss_fn = make_loss_fn(apply_fn, path)
    args = Draw(source=path.source, noise=loss_fn.noise)(key, index, x1, labels)
    samples = solve_sde(network, x0, keys, labels, Unmask(path, 64)).x1

============================================  ==================================================
`MixturePath`                                 each token is source, then data; any p_0, any kappa
`MetricPath`, `OwnPath`                       tokens near x1 first; any probabilities of your own
`CrossEntropy`, `GeneralisedKL`,              what is trained, the last three as bounds of the
`ScoreEntropy`, `Masked`                      likelihood
`TauLeap`, `Unmask`, `Purity`                 solvers, with `Corrector`, temperature and top-p
`predictor_free`                              guidance, R_c^w R_u^(1-w)
`infilling`, `Given`                          some tokens are given
`token_log_likelihood`                        a bound of log p; `exact_probabilities` of a few
`JointSteps`, `EulerStep`                     numbers, tokens and manifolds together
`SimplexPath`, `simplex_velocity`             tokens as points that move in the simplex
============================================  ==================================================
"""

from fmjax.discrete.base import TokenLoss, TokenPath
from fmjax.discrete.corrector import Corrector
from fmjax.discrete.exact import exact_probabilities
from fmjax.discrete.guess import GuidedLogits
from fmjax.discrete.guidance import predictor_free
from fmjax.discrete.infilling import Given, infilling
from fmjax.discrete.joint_steps import EulerStep, JointSteps
from fmjax.discrete.kappas import CosineKappa, CubicKappa
from fmjax.discrete.kinetic import MetricPath, OwnPath, embedding_distances
from fmjax.discrete.likelihood import TokenLikelihood, token_log_likelihood
from fmjax.discrete.losses import CrossEntropy, GeneralisedKL, Masked, ScoreEntropy
from fmjax.discrete.mixture import MixturePath
from fmjax.discrete.simplex import (
    DirichletPoints,
    SimplexPath,
    corners,
    nearest_corners,
    simplex_velocity,
)
from fmjax.discrete.solvers import Purity, TauLeap, TokenSolver, Unmask
from fmjax.discrete.token_sources import (
    CategoricalTokens,
    MaskTokens,
    TokenSource,
    UniformTokens,
)

__all__ = [
    "CategoricalTokens",
    "Corrector",
    "CosineKappa",
    "CrossEntropy",
    "CubicKappa",
    "DirichletPoints",
    "EulerStep",
    "GeneralisedKL",
    "Given",
    "GuidedLogits",
    "JointSteps",
    "MaskTokens",
    "Masked",
    "MetricPath",
    "MixturePath",
    "OwnPath",
    "Purity",
    "ScoreEntropy",
    "SimplexPath",
    "TauLeap",
    "TokenLikelihood",
    "TokenLoss",
    "TokenPath",
    "TokenSolver",
    "TokenSource",
    "UniformTokens",
    "Unmask",
    "corners",
    "embedding_distances",
    "exact_probabilities",
    "infilling",
    "nearest_corners",
    "predictor_free",
    "simplex_velocity",
    "token_log_likelihood",
]
