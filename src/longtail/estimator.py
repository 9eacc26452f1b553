"""The methods as a scikit-learn classifier, for pipelines, cross-validation and grid search."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from longtail import methods
from longtail.augment import Compose, Normalize, RandomFlip
from longtail.networks import Network
from longtail.networks.features import FEATURES
from longtail.training import photos
from longtail.training.budget import Budget, Context, default_backbone
from longtail.training.frozen import frozen
from longtail.training.inference import predict_logits
from longtail.training.loop import Training
from longtail.training.progress import SilentReporter
from longtail.training.recipe import Recipe, Shape
from longtail.training.runtime import Runtime, pick_device
from longtail.training.world import World

_DATASET = "arrays"  # no data set by name: budgets and augmentation are those of photographs
_SMALLEST = 16  # images with sides of up to this get the network for digits
_LEAST_STD = 1e-3


class LongTailClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A long-tail method with scikit-learn's interface, on arrays of images or of features.

    Two dimensions, (N, d), are features: they are standardised, and a linear classifier is trained on them by the
    method, as with ``longtail train --freeze-backbone``. Three or four dimensions are images: (N, H, W), (N, H, W,
    channels) or (N, channels, H, W) with one or three channels, uint8 or numbers within 0..1: a network is trained.

    Args:
        method: ``METHOD+MODIFIER+...``, see `longtail.methods.names`. On features, one that needs no images: ``ce``,
            ``bsce``, ``la``, ``ldam+drw``, ``crt``, ``lws``, ``tau-norm``, ``ncm`` ...
        options: Options of the method by name, such as ``{"tau": 0.5}``.
        epochs: Epochs; None: 100. The schedule shrinks with them.
        batch_size: Examples per step; None: 128, or less where there are fewer than 512 examples.
        lr: Peak learning rate; None: 0.1 for networks and 0.05 for linear classifiers at batches of 128.
        backbone: Network for images; None: one that suits their size.
        flip: Mirror images at random in training: right for photographs, wrong for writing.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        random_state: Seed, generator, or None for another result each time.

    Attributes:
        classes_: The labels, sorted, (C,).
        class_counts_: Training examples of each, (C,).
        n_features_in_: Number of features d, where it was trained on features.
        network_: The trained network.
    """

    def __init__(
        self,
        method: str = "bsce",
        *,
        options: dict[str, Any] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        backbone: str | None = None,
        flip: bool = True,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.method = method
        self.options = options
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.backbone = backbone
        self.flip = flip
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train.

        Args:
            X: Features or images, see the class.
            y: Labels, (N,).

        Raises:
            ValueError: The arrays do not fit together, hold invalid values, or have fewer than two classes.
            UsageError: There is no such method, or it needs more than is here.
        """
        examples: NDArray[Any]
        labels: NDArray[Any]
        examples, labels = validate_data(self, X, y, allow_nd=True, dtype="numeric")
        check_classification_targets(labels)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"LongTailClassifier needs two classes or more; y has 1 class, {self.classes_[0]!r}")
        self.class_counts_ = np.bincount(numbers)
        self.on_images_ = examples.ndim > 2
        if self.on_images_:
            del self.n_features_in_  # the second dimension, which says nothing where images come in several layouts
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._train(self._settle_inputs(examples), torch.from_numpy(numbers.astype(np.int64)), seed)
        return self

    def _train(self, inputs: Tensor, targets: Tensor, seed: int) -> None:
        """Train a network and keep it; torch's own generators are left as they are."""
        recipe, shape = self._recipe(inputs)
        device = pick_device(self.device)
        runtime = Runtime(str(device), threads=torch.get_num_threads())
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.enable_grad():
            torch.manual_seed(seed)
            network = recipe.network(*shape).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            training = Training(
                recipe,
                network,
                inputs.to(device),
                targets.to(device),
                self.plain_,
                shape=shape,
                seed=seed,
                runtime=runtime,
                world=World(),
                save=lambda training, force: None,
                after_epoch=lambda record, is_last: None,
                should_stop=lambda: False,
                reporter=SilentReporter(),
            )
            training.run()
        self.network_: Network = training.network.eval()
        if not self.on_images_:  # so that an answer does not depend on what else is asked at the same time
            self.network_ = self.network_.double()
        self.inference_: nn.Module = recipe.inference
        self._runtime = runtime

    def _settle_inputs(self, X: NDArray[Any]) -> Tensor:
        """Remember shape and normalisation of the training inputs, and return them as training takes them."""
        self.plain_ = Compose(())
        if not self.on_images_:
            self.mean_, self.scale_ = X.mean(0, dtype=np.float64), X.std(0, dtype=np.float64)
            self.scale_[self.scale_ < 1e-12 * np.maximum(np.abs(self.mean_), 1)] = 1.0
            return self._features(X).float()
        images = _as_images(X)
        self.image_shape_ = tuple(images.shape[1:])
        mean, std = _channel_statistics(images)
        self.plain_ = Compose((Normalize(mean, std),))
        return images

    def _features(self, X: NDArray[Any]) -> Tensor:
        """Return standardised features as images of one position, (N, d, 1, 1), float64."""
        return torch.from_numpy((X.astype(np.float64) - self.mean_) / self.scale_)[:, :, None, None]

    def _recipe(self, inputs: Tensor) -> tuple[Recipe, Shape]:
        """Build the method's recipe and say what its network is built for."""
        name = methods.canonical(self.method)
        counts = tuple(int(count) for count in self.class_counts_)
        budget = self._budget(len(inputs))
        channels, *sides = inputs.shape[1:]
        augment = self.plain_
        if self.on_images_:
            full = photos.training_transforms(_DATASET, min(sides), self.plain_.transforms[-1])  # type: ignore[arg-type]
            augment = Compose(tuple(t for t in full.transforms if self.flip or not isinstance(t, RandomFlip)))
        context = Context(counts, "common", budget, augment, self.plain_, dataset=_DATASET)
        recipe = methods.build(name, context, self.options)
        if not self.on_images_:
            return frozen(recipe, name, context), Shape(f"{FEATURES}{channels}", len(counts), channels)
        usual = "small" if min(sides) <= _SMALLEST else default_backbone(_DATASET, tuple(inputs.shape[1:]))
        return recipe, Shape(self.backbone or usual, len(counts), channels)

    def _budget(self, examples: int) -> Budget:
        """Return the budget of photographs, from scratch or on features, with the person's changes."""
        usual = Budget(**photos.fields_for(_DATASET, "common", "scratch" if self.on_images_ else "frozen"))
        batch = photos.batch_for(usual.batch_size, examples) if self.batch_size is None else self.batch_size
        lr = self.lr if self.lr is not None else usual.lr * batch / usual.batch_size
        return replace(usual.scaled(usual.epochs if self.epochs is None else self.epochs), batch_size=batch, lr=lr)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the class probabilities, (N, C), in the order of ``classes_``: the plain softmax, not calibrated.

        Raises:
            ValueError: The inputs have another shape than in training, or invalid values.
        """
        check_is_fitted(self)
        asked: NDArray[Any]
        if self.on_images_:
            asked = check_array(X, allow_nd=True, dtype="numeric")
        else:
            asked = validate_data(self, X, allow_nd=True, dtype="numeric", reset=False)
        inputs = self._inputs(asked)
        if self.on_images_:
            logits = predict_logits(self.network_, self.inference_, inputs, self.plain_, self._runtime)
        else:
            with torch.no_grad():
                logits = self.inference_(self.network_(inputs.to(self._runtime.device)))
        found: NDArray[np.float64] = logits.double().softmax(-1).cpu().numpy()
        return found

    def _inputs(self, X: NDArray[Any]) -> Tensor:
        if not self.on_images_:
            if X.ndim != 2:
                raise ValueError(
                    f"X has {X.ndim} dimensions; the classifier was trained on features, (N, {len(self.mean_)})"
                )
            return self._features(X)
        images = _as_images(X)
        if tuple(images.shape[1:]) != self.image_shape_:
            raise ValueError(f"X has images of shape {tuple(images.shape[1:])}; training had {self.image_shape_}")
        return images

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the likeliest label of each input, (N,).

        Raises:
            ValueError: The inputs have another shape than in training, or invalid values.
        """
        probabilities = self.predict_proba(X)
        labels: NDArray[Any] = self.classes_[probabilities.argmax(1)]
        return labels


def _as_images(X: NDArray[Any]) -> Tensor:
    """Return images as uint8 (N, channels, H, W).

    Raises:
        ValueError: The shape is none of those known, or the values are neither uint8 nor within 0..1.
    """
    if X.ndim == 3:
        X = X[:, None]
    elif X.ndim == 4 and X.shape[3] in (1, 3) and X.shape[1] not in (1, 3):
        X = X.transpose(0, 3, 1, 2)
    if X.ndim != 4 or X.shape[1] not in (1, 3):
        raise ValueError(
            f"X has shape {X.shape}; it must be (N, d), (N, H, W), (N, H, W, channels) or (N, channels, H, W), "
            "with 1 or 3 channels"
        )
    if X.dtype != np.uint8:
        if X.min() < 0 or X.max() > 1 or not np.issubdtype(X.dtype, np.floating):
            raise ValueError(f"X holds {X.dtype} within {X.min()}..{X.max()}; images are uint8, or numbers within 0..1")
        X = np.rint(255 * X.astype(np.float64)).astype(np.uint8)
    return torch.from_numpy(np.array(X, order="C"))


def _channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, of pixels in 0..1, without a copy of all in float."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        share = torch.bincount(images[:, channel].flatten().int(), minlength=256).double()
        share /= share.sum()
        mean = float((share * levels).sum())
        means.append(mean)
        stds.append(max(float((share * (levels - mean) ** 2).sum()) ** 0.5, _LEAST_STD))
    return tuple(means), tuple(stds)
