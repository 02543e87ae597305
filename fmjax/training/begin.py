"""Where a training begins: with fresh parameters, given ones, a state, or a checkpoint."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import optax
from jaxtyping import PRNGKeyArray

from fmjax.first_process import say
from fmjax.training.fit_checks import check_params, check_state
from fmjax.training.folder import Folder
from fmjax.training.parallelism import Jit, Pmap
from fmjax.training.settings import Settings
from fmjax.training.sharding import state_shardings
from fmjax.training.state import TrainState, init_state


class Begin:
    """Where a training begins, whatever its parameters came as.

    Attributes:
        abstract: the shapes of the state.
    """

    def __init__(
        self,
        params: Any,
        optimizer: optax.GradientTransformation,
        layout: Jit | Pmap,
        settings: Settings,
        frozen: Sequence[str] = (),
    ):
        """Args as in `fit`.

        Raises:
            InputError: the parameters are not arrays of floats, the state is of something else, or
                a pattern of what is frozen matches nothing.
        """
        self._given, self._layout, self._seed = params, layout, settings.seed
        average = settings.ema is not None
        self._make = partial(init_state, optimizer=optimizer, average=average, frozen=frozen)
        if isinstance(params, TrainState):
            check_state(params, optimizer, average, frozen)
            self.abstract = jax.eval_shape(lambda state: state, params)
        elif self._is_init():
            self.abstract = jax.eval_shape(self._init, jax.random.key(0))
            check_params(self.abstract.params)
        else:
            check_params(params)
            self.abstract = jax.eval_shape(self._make, params)

    def _is_init(self) -> bool:
        # A module of parameters may be callable too, but a function is a leaf.
        return callable(self._given) and jax.tree.leaves(self._given) == [self._given]

    def _init(self, key: PRNGKeyArray) -> TrainState:
        return self._make(self._given(key))

    def state(self, folder: Folder | None, exact: bool) -> TrainState:
        """The state to start from: the folder's newest, unless the one given is as new."""
        given = int(self._given.step) if isinstance(self._given, TrainState) else -1
        if folder is not None and max(folder.checkpoints.steps(), default=-1) > given:
            return self._restored(folder, exact)
        if self._is_init():
            return self._layout.init(self._init, jax.random.key(self._seed))
        shardings = state_shardings(self.abstract, self._layout.mesh, self._layout.rules)
        if given >= 0:
            return self._layout.from_global(jax.device_put(self._given, shardings))
        # A program's results are arrays of their own: the step may donate them.
        made = jax.jit(self._make, out_shardings=shardings)(self._given)
        return self._layout.from_global(made)

    def _restored(self, folder: Folder, exact: bool) -> TrainState:
        shardings = state_shardings(self.abstract, self._layout.mesh, self._layout.rules)
        target = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            self.abstract,
            shardings,
        )
        found = folder.checkpoints.restore_latest(target._asdict())
        assert found is not None, "there are checkpoints"
        step, parts = found
        say(f"{folder.path}: going on at step {step}", file=sys.stderr)
        if not exact:
            say(
                "data is an iterator, which starts where it stands: the examples from here on are "
                "not those of a training that was never stopped.",
                file=sys.stderr,
            )
        return self._layout.from_global(TrainState(**parts))
