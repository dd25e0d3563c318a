#!/usr/bin/env python3
"""Smallest perturbations of adv-lib 0.2.8, for tests/suite/reference.rs.

    pip install torch==2.11.0 numpy requests tqdm && pip install --no-deps adv-lib==0.2.8
    TORCHDYNAMO_DISABLE=1 python make_minimal.py

The victim is one 3x3 convolution, close to "the highest channel is the class", and the images have little contrast, so that
99 % of the pixels can be fooled by little. Writes minimal.safetensors: float32, images in
[0, 1], labels int64 with 255 as the void label.
"""
import pathlib
import sys
import types

import torch
import torch.nn.functional as F

# adv-lib imports it to draw curves, which nobody asks for here.
sys.modules.setdefault("visdom", types.ModuleType("visdom"))
from adv_lib.attacks.segmentation import alma_prox, dag, pdpgd  # noqa: E402

from common import VOID, save  # noqa: E402

HERE = pathlib.Path(__file__).parent
CLASSES, TARGET = 4, 1


class Penalty(torch.autograd.Function):
    """The penalty of alma_prox, with its derivative: the package's backward has mu * y where that is mu."""

    @staticmethod
    def forward(ctx, y, rho, mu):
        ctx.save_for_backward(y, rho, mu)
        return torch.where(y >= 0, mu * y + mu * rho * y**2 + rho**2 * y**3 / 6,
                           mu * y / (1 - rho.clamp(min=1) * y.clamp(max=0)))

    @staticmethod
    def backward(ctx, given):
        y, rho, mu = ctx.saved_tensors
        slope = torch.where(y >= 0, mu + 2 * mu * rho * y + rho**2 * y**2 / 2,
                            mu / (1 - rho.clamp(min=1) * y.clamp(max=0)) ** 2)
        return given * slope, None, None


def main():
    torch.set_num_threads(1)
    gen = torch.Generator().manual_seed(31)
    weight = torch.randn(CLASSES, 3, 3, 3, generator=gen) * 0.5
    weight -= weight.mean(dim=(1, 2, 3), keepdim=True)
    for k in range(3):
        weight[k, k, 1, 1] += 10
        weight[3, k, 1, 1] += 10 / 3

    def model(x):
        return F.conv2d(x, weight, padding=1)

    x = torch.rand(2, 3, 12, 12, generator=gen) * 0.1 + 0.45
    y = model(x).argmax(1)
    y[torch.rand(y.shape, generator=gen) < 0.1] = VOID
    target = torch.where(y == VOID, y, torch.full_like(y, TARGET))
    out = {"weight": weight, "images": x, "labels": y}
    for goal, labels, targeted in (("away", y, False), ("target", target, True)):
        for gamma, p, norm in ((0.005, float("inf"), "linf"), (0.05, 2.0, "l2")):
            found = torch.cat([dag(model, x[i:i + 1], labels[i:i + 1], masks=labels[i:i + 1] != VOID, targeted=targeted,
                                   max_iter=100, γ=gamma, p=p) for i in range(len(x))])
            out[f"dag_{norm}_{goal}"] = found
            print("dag", norm, goal, [round(v, 5) for v in (found - x).flatten(1).norm(p=p, dim=1).tolist()])
        for name, own in (("own derivative", {}), ("true derivative", {"penalty": Penalty.apply})):
            found = torch.cat([alma_prox(model, x[i:i + 1], labels[i:i + 1], masks=labels[i:i + 1] != VOID,
                                         targeted=targeted, num_steps=150, **own) for i in range(len(x))]).detach()
            if own:
                out[f"alma_{goal}"] = found
            valid = labels != VOID
            hit = ((model(found).argmax(1) == labels) == targeted) & valid
            print("alma_prox,", name, goal, [round(v, 5) for v in (found - x).flatten(1).abs().amax(1).tolist()],
                  "success", [round(v, 4) for v in (hit.flatten(1).sum(1) / valid.flatten(1).sum(1)).tolist()])
        for p, norm in ((float("inf"), "linf"), (2.0, "l2")):
            found = torch.cat([pdpgd(model, x[i:i + 1], labels[i:i + 1], norm=p, masks=labels[i:i + 1] != VOID,
                                     targeted=targeted, num_steps=150, primal_lr=0.01)
                               for i in range(len(x))]).detach()
            out[f"pdpgd_{norm}_{goal}"] = found
            valid = labels != VOID
            hit = ((model(found).argmax(1) == labels) == targeted) & valid
            print("pdpgd", norm, goal, [round(v, 5) for v in (found - x).flatten(1).norm(p=p, dim=1).tolist()],
                  "success", [round(v, 4) for v in (hit.flatten(1).sum(1) / valid.flatten(1).sum(1)).tolist()])
    save(HERE / "minimal.safetensors", out)


if __name__ == "__main__":
    main()
