"""Closed forms and checks, for tests of a flow of your own."""

from fmjax.testing.finite import FiniteDataFlow
from fmjax.testing.gaussian import GaussianFlow
from fmjax.testing.mixture import MixtureFlow

__all__ = ["FiniteDataFlow", "GaussianFlow", "MixtureFlow"]
