#!/usr/bin/env python3
"""Adversarial images of other implementations, for tests/suite/reference.rs.

    pip install torch==2.11.0 numpy scipy requests && pip install --no-deps torchattacks==3.5.1 adv-lib==0.2.8
    TORCHDYNAMO_DISABLE=1 python make_reference.py

Classification, as maps of one pixel: `APGD`, `MIFGSM`, `DIFGSM`, `TIFGSM`, `CW` and `DeepFool` of the PyPI package torchattacks
3.5.1, and FMN of adv-lib 0.2.8. DIFGSM's views are drawn by our own generator, written down a second time in common.py. Segmentation: APGD with radius reduction written down below from the papers, with the loss of each pixel
spelled out, in float64. Writes reference.safetensors: float32, images in [0, 1], labels int64 with 255 as the void label.
"""
import itertools
import pathlib
import sys
import types

import torch
import torch.nn.functional as F
import torchattacks

# adv-lib imports it to draw curves, which nobody asks for here.
sys.modules.setdefault("visdom", types.ModuleType("visdom"))
from adv_lib.attacks import fmn  # noqa: E402

from common import VOID, Stream, save  # noqa: E402

HERE = pathlib.Path(__file__).parent
CLASSES = 5


class Dense(torch.nn.Module):
    """The small network of the tests: stride 2, dilation 2, 1x1, bilinear x2."""

    def __init__(self, gen):
        super().__init__()
        draw = lambda *shape: torch.randn(*shape, generator=gen)
        weights = {"conv1.weight": draw(8, 3, 3, 3) * 0.6, "conv1.bias": draw(8) * 0.1,
                   "conv2.weight": draw(8, 8, 3, 3) * 0.35, "conv2.bias": draw(8) * 0.1,
                   "conv3.weight": draw(CLASSES, 8, 1, 1), "conv3.bias": draw(CLASSES) * 0.1}
        self.w = weights

    def forward(self, x):
        w = {k: v.to(x.dtype) for k, v in self.w.items()}
        h = F.relu(F.conv2d(x, w["conv1.weight"], w["conv1.bias"], stride=2, padding=1))
        h = F.relu(F.conv2d(h, w["conv2.weight"], w["conv2.bias"], padding=2, dilation=2))
        h = F.conv2d(h, w["conv3.weight"], w["conv3.bias"])
        return F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)


class Pooled(torch.nn.Module):
    """A classifier: the mean of the dense logits."""

    def __init__(self, dense):
        super().__init__()
        self.dense = dense

    def forward(self, x):
        return self.dense(x).mean(dim=(2, 3))


class Raised(torch.nn.Module):
    """All logits above zero."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x) + 50


def viewed(attack, id, x, y):
    """DIFGSM of one image, with the random numbers of sample `id`: size, top and left of the view, and whether it is shown."""
    stream, side = Stream([0, id]).child("di-fgsm").child("views"), x.shape[-1]
    views = itertools.count()
    waiting = []

    def draw(at):
        if at == "size":
            first = 4 * next(views)
            u = [stream.uniform(first + i) for i in range(4)]
            size = int(side * (0.75 + 0.25 * u[1]) + 0.5)
            waiting[:] = [size, int((side - size + 1) * u[2]), int((side - size + 1) * u[3]), u[0]]
        return torch.tensor([waiting.pop(0)])

    own = torch.randint, torch.rand
    torch.randint = lambda low, high, size, dtype: draw("size" if low else "place")
    torch.rand = lambda _: draw("shown")
    try:
        return attack(x, y).detach()
    finally:
        torch.randint, torch.rand = own


def classification(out, dense, gen):
    model = Pooled(dense)
    x = torch.rand(6, 3, 16, 16, generator=gen)
    y = model(x).argmax(1)
    out["class_images"], out["class_labels"] = x, y[:, None, None]
    for norm, eps in (("Linf", 4 / 255), ("L2", 0.5)):
        for steps in (4, 20, 100):
            attack = torchattacks.APGD(model, norm=norm, eps=eps, steps=steps, seed=0)
            torch.manual_seed(5)
            # The package draws its start itself: draw the same numbers, and say where that is.
            if norm == "Linf":
                t = 2 * torch.rand(x.shape) - 1
                start = x + eps * t / t.flatten(1).abs().amax(1)[:, None, None, None]
            else:
                t = torch.randn(x.shape)
                start = x + eps * t / (t.flatten(1).norm(dim=1)[:, None, None, None] + 1e-12)
            out[f"apgd_{norm.lower()}_start"] = start.clamp(0, 1)
            torch.manual_seed(5)
            best, _, loss, _ = attack.attack_single_run(x, y)
            out[f"apgd_{norm.lower()}_{steps}"] = best.detach()
            print("torchattacks APGD", norm, steps, "cross-entropy", [round(v, 5) for v in loss.tolist()])
    for steps in (1, 5, 20):
        attack = torchattacks.MIFGSM(model, eps=8 / 255, alpha=8 / 255 / steps, steps=steps, decay=1.0)
        out[f"mi-fgsm_{steps}"] = attack(x, y).detach()
    for steps in (1, 5, 20):
        attack = torchattacks.TIFGSM(model, eps=8 / 255, alpha=8 / 255 / steps, steps=steps, decay=1.0, len_kernel=7,
                                     diversity_prob=0.0)
        # With no diversity the view is thrown away, but drawn.
        out[f"ti-fgsm_{steps}"] = attack(x, y).detach()
        attack = torchattacks.DIFGSM(model, eps=8 / 255, alpha=8 / 255 / steps, steps=steps, decay=1.0, resize_rate=0.75,
                                     diversity_prob=0.5)
        out[f"di-fgsm_{steps}"] = torch.cat([viewed(attack, i, x[i:i + 1], y[i:i + 1]) for i in range(len(x))])
    # The package compares the label's logit with zero where all others are below it: raised, none is. One image at a time,
    # since it stops a whole batch by its summed cost.
    raised = Raised(model)
    for c in (1, 10):
        attack = torchattacks.CW(raised, c=c, kappa=0, steps=50, lr=0.01)
        found = torch.cat([attack(x[i:i + 1], y[i:i + 1]) for i in range(len(x))]).detach()
        out[f"cw_{c}"] = found
        print("torchattacks CW, c =", c, [round(v, 5) for v in (found - x).flatten(1).norm(dim=1).tolist()])
    found = torchattacks.DeepFool(model, steps=50, overshoot=0.02)(x, y).detach()
    out["deepfool"] = found
    print("torchattacks DeepFool", [round(v, 5) for v in (found - x).flatten(1).norm(dim=1).tolist()])

    for name, p in (("linf", float("inf")), ("l2", 2.0)):
        for steps in (10, 60):
            found = fmn(model, x, y, norm=p, steps=steps).detach()
            out[f"fmn_{name}_{steps}"] = found
            print("adv-lib FMN", name, steps, [round(v, 5) for v in (found - x).flatten(1).norm(p=p, dim=1).tolist()])


def label_log_probability(z, y, valid):
    return (F.log_softmax(z, 1).gather(1, y.clamp(max=CLASSES - 1)[:, None])[:, 0] * valid)


def pixel_loss(name, z, y, valid):
    """The attacked loss of every pixel."""
    log_p = label_log_probability(z, y, valid)
    correct = ((z.argmax(1) == y) & valid.bool()).to(z.dtype)
    if name == "ce":
        return -log_p
    if name == "masked-ce":
        return -log_p * correct
    if name == "balanced":  # pixels of each class in the image itself
        weights = torch.zeros_like(log_p)
        for i in range(len(y)):
            for k in y[i][valid[i].bool()].unique():
                weights[i][y[i] == k] = 1 / (y[i] == k).sum()
        return -log_p * correct * weights
    if name == "js":
        p = log_p.exp()
        m = (1 + p) / 2
        return (0.5 * (p * (log_p - m.log()) + (1 - p) * torch.log(torch.tensor(2.0, dtype=z.dtype))) - 0.5 * m.log()) * valid
    raise ValueError(name)


def steepest(g, norm):
    return g.sign() if norm == "linf" else g / (g.norm() + 1e-12)


def project(v, x, eps, norm):
    d = v - x
    d = d.clamp(-eps, eps) if norm == "linf" else d * min(1.0, eps / max(float(d.norm()), 1e-12))
    return (x + d).clamp(0, 1)


def apgd(model, x, y, name, norm, eps, steps, start):
    """One image, one stage. Returns the images with the lowest accuracy and with the highest cross-entropy."""
    valid = (y != VOID).to(x.dtype)

    def look(v):
        v = v.clone().requires_grad_()
        z = model(v)
        g, = torch.autograd.grad(pixel_loss(name, z, y, valid).sum(), v)
        accuracy = float((((z.argmax(1) == y) * valid).sum() / valid.sum().clamp(min=1)))
        return float(-label_log_probability(z.detach(), y, valid).sum()), accuracy, g

    window, least, shrink = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    eta, at, before = 2 * eps, start, start
    loss, accuracy, g = look(at)
    best, lowest, history = (loss, at, g), (accuracy, at), [loss]
    since, halved, best_then = 0, True, loss
    for i in range(steps):
        u = project(at + eta * steepest(g, norm), x, eps, norm)
        a = 0.75 if i else 1.0
        following = project(at + a * (u - at) + (1 - a) * (at - before), x, eps, norm)
        before, at = at, following
        loss, accuracy, g = look(at)
        history.append(loss)
        if loss > best[0]:
            best = (loss, at, g)
        if accuracy <= lowest[0] and lowest[0] > 0:
            lowest = (accuracy, at)
        since += 1
        if since == window:
            rises = sum(history[-j] > history[-j - 1] for j in range(1, window + 1))
            stuck = not halved and best_then >= best[0]
            halved = rises <= 0.75 * window or stuck
            best_then = best[0]
            if halved:
                eta, at, g = eta / 2, best[1], best[2]
            window, since = max(window - shrink, least), 0
    return lowest[1], best[1]


def segmentation(out, dense, gen):
    x = torch.rand(2, 3, 16, 20, generator=gen)
    z = dense(x)
    y = z.argmax(1)
    y[torch.rand(y.shape, generator=gen) < 0.15] = 2
    y[torch.rand(y.shape, generator=gen) < 0.1] = VOID
    out["dense_images"], out["dense_labels"] = x, y
    runs = [("ce", "linf", 4 / 255, (1.0,)), ("ce", "l2", 0.7, (1.0,)), ("js", "linf", 4 / 255, (2.0, 1.5, 1.0)),
            ("masked-ce", "linf", 4 / 255, (2.0, 1.5, 1.0)), ("balanced", "linf", 4 / 255, (2.0, 1.5, 1.0))]
    for name, norm, eps, radii in runs:
        for steps in (10, 60):
            parts = [steps] if len(radii) == 1 else [3 * steps // 10] * 2 + [steps - 2 * (3 * steps // 10)]
            images = []
            for i in range(len(x)):
                clean, label = x[i:i + 1].double(), y[i:i + 1]
                at = clean
                for radius, part in zip(radii, parts):
                    at = project(at, clean, radius * eps, norm)
                    at, _ = apgd(dense, clean, label, name, norm, radius * eps, part, at)
                images.append(at)
            adversarial = torch.cat(images)
            valid = y != VOID
            accuracy = ((dense(adversarial).argmax(1) == y) & valid).flatten(1).sum(1) / valid.flatten(1).sum(1)
            print("plain APGD", name, norm, steps, "accuracy", [round(v, 4) for v in accuracy.tolist()])
            out[f"dense_{name}_{norm}_{steps}"] = adversarial.float()


def main():
    gen = torch.Generator().manual_seed(23)
    dense = Dense(gen)
    out = dict(dense.w)
    classification(out, dense, gen)
    segmentation(out, dense, gen)
    save(HERE / "reference.safetensors", out)


if __name__ == "__main__":
    main()
