"""Values of other implementations for `medical.json`: MONAI for scores and surface distances, SciPy for distance transforms.

Run once, with monai 1.6.1, scipy 1.17.1, numpy and torch: `python medical.py > medical.json`. Label maps are made from a
fixed seed and stored beside the values, one digit a pixel, so the test needs nothing of this.
"""

import json
import math

import numpy as np
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)
from scipy import ndimage

CLASSES = 3


def blobs(rng, shape, sigma, shares=(0.25, 0.15)):
    """Smooth random regions: class 2 where one field is high, class 1 where another is."""
    fields = [ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap") for _ in range(2)]
    labels = np.zeros(shape, dtype=np.uint8)
    for label, (field, share) in enumerate(zip(fields, shares), start=1):
        labels[field > np.quantile(field, 1 - share)] = label
    return labels


def moved(rng, labels, shift, noise):
    """A prediction: shifted labels with single wrong pixels."""
    prediction = np.roll(labels, shift, axis=tuple(range(labels.ndim)))
    wrong = rng.random(labels.shape) < noise
    prediction[wrong] = rng.integers(0, CLASSES, size=int(wrong.sum()))
    return prediction.astype(np.uint8)


def one_hot(labels):
    return torch.stack([torch.from_numpy(labels == c) for c in range(CLASSES)])[None].float()


def number(value):
    value = float(value)
    return None if math.isnan(value) else "infinite" if math.isinf(value) else value


def case(name, labels, prediction, spacing, tolerances):
    truth, predicted = one_hot(labels), one_hot(prediction)
    row = lambda values: [number(v) for v in values[0]]
    distance = dict(include_background=True, spacing=spacing)
    return {
        "name": name,
        "shape": labels.shape,
        "spacing": spacing,
        "labels": "".join(map(str, labels.ravel())),
        "predictions": "".join(map(str, prediction.ravel())),
        "dice_ignore_empty": row(compute_dice(predicted, truth, ignore_empty=True)),
        "dice_keep_empty": row(compute_dice(predicted, truth, ignore_empty=False)),
        "iou_ignore_empty": row(compute_iou(predicted, truth, ignore_empty=True)),
        "iou_keep_empty": row(compute_iou(predicted, truth, ignore_empty=False)),
        "hausdorff": row(compute_hausdorff_distance(predicted, truth, **distance)),
        "hd95": row(compute_hausdorff_distance(predicted, truth, percentile=95, **distance)),
        "average": row(compute_average_surface_distance(predicted, truth, **distance)),
        "average_symmetric": row(compute_average_surface_distance(predicted, truth, symmetric=True, **distance)),
        "surface_dice": [
            {"tolerance": t, "values": row(compute_surface_dice(predicted, truth, [t] * CLASSES, **distance))}
            for t in tolerances
        ],
        "distance_to_class_1": [
            number(v)
            for v in (
                ndimage.distance_transform_edt(labels != 1, sampling=spacing)
                if (labels == 1).any()
                else np.full(labels.shape, np.inf)
            ).ravel()[::7]
        ],
    }


rng = np.random.default_rng(20240406)
cases = []
for name, shape, sigma, spacing, shift, noise, tolerances in [
    ("image, isotropic", (20, 24), 2.0, [1.0, 1.0], (1, 0), 0.0, [0.5, 1.0, 2.0]),
    ("image, anisotropic and noisy", (17, 23), 1.5, [0.7, 2.5], (2, 1), 0.03, [0.7, 1.5, 4.0]),
    ("one row", (1, 40), 2.0, [3.0, 0.5], (0, 2), 0.0, [1.0]),
    ("volume, isotropic", (9, 12, 11), 1.5, [1.0, 1.0, 1.0], (1, 1, 0), 0.0, [1.0, 1.5]),
    ("volume, anisotropic and noisy", (6, 14, 13), 1.5, [3.6, 0.62, 0.62], (0, 1, 2), 0.02, [0.62, 2.0, 4.0]),
    ("volume of one slice", (1, 12, 12), 1.5, [5.0, 1.0, 1.5], (0, 1, 1), 0.0, [1.0, 2.0]),
]:
    labels = blobs(rng, shape, sigma)
    cases.append(case(name, labels, moved(rng, labels, shift, noise), spacing, tolerances))

full = np.zeros((8, 9), dtype=np.uint8)
full[2:6, 3:7] = 1
missing = np.zeros_like(full)
other = np.zeros_like(full)
other[0:2, 0:2] = 2
other[7, 8] = 1
everywhere = np.full_like(full, 1)
cases.append(case("a class that is not predicted", full, missing, [1.0, 1.0], [1.0]))
cases.append(case("a class that is only predicted", missing, full, [1.0, 1.0], [1.0]))
cases.append(case("far apart, and one only predicted", full, other, [0.5, 2.0], [1.0]))
cases.append(case("the whole image", full, everywhere, [1.0, 1.0], [1.0, 3.0]))
cases.append(case("equal", full, full, [1.0, 1.0], [0.0]))
print(json.dumps({"classes": CLASSES, "cases": cases}, separators=(",", ":")))
