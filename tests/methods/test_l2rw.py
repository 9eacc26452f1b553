"""Learning to reweight: the published weights, and batches that teach nothing."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from meta_steps import CASES, COUNTS, Perceptron, batch_of, small, stored

from longtail.losses import CrossEntropyLoss
from longtail.methods.l2rw import L2RWObjective, clipped_weights
from longtail.methods.meta import WeightRecord, forward, gains
from longtail.types import Progress


class BinaryLoss(CrossEntropyLoss):
    """Sigmoid cross-entropy of one logit, for the stored case of L2RW."""

    def sample_losses(self, logits, targets):
        return F.binary_cross_entropy_with_logits(logits.squeeze(1), targets.to(logits.dtype), reduction="none")


def test_weights_are_those_of_l2rw():
    case = CASES["l2rw_seed1"]
    inputs = case["inputs"]
    weights = {"l1.weight": torch.tensor(inputs["W1"]).T.tolist(), "l1.bias": inputs["b1"]}
    weights |= {"l2.weight": torch.tensor(inputs["W2"]).T.tolist(), "l2.bias": inputs["b2"]}
    network, loss = Perceptron(weights), BinaryLoss([1, 1])
    batch = stored({"x": inputs["x_train"], "y": [int(y) for y in inputs["y_train"]]})
    dev = stored({"x": inputs["x_dev"], "y": [int(y) for y in inputs["y_dev"]]})
    gain = gains(network, forward(network, batch, loss), dev, loss, loss, coefficients=None, eta=0.0)
    expected = torch.tensor(case["output"]["u_raw_by_formula"], dtype=torch.float64)
    torch.testing.assert_close(gain, expected, rtol=1e-6, atol=1e-8)
    expected = torch.tensor(case["output"]["weights"], dtype=torch.float64)
    torch.testing.assert_close(clipped_weights(gain) / len(batch), expected, rtol=0, atol=1e-6)


def test_l2rw_makes_no_step_where_every_image_disagrees_with_the_development_set():
    network, batch, _ = small(torch.float32)
    # The same images with the wrong label: descending on them is ascending on the development batch.
    network.eval()
    batch = batch_of(batch.images[:1], batch.targets[:1])
    dev = batch_of(batch.images, (batch.targets + 1) % 4)
    objective = L2RWObjective(CrossEntropyLoss(COUNTS), WeightRecord(4, 1))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    before = copy.deepcopy(network.state_dict())
    loss = objective(network, (batch, dev), Progress(0, 1, lr=0.1))
    assert loss.item() == 0
    loss.backward()
    assert all(torch.count_nonzero(p.grad) == 0 for p in network.parameters())
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert objective.record.count.sum() == 1
    assert objective.record.weight.sum() == 0


def test_l2rw_s_products_are_those_of_the_gradients_of_single_images():
    network, batch, dev = small()
    network.eval()  # without batch statistics the loss of an image is its own
    loss = CrossEntropyLoss(COUNTS)
    parameters = list(network.parameters())
    towards = torch.autograd.grad(loss(network(dev.images), dev.targets), parameters)
    slow = [
        sum(
            (a * b).sum() for a, b in zip(torch.autograd.grad(one, parameters, retain_graph=True), towards, strict=True)
        )
        for one in loss.sample_losses(network(batch.images), batch.targets)
    ]
    fast = gains(network, forward(network, batch, loss), dev, loss, loss, coefficients=None, eta=0.0)
    torch.testing.assert_close(fast, torch.stack(slow))
