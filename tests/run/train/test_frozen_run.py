"""A run leaves what its configuration freezes as it began, in every one of its checkpoints."""

import jax
import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.factory.training import abstract_state
from fmjax.run.restore import load_params, open_run
from fmjax.run.train.training import train
from fmjax.storage.safetensors import named
from fmjax.training.mesh import make_mesh
from tests.run.conftest import small_config


@pytest.mark.slow
def test_what_a_configuration_freezes_is_not_trained(train_small):
    workdir = train_small(train__frozen="hidden_0/*,condition/*", train__steps=8)
    run, mesh = open_run(workdir), make_mesh()
    fresh = named(jax.jit(run.init_params)(jax.random.key(run.train.seed)))
    for checkpoint in ("4", "8"):
        for ema in (True, False):
            params = named(load_params(workdir, run, checkpoint, ema, mesh)[1])
            for name, leaf in params.items():
                same = np.array_equal(leaf, fresh[name])
                assert same == name.startswith(("hidden_0.", "condition.")), name
    moments = [name for name in named(abstract_state(run, mesh).opt_state) if ".mu." in name]
    assert moments
    assert not [name for name in moments if "hidden_0." in name or "condition." in name]
    train_small(train__frozen="hidden_0/*,condition/*", train__steps=12)  # goes on
    with pytest.raises(
        InputError, match=r"another run, with train\.frozen='hidden_0/\*,condition/\*'"
    ):
        train_small(train__frozen="out/*", train__steps=16)


def test_what_freezes_nothing_is_told_before_the_folder_is_made(tmp_path):
    for frozen, message in (
        ("blocks/*", r"train\.frozen: no parameter matches 'blocks/\*'; there are .*out/"),
        ("*", "matches all .* nothing is left to train"),
    ):
        with pytest.raises(InputError, match=message):
            train(small_config(train__frozen=frozen), tmp_path / "run")
    assert not (tmp_path / "run").exists()
