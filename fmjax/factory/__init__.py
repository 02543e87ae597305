"""From a configuration to objects: the only place where a string becomes an object.

The two halves of the library meet here: the mathematics, which sees velocity functions, and the
machinery, which sees arrays and pytrees.

- `registry`: the tables of names, and the pieces of mathematics they name;
- `data_spec`: what a model knows of its data; `model`: the network; `settings`: the numbers of a
  run;
- `draw`: from a key and a batch to the arguments of the loss;
- `experiment`: all of these together, which is what everything else asks;
- `training`: from an experiment to the state and the step; `generation`: to the sampler.
"""

from fmjax.factory.data_spec import DataSpec, spec_of
from fmjax.factory.experiment import Experiment, make_experiment
from fmjax.factory.generation import Guidance, Recipe, Solver, make_sampler

__all__ = [
    "DataSpec",
    "Experiment",
    "Guidance",
    "Recipe",
    "Solver",
    "make_experiment",
    "make_sampler",
    "spec_of",
]
