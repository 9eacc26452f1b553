"""From logits to class probabilities that can be believed: a temperature, and the prior that a model has in mind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from longtail.evaluation.calibration import calibration, expected_calibration_error
from longtail.evaluation.checks import check_logits, softmax
from longtail.losses.logit_adjustment import logit_adjustments

Floats = NDArray[np.float64]

_MOST_NUMBERS = 8_000_000  # logits that a fit looks at; two parameters need no more
_FOLDS = 5
_SINKHORN_STEPS, _SINKHORN_ERROR = 300, 1e-6
_LEAST_IMAGES = 20  # below this, held-out parts of held-out images say nothing


@dataclass(frozen=True)
class Posterior:
    """How a model's logits z become class probabilities: ``p(c | x) ~ exp(z_c / T) * prior_c / reference_c``.

    The reference ``reference_c ~ n_c ** tau`` is how frequent the model takes the classes to be: as in training
    (``tau`` near 1) after plain cross-entropy, all alike (``tau`` near 0) after a method that balances. Without a prior
    of their own the classes are taken to be as the model has them, so that its answers stay.

    Attributes:
        class_counts: Training images per class n_c, length C.
        temperature: T (Guo et al., ICML 2017).
        tau: Strength of the training prior in the logits.
        held_out: Images that the two were fitted on; 0 where there were none.
    """

    class_counts: tuple[int, ...]
    temperature: float = 1.0
    tau: float = 0.0
    held_out: int = 0

    @property
    def reference(self) -> Floats:
        """How frequent the model takes the classes to be, (C,), summing to 1."""
        shares: Floats = softmax(self.tau * _log_train_prior(self.class_counts)[None])[0]
        return shares

    def probabilities(self, logits: ArrayLike, prior: ArrayLike | None = None) -> Floats:
        """Return the class probabilities, (N, C), of logits (N, C).

        Args:
            logits: What the model says.
            prior: How frequent the classes are where the images come from, (C,), in any unit; a class of 0 is never
                answered. None: as the model has it.

        Raises:
            ValueError: The prior is not one number for each class, none negative and one above 0.
        """
        scores = np.asarray(logits, dtype=np.float64) / self.temperature
        if prior is not None:
            with np.errstate(divide="ignore"):
                scores = scores + np.log(self._shares(prior)) - np.log(self.reference)
        return softmax(scores)

    def matched(self, logits: ArrayLike, prior: ArrayLike, image_weights: ArrayLike | None = None) -> Floats:
        """Return the class probabilities, (N, C), whose mean over all images is the prior.

        ``p(c | x) ~ exp(z_c / T) b_c``, with b_c such that mean_x p(c | x) = prior_c: entropic optimal transport from
        the images to the classes, by Sinkhorn's iteration to within 1e-6 or 300 steps. It is what the abstract of
        Jin, Lang and Lei (IJCV 2023) says of their Post-OT; there is no code to compare with. Where `probabilities`
        trusts the reference to say how frequent the model takes a class to be, this looks at the images themselves. It
        needs enough of them to tell. A class to which the model gives no image at all is left out.

        Args:
            logits: What the model says of all images that the prior is about, (N, C).
            prior: How frequent the classes are among them, (C,), in any unit.
            image_weights: How often each image counts, (N,); None: once.

        Raises:
            ValueError: The prior is not one number for each class, none negative and one above 0.
        """
        wanted = self._shares(prior)
        scores = np.asarray(logits, dtype=np.float64) / self.temperature
        found = softmax(np.where(wanted > 0, scores, -np.inf))
        if len(found) == 0:
            return found
        wanted = self._shares(np.where(found.any(0), wanted, 0))
        weights = np.ones(len(found)) if image_weights is None else np.asarray(image_weights, dtype=np.float64)
        factors = np.ones(len(wanted))
        for _ in range(_SINKHORN_STEPS):
            means = (weights / (found @ factors)) @ found * factors / weights.sum()
            if np.abs(means - wanted).max() < _SINKHORN_ERROR:
                break
            factors *= np.divide(wanted, means, out=np.ones_like(means), where=means > 0)
            factors = np.maximum(factors / factors.max(), 1e-100)  # so that no image is without an answer
        answers = found * factors
        return np.asarray(answers / answers.sum(1, keepdims=True), dtype=np.float64)

    def _shares(self, prior: ArrayLike) -> Floats:
        """Return a prior as shares of 1, or raise ValueError where it is none."""
        wanted = np.asarray(prior, dtype=np.float64)
        if wanted.shape != (len(self.class_counts),) or not (
            np.isfinite(wanted).all() and wanted.min() >= 0 and wanted.max() > 0
        ):
            raise ValueError(
                f"prior: needs {len(self.class_counts)} numbers, none negative and one above 0, got {prior!r}"
            )
        return np.asarray(wanted / wanted.sum(), dtype=np.float64)


def fit_posterior(logits: ArrayLike, targets: ArrayLike, class_counts: Sequence[int]) -> Posterior:
    """Find temperature and reference prior on images that the model was not trained on.

    Both minimise the negative log-likelihood of ``softmax(z / T - tau log n + log q)`` with the class frequencies q of
    the held-out images, balanced or not: what is found does not depend on how the held-out images were chosen. A
    weak pull, ``(log T)^2 / 2 + 2 (tau - 1/2)^2``, keeps a handful of images from deciding much.

    Args:
        logits: Of the held-out images, (N, C).
        targets: Their classes, (N,).
        class_counts: Training images per class n_c, length C.

    Raises:
        ValueError: The arrays do not fit together or hold invalid values.
    """
    scores, classes = check_logits(logits, targets)
    if scores.shape[1] != len(class_counts):
        raise ValueError(f"fit_posterior: {scores.shape[1]} classes in the logits, {len(class_counts)} class counts")
    most = max(_MOST_NUMBERS // scores.shape[1], 1)
    if len(scores) > most:
        chosen = np.random.default_rng(0).permutation(len(scores))[:most]
        scores, classes = scores[chosen], classes[chosen]
    log_temperature, tau = _minimise(scores, classes, _log_train_prior(class_counts))
    return Posterior(tuple(class_counts), float(np.exp(log_temperature)), tau, len(scores))


def _minimise(scores: NDArray[np.floating], classes: NDArray[np.int64], log_train: Floats) -> tuple[float, float]:
    """Return log T and tau; the problem is convex in (1 / T, tau), so where it begins does not matter."""
    z = torch.from_numpy(scores.astype(np.float64)).clamp(min=-1e9)  # minus infinity times a gradient of 0 is no number
    y = torch.from_numpy(classes)
    train = torch.from_numpy(log_train)
    # A class without a held-out image has log 0: it cannot be the answer there.
    shift = torch.bincount(y, minlength=z.shape[1]).double().div(len(y)).log()
    values = torch.tensor([0.0, 0.5], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([values], max_iter=100, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        log_t, tau = values
        adjusted = z * (-log_t).exp() - tau * train + shift
        loss: Tensor = torch.nn.functional.cross_entropy(adjusted, y, reduction="sum")
        loss = (loss + 0.5 * log_t**2 + 2 * (tau - 0.5) ** 2) / len(y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    log_temperature, tau = values.tolist()
    return log_temperature, tau


def calibration_gain(logits: ArrayLike, targets: ArrayLike, class_counts: Sequence[int]) -> tuple[float, float] | None:
    """Return the expected calibration error of the plain softmax and of a fitted posterior, within 0..1.

    The second is measured on images that the fit did not see: five times, a fifth of the images is left out of it.

    Args:
        logits: Of images that the model was not trained on, (N, C).
        targets: Their classes, (N,).
        class_counts: Training images per class, length C.

    Returns:
        Error before and after, or None where there are too few images to say.

    Raises:
        ValueError: The arrays do not fit together or hold invalid values.
    """
    scores, classes = check_logits(logits, targets)
    if len(scores) < _LEAST_IMAGES:
        return None
    fold = np.random.default_rng(0).permutation(len(scores)) % _FOLDS
    confidence, right = np.empty(len(scores)), np.empty(len(scores), dtype=bool)
    prior = np.bincount(classes, minlength=scores.shape[1])
    for k in range(_FOLDS):
        inside = fold == k
        fitted = fit_posterior(scores[~inside], classes[~inside], class_counts)
        found = fitted.probabilities(scores[inside], prior)
        confidence[inside], right[inside] = found.max(1), found.argmax(1) == classes[inside]
    after = calibration(confidence.clip(0, 1), right).expected_error
    return expected_calibration_error(scores, classes), after


def _log_train_prior(class_counts: Sequence[int]) -> Floats:
    """Return the log of each class's share of the training images; an empty class counts as the rarest."""
    adjustments = logit_adjustments(class_counts)
    filled = torch.tensor(class_counts) > 0
    found: Floats = adjustments.clamp(min=adjustments[filled].min().item()).numpy()
    return found
