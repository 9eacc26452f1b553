import pytest
import torch
from recipes import lent, recipe_of

import longtail
from longtail.sampling import ClassBalancedSampling, InstanceSampling


def test_loss_is_the_weighted_mean_by_inverse_frequency(digits):
    objective = recipe_of("rw", digits).stages[0].objective
    logits = torch.randn(6, 10, dtype=torch.float64)
    targets = torch.tensor([0, 0, 3, 9, 9, 5])
    weights = 1 / torch.tensor(digits.class_counts, dtype=torch.float64)[targets]
    losses = -logits.log_softmax(1)[torch.arange(6), targets]
    expected = (weights * losses).sum() / weights.sum()
    torch.testing.assert_close(objective.criterion(logits, targets), expected)


def test_powers(digits):
    root = recipe_of("rw", digits, power=0.5).stages[0].objective.criterion.class_weights
    counts = torch.tensor(digits.class_counts, dtype=torch.float64)
    torch.testing.assert_close(root / root[0], (counts[0] / counts).sqrt())
    assert torch.equal(
        recipe_of("rw", digits, power=0).stages[0].objective.criterion.class_weights, torch.ones(10).double()
    )
    with pytest.raises(longtail.UsageError, match="power must be"):
        recipe_of("rw", digits, power=-1)


@pytest.mark.parametrize("features", ["ce", "rw", "rs"])
@pytest.mark.parametrize("classifier", ["ce", "rw", "rs"])
def test_crt_learns_each_part_in_its_manner(features, classifier, digits):
    recipe = recipe_of("crt", digits, features=features, classifier=classifier)
    whole = {"ce": "ce", "rw": "rw", "rs": "cb-sampling"}[features]
    assert lent("crt", whole, digits, features=features, classifier=classifier) == 1
    for stage, manner in zip(recipe.stages, (features, classifier), strict=True):
        assert stage.sampling == ((ClassBalancedSampling(),) if manner == "rs" else (InstanceSampling(),))
        assert (stage.objective.criterion.class_weights is not None) == (manner == "rw")
    assert recipe.stages[1].trainable == "head"
