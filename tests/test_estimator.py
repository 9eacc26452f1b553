"""`LongTailClassifier`: scikit-learn's own checks, and what they do not see: images, methods, the long tail."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from longtail import LongTailClassifier
from longtail.errors import UsageError

COUNTS = (100, 60, 36, 22, 13, 8, 5, 4, 3, 2)


@pytest.fixture(scope="module")
def digits():
    """Long-tailed training digits and balanced test digits: (X, y, X, y), the images (N, 8, 8) within 0..1."""
    source = load_digits()
    members = [np.flatnonzero(source.target == c) for c in range(10)]
    train = np.concatenate([rows[:count] for rows, count in zip(members, COUNTS, strict=True)])
    test = np.concatenate([rows[120:170] for rows in members])
    images, labels = source.images / 16, np.array([f"digit {k}" for k in source.target])
    return images[train], labels[train], images[test], labels[test]


def flat(images):
    return images.reshape(len(images), -1)


def test_scikit_learn_s_checks():
    """All of them; scikit-learn itself leaves out those for packages that are not there."""
    results = check_estimator(LongTailClassifier(epochs=4, lr=0.3), on_skip=None)
    assert len(results) > 45
    assert {result["status"] for result in results} <= {"passed", "skipped"}
    skipped = {result["check_name"] for result in results if result["status"] == "skipped"}
    assert skipped <= {"check_array_api_input", "check_classifier_data_not_an_array"}


def test_a_balanced_loss_finds_the_tail_on_features(digits):
    x, y, test_x, test_y = digits
    scores = {
        method: LongTailClassifier(method, random_state=0).fit(flat(x), y).score(flat(test_x), test_y)
        for method in ("ce", "bsce")
    }
    assert scores["bsce"] > scores["ce"] + 0.05
    assert scores["bsce"] > 0.7


@pytest.mark.parametrize("method", ["la", "ldam+drw", "crt", "lws", "tau-norm", "ncm", "ce+post-hoc-la", "cb-sampling"])
def test_classifier_methods_on_features(digits, method):
    x, y, test_x, test_y = digits
    model = LongTailClassifier(method, epochs=20, random_state=0).fit(flat(x), y)
    probabilities = model.predict_proba(flat(test_x))
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (model.predict(flat(test_x)) == model.classes_[probabilities.argmax(1)]).all()
    assert model.score(flat(test_x), test_y) > 0.6


def test_options_reach_the_method(digits):
    x, y, test_x, _ = digits
    fits = [LongTailClassifier("la", options={"tau": tau}, epochs=5, random_state=0).fit(flat(x), y) for tau in (0, 2)]
    tail = [model.predict_proba(flat(test_x))[:, -3:].sum(1).mean() for model in fits]
    assert tail[1] > tail[0] + 0.05
    with pytest.raises(UsageError, match="unknown option"):
        LongTailClassifier("la", options={"tua": 1}).fit(flat(x), y)


def test_images_in_every_layout_give_the_same_network(digits):
    x, y, test_x, _ = digits
    as_uint8 = np.rint(x * 255).astype(np.uint8)
    layouts = {"(N, H, W)": as_uint8, "NHWC": as_uint8[..., None], "NCHW": as_uint8[:, None], "0..1": x}
    answers = {}
    for name, images in layouts.items():
        model = LongTailClassifier("bsce", epochs=2, flip=False, random_state=0).fit(images, y)
        asked = test_x if name == "0..1" else np.rint(test_x * 255).astype(np.uint8)
        answers[name] = model.predict_proba(asked)
    for name, found in answers.items():
        np.testing.assert_allclose(found, answers["(N, H, W)"], rtol=1e-4, err_msg=name)


def test_a_network_learns_images(digits):
    x, y, test_x, test_y = digits
    model = LongTailClassifier("bsce", epochs=25, flip=False, random_state=0).fit(x, y)
    assert model.score(test_x, test_y) > 0.7
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copied.predict(test_x), model.predict(test_x))


def test_experts_on_colour_images():
    images = np.random.default_rng(0).integers(0, 256, (40, 12, 10, 3), dtype=np.uint8)
    y = np.arange(40) % 3
    model = LongTailClassifier("sade", epochs=2, random_state=0).fit(images, y)
    assert model.predict_proba(images.transpose(0, 3, 1, 2)).shape == (40, 3)


def test_the_seed_decides_and_torch_s_own_generator_is_left_alone(digits):
    x, y, test_x, _ = digits
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again, other = (
        LongTailClassifier(epochs=2, random_state=seed).fit(flat(x), y).predict_proba(flat(test_x))
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, rtol=1e-3)


def test_pipeline_and_grid_search(digits):
    x, y, test_x, test_y = digits
    y = np.where(np.isin(y, ["digit 8", "digit 9"]), "rare", y)  # enough of each class for two folds
    pipeline = make_pipeline(FunctionTransformer(flat), LongTailClassifier(epochs=3, random_state=0))
    grid = {"longtailclassifier__method": ["ce", "bsce"], "longtailclassifier__lr": [None, 0.2]}
    search = GridSearchCV(pipeline, grid, cv=2, scoring="balanced_accuracy", error_score="raise").fit(x, y)
    assert search.best_score_ > 0.5
    assert len(search.predict(test_x)) == len(test_y)
    assert clone(search.best_estimator_)[-1].get_params()["epochs"] == 3


@pytest.mark.parametrize(
    ("shape", "scale", "message"),
    [
        ((9, 4, 4, 2), 1.0, "it must be"),
        ((9, 2, 4, 4, 3), 1.0, "it must be"),
        ((9, 4, 4), 300.0, "images are uint8, or numbers within 0..1"),
        ((9, 4, 4), -1.0, "images are uint8, or numbers within 0..1"),
    ],
)
def test_arrays_that_are_no_images(shape, scale, message):
    images = scale * np.random.default_rng(0).uniform(0.1, 1, shape)
    with pytest.raises(ValueError, match=message):
        LongTailClassifier(epochs=1).fit(images, np.arange(9) % 2)


def test_wrong_use(digits):
    x, y, _, _ = digits
    with pytest.raises(ValueError, match="needs two classes or more"):
        LongTailClassifier().fit(x, np.zeros(len(x)))
    with pytest.raises(UsageError, match=r"sade does not work on fixed features.*\n.*LongTailClassifier: fit images"):
        LongTailClassifier("sade").fit(flat(x), y)
    with pytest.raises(UsageError, match="LongTailClassifier has no such set"):
        LongTailClassifier("l2rw").fit(x, y)
    with pytest.raises(UsageError, match="unknown option 'tau'\n  there are no options here"):
        LongTailClassifier("bsce", options={"tau": 1}).fit(flat(x), y)
    with pytest.raises(UsageError, match="unknown method"):
        LongTailClassifier("bcse").fit(flat(x), y)
    with pytest.raises(UsageError, match="epochs is 0"):
        LongTailClassifier(epochs=0).fit(flat(x), y)
    on_features = LongTailClassifier(epochs=1).fit(flat(x), y)
    with pytest.raises(ValueError, match="trained on features"):
        on_features.predict(np.zeros((2, 64, 3)))
    on_images = LongTailClassifier(epochs=1).fit(x, y)
    with pytest.raises(ValueError, match=r"training had \(1, 8, 8\)"):
        on_images.predict(np.zeros((2, 8, 9)))
