"""The conditions of a model, chosen among those of the data."""

import pytest

from fmjax.conditions import ClassIds, Mask, Sequence
from fmjax.config import default_config
from fmjax.data.codecs import Vectors
from fmjax.errors import InputError
from fmjax.factory.data_spec import DataSpec, model_conditions

SPEC = DataSpec(
    Vectors(2),
    {"kind": ClassIds(3), "text": Sequence(4, 2), "text_mask": Mask(4, of="text")},
)


def chosen(**labels):
    config = default_config()
    config.labels.update(labels)
    return model_conditions(config, SPEC)


def test_a_mask_takes_no_rate_of_the_configuration():
    found = chosen(drop_rate=0.2)
    assert found["text"] == Sequence(4, 2, drop_rate=0.2)
    assert found["text_mask"] == Mask(4, of="text")


def test_a_sequence_is_chosen_with_its_mask():
    assert chosen(only="text").keys() == {"text", "text_mask"}
    assert chosen(only="kind").keys() == {"kind"}


def test_a_mask_without_its_sequence_is_refused():
    with pytest.raises(InputError, match="the mask text_mask is of a sequence 'text'"):
        chosen(only="text_mask")
