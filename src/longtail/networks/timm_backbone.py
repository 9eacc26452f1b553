"""Backbones of timm (huggingface.co/docs/timm) by name, ``timm:NAME``: an optional extra, imported on first use."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import Tensor, nn

from longtail.errors import LongtailError, UsageError
from longtail.networks.backbone import Backbone

TIMM = "timm:"


def _timm() -> Any:
    """Import timm; torchvision under it may break with other errors than ImportError."""
    try:
        import timm
    except (ImportError, RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"timm:NAME backbones need the packages timm and torchvision, which do not import: {reason}",
            fix="pip install 'longtail[timm]', or use a backbone of the core such as resnet50",
        ) from error
    return timm


def _create(name: str, **options: Any) -> nn.Module:
    """Build a timm model without its classifier; where it takes images of any size, say so."""
    timm = _timm()
    bare = name.removeprefix(TIMM)
    if not timm.is_model(bare):
        close = difflib.get_close_matches(bare.partition(".")[0], timm.list_models(), n=3, cutoff=0.5)
        hint = ", ".join(TIMM + found for found in close)
        raise UsageError(
            f"timm {timm.__version__} has no model {bare!r}",
            fix=f"did you mean {hint}?" if close else "python -c 'import timm; print(timm.list_models())' lists them",
        )
    try:
        model: nn.Module = timm.create_model(bare, num_classes=0, dynamic_img_size=True, **options)
    except TypeError:  # only vision transformers know the option; convolutions do not need it
        model = timm.create_model(bare, num_classes=0, **options)
    return model


class TimmBackbone(Backbone):
    """A timm model without its classifier; its own pooling makes the features.

    Args:
        name: ``timm:NAME``, such as ``timm:convnext_tiny`` or ``timm:resnet50.a1_in1k``.
        in_channels: Channels of the images.

    Raises:
        UsageError: timm is not installed, or has no such model.
    """

    def __init__(self, name: str, in_channels: int = 3) -> None:
        model = _create(name, in_chans=in_channels)
        # Some models have a layer between pooling and classifier, so that num_features is not what comes out.
        width = getattr(model, "head_hidden_size", None) or model.num_features
        assert isinstance(width, int)
        super().__init__(width)
        self.name = name
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, (B, d), in float32 (or float64), of images (B, C, H, W).

        Raises:
            UsageError: The model takes images of another size only.
        """
        try:
            features: Tensor = self.model(images)
        except AssertionError as error:  # how timm says so
            raise UsageError(
                f"{self.name} does not take images of {images.shape[-2]}x{images.shape[-1]}: {error}",
                fix="give the size that it names with --image-size, or use a model for any size",
            ) from error
        return features if features.dtype == torch.float64 else features.float()

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature map, (B, d, h, w), of images (B, C, H, W); a transformer's patch tokens count as one.

        Raises:
            UsageError: The model's last features are no map.
        """
        out: Tensor = self.model.forward_features(images)  # type: ignore[operator]
        if out.ndim == 3:  # tokens (B, N, d), those of no patch first
            out = out[:, getattr(self.model, "num_prefix_tokens", 0) :].transpose(1, 2)
            side = round(out.shape[-1] ** 0.5)
            if side * side == out.shape[-1]:
                return out.reshape(*out.shape[:2], side, side)
        elif out.ndim == 4:
            return out.permute(0, 3, 1, 2) if getattr(self.model, "output_fmt", "NCHW") == "NHWC" else out
        raise UsageError(f"{self.name} makes no square feature map, which this method needs")

    def split(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Refuse: timm does not say where a model can be cut."""
        raise UsageError(
            f"{self.name} cannot share layers between experts",
            fix="use a method whose experts share nothing, such as independent-experts, or a backbone of the core",
        )

    split_last = split


def timm_weights(name: str) -> dict[str, Tensor]:
    """Return timm's pretrained weights of a model, from the hub or from what was downloaded before.

    Raises:
        UsageError: timm is not installed, has no such model, or no weights of it.
        LongtailError: They cannot be downloaded.
    """
    timm = _timm()
    bare = name.removeprefix(TIMM)
    if timm.is_model(bare) and not timm.get_pretrained_cfg(bare):
        raise UsageError(f"timm publishes no weights of {bare}", fix="give a file, --weights PATH")
    try:
        return dict(_create(name, pretrained=True).state_dict())
    except UsageError:
        raise
    except Exception as error:  # the hub raises errors of four libraries, all of which mean this
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LongtailError(
            f"the pretrained weights of {name} cannot be fetched: {reason}",
            fix="download the model's .safetensors file on another machine and give --weights PATH",
        ) from error


def timm_normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and standard deviation of the pixels that a model's pretrained weights are used to; None: unknown."""
    config = _timm().get_pretrained_cfg(name.removeprefix(TIMM))
    return (tuple(config.mean), tuple(config.std)) if config else None
