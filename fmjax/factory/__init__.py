"""From a configuration to objects: the only place where a string becomes an object.

The two halves of the library meet here: the mathematics, which sees velocity functions, and the
machinery, which sees arrays and pytrees.
"""

from fmjax.factory.experiment import DataSpec, Experiment, check_guidance, make_experiment
from fmjax.factory.generation import RULES, Guidance, Recipe, bind, check_guidance_choice, flow

__all__ = [
    "RULES",
    "DataSpec",
    "Experiment",
    "Guidance",
    "Recipe",
    "bind",
    "check_guidance",
    "check_guidance_choice",
    "flow",
    "make_experiment",
]
