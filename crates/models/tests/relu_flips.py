#!/usr/bin/env python3
"""Why input gradients of two single-precision programs may differ by 10^-3 where their logits agree to 10^-6: a ReLU whose input
is within rounding of zero passes its gradient in one and not in the other.

    venv/bin/python make_parity.py --large DIR
    venv/bin/python relu_flips.py DIR               # the PSPNet with a 7x7 stem; half a minute on one core

For each image, against double precision: PyTorch's own single precision; the same with the ReLUs of the single-precision pass
(`same ReLUs`), which takes the flips away; and, in double precision, the ReLUs nearest to zero flipped one by one.
"""
import argparse
import pathlib

import torch
import torch.nn as nn
from safetensors.torch import load_file

from make_parity import PSPNet, gradient


class Masks:
    """Stands in for every ReLU of a pass: notes its inputs, or passes what given masks say."""

    def __init__(self):
        self.given, self.flip = None, None

    def begin(self, given=None, flip=None):
        self.given, self.flip, self.inputs, self.masks = given, flip, [], []

    def relu(self, x):
        index = len(self.masks)
        mask = self.given[index] if self.given else x.detach() > 0
        if self.flip and self.flip[0] == index:
            mask = mask.clone()
            mask.view(-1)[self.flip[1]] ^= True
        self.inputs.append(x.detach())
        self.masks.append(mask)
        return x * mask


def relative(a, b):
    return ((a.double() - b).abs().max() / b.abs().max()).item()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("--flips", type=int, default=4, help="ReLUs that are flipped one by one")
    arguments = arguments.parse_args()
    torch.set_num_threads(1)
    name, masks = "pspnet_resnet50_torchvision", Masks()
    net = PSPNet(50, 7, False, False, 512).eval()
    net.load_state_dict(torch.load(arguments.folder / f"{name}.pth"))
    nn.ReLU.forward = lambda module, x: masks.relu(x)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    answers = load_file(arguments.folder / f"{name}_answers.safetensors")
    for size in sorted(key.split(".")[1] for key in answers if key.startswith("images")):
        x, probe = answers[f"images.{size}"], answers[f"probe.{size}"]

        def run(dtype, **how):
            masks.begin(**how)
            net.to(dtype)
            return gradient(lambda x: net((x - mean.to(dtype)) / std.to(dtype)), x.to(dtype), probe.to(dtype))

        exact = run(torch.float64)
        inputs, exact_masks = masks.inputs, masks.masks
        single = run(torch.float32)
        flipped = [(a != b).sum().item() for a, b in zip(masks.masks, exact_masks)]
        same = run(torch.float64, given=masks.masks)
        print(f"{size}: single precision {relative(single, exact):.1e}, same ReLUs {relative(single, same):.1e}; "
              f"{sum(flipped)} of {sum(m.numel() for m in exact_masks)} ReLUs flipped")
        nearest = []
        for layer, z in enumerate(inputs):
            distance = (z / z.pow(2).mean().sqrt()).abs().view(-1)
            values, places = distance.topk(arguments.flips, largest=False)
            nearest += [(v.item(), layer, p.item()) for v, p in zip(values, places)]
        for distance, layer, place in sorted(nearest)[:arguments.flips]:
            changed = relative(run(torch.float64, given=exact_masks, flip=(layer, place)), exact)
            print(f"  ReLU layer {layer}, {distance:.1e} of its layer's root mean square from zero: flipped {changed:.1e}")


if __name__ == "__main__":
    main()
