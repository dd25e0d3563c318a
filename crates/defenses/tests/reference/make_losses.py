#!/usr/bin/env python3
"""Losses of nnU-Net 2.8.1 and MONAI 1.6.1 with their gradients at the logits, for tests/suite/losses.rs.

    pip install torch==2.11.0 numpy scipy && pip install --no-deps nnunetv2==2.8.1 monai==1.6.1 batchgenerators batchgeneratorsv2
    python3 make_losses.py > losses.json

Two images of 3 classes, 8 x 12 pixels, with a class that one image lacks; heads at strides 1, 2 and 4. `void` has label 255
on some pixels, which nnU-Net ignores (`ignore_label`).
"""
import json

import numpy as np
import torch

from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from monai.losses import FocalLoss, GeneralizedDiceLoss, TverskyLoss

torch.manual_seed(3)
logits = [torch.randn(2, 3, 8 >> k, 12 >> k) * 1.5 for k in range(3)]
labels = torch.randint(0, 3, (2, 1, 8, 12))
labels[1][labels[1] == 2] = 0
void = labels.clone()
void[:, :, 6:, :5] = 255
void[0, :, :3, 9:] = 255


def nnunet(batch_dice, ignore=None, do_bg=False):
    return DC_and_CE_loss({"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": do_bg, "ddp": False}, {}, weight_ce=1,
                          weight_dice=1, ignore_label=ignore, dice_class=MemoryEfficientSoftDiceLoss)


def deep(loss, target):
    weights = np.array([1 / 2 ** k for k in range(3)])
    weights[-1] = 0
    scaled = [torch.stack(t) for t in zip(*[DownsampleSegForDSTransform([1, .5, .25])(segmentation=one)["segmentation"]
                                            for one in target])]
    wrapped = DeepSupervisionWrapper(loss, weights / weights.sum())
    return lambda heads: wrapped(heads, scaled)


def one(loss, target):
    return lambda heads: loss(heads[0], target)


monai = {"softmax": True, "to_onehot_y": True}
cases = {
    "dice-ce": one(nnunet(True), labels),
    "dice-ce per image": one(nnunet(False), labels),
    "dice-ce background": one(nnunet(True, do_bg=True), labels),
    "dice-ce void": one(nnunet(True, ignore=255), void),
    "dice-ce void per image": one(nnunet(False, ignore=255), void),
    "dice-ce deep": deep(nnunet(True), labels),
    "generalised-dice": one(GeneralizedDiceLoss(**monai), labels),
    "generalised-dice batch": one(GeneralizedDiceLoss(batch=True, **monai), labels),
    "tversky": one(TverskyLoss(alpha=0.3, beta=0.7, include_background=False, batch=True, **monai), labels),
    "tversky per image": one(TverskyLoss(alpha=0.3, beta=0.7, **monai), labels),
    # MONAI averages over the 3 classes as well.
    "focal": lambda heads: 3 * FocalLoss(gamma=2.0, use_softmax=True, to_onehot_y=True, include_background=True)(heads[0], labels),
}


def listed(x):
    return [float(f"{v:.7g}") for v in x.flatten().tolist()]


found = {}
for name, loss in cases.items():
    heads = [z.clone().requires_grad_(True) for z in logits]
    value = loss(heads)
    value.backward()
    found[name] = {"loss": value.item(), "gradients": [None if z.grad is None else listed(z.grad) for z in heads]}
# MONAI's Tversky adds 1e-5 above and below, as the others.
print(json.dumps({"logits": [listed(z) for z in logits], "labels": labels.flatten().tolist(),
                  "void": void.flatten().tolist(), "cases": found}))
