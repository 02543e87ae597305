"""The classifier predicts the class of real digits that it has not seen."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fmjax.errors import InputError
from fmjax.metrics import accuracy, fit_classifier


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8, 1), labels


@pytest.mark.parametrize(
    "unit", [lambda x: (x * 255 / 16).astype(np.uint8), lambda x: np.float32(x / 8 - 1)]
)
def test_predicts_held_out_digits_in_any_unit(digits, unit):
    images, labels = unit(digits[0]), digits[1]
    order = np.random.default_rng(0).permutation(len(labels))
    train, held_out = order[:1400], order[1400:]
    predict = fit_classifier(images[train], labels[train])
    predicted = predict(images[held_out])
    assert predicted.dtype == np.int32
    assert accuracy(predicted, labels[held_out]) >= 0.97


def test_keeps_the_given_class_ids(digits):
    chosen = np.isin(digits[1], [3, 7])
    predict = fit_classifier(digits[0][chosen], digits[1][chosen])
    assert set(predict(digits[0][:50])) == {3, 7}


def test_accuracy():
    assert accuracy([1, 2, 3, 4], [1, 2, 3, 9]) == 0.75


X, Y = np.random.default_rng(1).normal(size=(6, 4)), np.array([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (X * np.nan, Y, "images must be finite"),
        (X[:0], Y[:0], "images must hold at least 2"),
        (X, Y[:5], r"labels must be .* of shape \(6,\)"),
        (X, Y * 0, "at least two classes, got only 0"),
        (X, Y * 0.5, "integer class ids of .* got float64"),
    ],
)
def test_bad_fit(images, labels, sentence):
    with pytest.raises(InputError, match=sentence):
        fit_classifier(images, labels)


def test_bad_prediction():
    predict = fit_classifier(X, Y)
    with pytest.raises(InputError, match="images must have 4 features"):
        predict(X[:, :2])
    with pytest.raises(InputError, match="same unit"):
        predict(np.zeros((2, 4), np.uint8))
    with pytest.raises(InputError, match=r"predicted must be .* of shape \(6,\)"):
        accuracy(Y[:4], Y)
    with pytest.raises(InputError, match=r"labels must be .* of shape \(n,\)"):
        accuracy([], [])
