"""Augmentation policies of torchvision, one draw per image, for the reference trainer.

They transform images of whole bytes: pixels are clipped to [0, 1] and rounded to 256 levels on the way in. What
geometric operations uncover is 0. Neither policy flips images.
"""

from __future__ import annotations

import numpy as np
import torch


def with_policy(x: torch.Tensor, name: str, order: np.ndarray, seed: int) -> torch.Tensor:
    """Images after their own draw each of a policy.

    Args:
        x: Images (n, 1 or 3, height, width).
        name: `auto_augment`: the 25 sub-policies of two operations each that Cubuk et al. (2019) found for CIFAR-10.
            `trivial_augment`: one operation of any strength (Mueller & Hutter 2021, "wide").
        order: In which order images draw, (n,).
        seed: Of the draws. They come from torch's global generator, which is put back.

    Returns:
        A new tensor, of the shape, dtype and device of x.
    """
    from torchvision.transforms import v2

    policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10) if name == "auto_augment" else v2.TrivialAugmentWide()
    pixels = (x.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for i in order.tolist():
            pixels[i] = policy(pixels[i])
    return (pixels.to(x.dtype) / 255).to(x.device)
