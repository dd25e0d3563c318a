#!/usr/bin/env python3
"""Corrupted images of imagecorruptions 1.1.2, for tests/suite/corruption.rs.

    pip install numpy scipy scikit-image opencv-python-headless pillow torch==2.11.0
    pip install --no-deps imagecorruptions==1.1.2
    python make_corruptions.py

The kinds without chance, at three of the severities, and motion blur at given angles. The package is of 2020; names that NumPy,
SciPy and scikit-image have dropped since are put back first. Writes corruptions.safetensors: float32 in [0, 1], [C, H, W].
"""
import pathlib
import sys
import types

import numpy as np
import scipy.ndimage
import torch

interpolation = types.ModuleType("scipy.ndimage.interpolation")
interpolation.map_coordinates = scipy.ndimage.map_coordinates
sys.modules.setdefault("scipy.ndimage.interpolation", interpolation)
resources = types.ModuleType("pkg_resources")
resources.resource_filename = lambda *_: ""
sys.modules.setdefault("pkg_resources", resources)
np.float_ = np.float64
from imagecorruptions import corruptions  # noqa: E402
from PIL import Image  # noqa: E402

from common import save  # noqa: E402

HERE = pathlib.Path(__file__).parent
KINDS = {"defocus-blur": corruptions.defocus_blur, "zoom-blur": corruptions.zoom_blur, "contrast": corruptions.contrast,
         "brightness": corruptions.brightness, "pixelate": corruptions.pixelate, "jpeg": corruptions.jpeg_compression}


def picture():
    """Soft shapes and hard edges, 8 bits."""
    y, x = np.mgrid[0:33, 0:42]
    image = np.stack([120 + 100 * np.sin(x / 5.0) * np.cos(y / 7.0), 90 + 2.2 * x, 200 - 3.1 * y], axis=-1)
    image[5:15, 8:20] = (220, 40, 60)
    image[20:30, 25:38] = (15, 160, 90)
    return image.clip(0, 255).astype(np.uint8)


def planes(image):
    return torch.from_numpy(np.asarray(image, dtype=np.float32).transpose(2, 0, 1).copy()) / 255


def main():
    image = picture()
    out = {"image": planes(image)}
    for name, corrupt in KINDS.items():
        for severity in (1, 3, 5):
            found = planes(corrupt(Image.fromarray(image), severity))
            out[f"{name}_{severity}"] = found
            print(name, severity, "moves values by", round(float((found - out["image"]).abs().mean()), 4), "on average")
    for angle in (-90, -40, 0, 25):
        blurred = corruptions._motion_blur(np.asarray(image, dtype=np.float32), radius=10, sigma=3, angle=angle)
        out[f"motion_{angle}"] = planes(blurred)
    save(HERE / "corruptions.safetensors", out)


if __name__ == "__main__":
    main()
