import math

import pytest

from fmjax.checks import check_positive
from fmjax.errors import InputError


@pytest.mark.parametrize("value", [1, 0.5, 1e-300])
def test_a_positive_number_passes(value):
    check_positive("the shift", value)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, -math.inf, math.nan])
def test_anything_else_is_refused_by_name(value):
    with pytest.raises(InputError, match=f"the shift must be a positive number; got {value!r}"):
        check_positive("the shift", value)
