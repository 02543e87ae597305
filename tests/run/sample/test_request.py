"""What is asked of a sample run, before any model is read."""

import numpy as np
import pytest

from fmjax.errors import InputError
from fmjax.run.sample.request import Request, check_request


@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        ((0, 1, 2), 3),
        (tuple(range(20)), 20),
        (tuple(range(21)), 20),
        ((), 10),
        (None, 10),
        (np.zeros((30, 4)), 10),
    ],
)
def test_a_picture_has_a_column_for_each_class_that_repeats(labels, columns):
    assert Request(5, labels).columns == columns


def test_the_number_of_a_sample_is_an_int32():
    check_request(Request(2**31 - 1))
    with pytest.raises(InputError, match=r"number of samples must lie in \[1, 2147483647\]"):
        check_request(Request(2**31))


def test_samples_take_labels_scales_and_points_in_turn():
    request = Request(9, (4, 5), (1.0, 2.0, 3.0), x0=np.arange(4.0))
    index, labels, w = request.rows(None, 3, 5)
    np.testing.assert_array_equal(index, [3, 4, 5, 6, 7])
    np.testing.assert_array_equal(labels, [5, 4, 5, 4, 5])
    np.testing.assert_array_equal(w, [2, 3, 3, 1, 1])  # both labels at a scale, then the next
    np.testing.assert_array_equal(request.points(3, 5)[0], [3, 0, 1, 2, 3])
    assert Request(9).points(3, 5) == ()
