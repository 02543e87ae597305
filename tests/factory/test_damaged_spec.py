"""What a damaged record says of the data is refused in a sentence."""

import pytest

from fmjax.config import default_config
from fmjax.data.codecs import Vectors
from fmjax.errors import InputError
from fmjax.factory.data_spec import DataSpec, model_conditions


@pytest.mark.parametrize("conditions", [203787, "classes", {"age": 1.5}])
def test_what_is_no_condition_is_refused(conditions):
    with pytest.raises(InputError, match="conditions must be conditions such as ClassIds"):
        model_conditions(default_config(), DataSpec(Vectors(2), conditions))
