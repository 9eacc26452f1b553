"""Images and Pillow's way of moving their pixels, for tests of operations on batches."""

import torch
from PIL import Image

BILINEAR = Image.Resampling.BILINEAR


def photo(batch=3, height=20, width=28):
    """Smooth images with some noise: borders between pixels where a rounded coordinate matters are few."""
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(batch, 3, 5, 5, generator=generator) * 200
    images = torch.nn.functional.interpolate(low, (height, width), mode="bilinear")
    return (images + 20 * torch.rand(images.shape, generator=generator)).to(torch.uint8)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def moved(image, matrix, fill):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=BILINEAR, fillcolor=fill)
