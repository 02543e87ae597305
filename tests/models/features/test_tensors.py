"""Tensors of PyTorch become Flax variables only if they are exactly those of the network."""

import numpy as np
import pytest
from flax import linen as nn

from fmjax.errors import InputError
from fmjax.models.features.tensors import tensor_shapes, variables_from_tensors
from tests.models.features.by_hand import random_tensors


class Small(nn.Module):
    @nn.compact
    def __call__(self, images):
        x = nn.Conv(4, (3, 2), use_bias=False, name="conv")(images.astype(np.float32))
        x = nn.BatchNorm(use_running_average=True, name="bn")(x)
        x = x.mean((1, 2))
        return nn.Dense(5, name="fc")(x), x


SHAPES = tensor_shapes(Small())
TENSORS = random_tensors(SHAPES)


def test_the_shapes_are_torchs():
    assert SHAPES == {
        "conv.weight": (4, 3, 3, 2),
        "bn.weight": (4,),
        "bn.bias": (4,),
        "bn.running_mean": (4,),
        "bn.running_var": (4,),
        "fc.weight": (5, 4),
        "fc.bias": (5,),
    }


def test_every_tensor_goes_to_its_place():
    counted = TENSORS | {"bn.num_batches_tracked": np.int64(7)}
    found = variables_from_tensors(Small(), counted, "tensors")
    kernel = found["params"]["conv"]["kernel"]
    assert kernel[2, 1, 0, 3] == TENSORS["conv.weight"][3, 0, 2, 1]
    assert np.array_equal(found["params"]["fc"]["kernel"], TENSORS["fc.weight"].T)
    assert np.array_equal(found["batch_stats"]["bn"]["var"], TENSORS["bn.running_var"])
    assert np.array_equal(found["params"]["bn"]["scale"], TENSORS["bn.weight"])


def without(name):
    return {key: value for key, value in TENSORS.items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (without("bn.running_var"), "weights.npz does not hold the tensor bn.running_var"),
        (
            TENSORS | {"fc.weight": np.zeros((5, 5), np.float32)},
            r"fc.weight as float32 of shape \(5, 5\); expected floats of shape \(5, 4\)",
        ),
        (TENSORS | {"fc.bias": np.zeros(5, int)}, "fc.bias as int64"),
        (TENSORS | {"fc.bias": np.full(5, np.nan)}, "fc.bias with NaN"),
        (TENSORS | {"aux.weight": np.zeros(5)}, "aux.weight, and 0 more tensors, that Small"),
    ],
)
def test_other_tensors_are_refused(tensors, sentence):
    with pytest.raises(InputError, match=sentence):
        variables_from_tensors(Small(), tensors, "weights.npz")
