#!/usr/bin/env python3
"""Adversarial images of the authors' own code, for tests/suite/reference.rs.

    PYTHONPATH=AUTO_ATTACK TORCHDYNAMO_DISABLE=1 python make_authors.py ROBUST_SEGMENTATION

with the packages of make_reference.py and checkouts of github.com/fra31/auto-attack at a392200 and
github.com/nmndeep/Robust-Segmentation at f8ff8e6. AutoAttack's `APGDAttack` and `SquareAttack` on maps of one pixel; the random numbers of the latter are those of our own generator, written down
a second time, so that both try the same squares. SEA's `apgd_largereps` with its three losses, from the clean image, one
image at a time, on labels without void. Images, labels and weights are those of reference.safetensors. Writes authors.safetensors.
"""
import importlib.util
import pathlib
import sys

import torch
from autoattack.autopgd_base import APGDAttack
from autoattack.square import SquareAttack

from common import Stream, save
from make_reference import CLASSES, Dense, Pooled

HERE = pathlib.Path(__file__).parent
# How often a class is labelled in a training set that nobody has.
COUNTS = [700, 20, 250, 30, 110]


class Square(SquareAttack):
    """The authors' attack of one image, with the random numbers of sample `id`."""

    def drive(self, id, seed):
        self.stream = Stream([seed, id, 0]).child("square")
        self.query, self.drawn = 0, 0

    def random_choice(self, shape):
        if len(shape) == 4:
            stream, first = self.stream.child("stripes"), 0
        else:
            stream, first = self.stream, (shape[0] + 2) * self.query + 2
        count = int(torch.tensor(shape).prod())
        return torch.tensor([2.0 * stream.below(first + i, 2) - 1 for i in range(count)]).view(shape)

    def random_int(self, low=0, high=1, shape=(1,)):
        # Theirs never draws the last place; ours may.
        if self.drawn % 2 == 0:
            self.query += 1
        self.drawn += 1
        channels = self.orig_dim[0]
        return torch.tensor([self.stream.below((channels + 2) * self.query + (self.drawn - 1) % 2, high - low + 1)])


class FromTheStart:
    """APGD's look back with the loss of the start where the authors' code reads the zero that is there before the last step."""

    def __init__(self, attacker):
        self.losses = []
        self.tracked = attacker.criterion_dict["ce-avg"]
        attacker.criterion_dict["ce-avg"] = self.track
        attacker.check_oscillation = self.check

    def track(self, z, y):
        loss = self.tracked(z, y)
        self.losses.append(loss.detach().flatten(1).mean(1))
        return loss

    def check(self, x, j, k, y5, k3=0.75):
        first = self.losses[-(j + 2)]
        rises = sum((x[i] > (x[i - 1] if i else first)).float() for i in range(j - k + 1, j + 1))
        return (rises <= k * k3).float()


def classification(out, dense, x):
    model = Pooled(dense)
    y = model(x).argmax(1)
    for norm, eps in (("Linf", 4 / 255), ("L2", 0.5)):
        for steps in (4, 20, 100):
            attack = APGDAttack(model, n_iter=steps, norm=norm, eps=eps, loss="ce")
            attack.init_hyperparam(x)
            best, _, loss, _ = attack.attack_single_run(x, y, x_init=x.clone())
            out[f"apgd_{norm.lower()}_{steps}"] = best.detach()
            print("AutoAttack APGD", norm, steps, "cross-entropy", [round(v, 5) for v in loss.tolist()])
    for queries in (50, 1000):
        images, used = [], []
        for i in range(len(x)):
            attack = Square(model, n_queries=queries, eps=8 / 255)
            one, label = x[i:i + 1], y[i:i + 1]
            attack.init_hyperparam(one)
            attack.drive(i, 0)
            count, found = attack.attack_single_run(one, label)
            images.append(found)
            used.append(count.item())
        out[f"square_{queries}"], out[f"square_{queries}_used"] = torch.cat(images), torch.tensor(used)
        print("AutoAttack Square", queries, "queries", used, "fooled", (model(torch.cat(images)).argmax(1) != y).tolist())


def segmentation(out, dense, attacker, x, labels):
    own = attacker.check_oscillation, attacker.criterion_dict["ce-avg"]
    y = labels.clone()
    z = dense(x)
    y[y == 255] = z.argmax(1)[y == 255]
    out["labels"] = y
    dense.eval()
    for name, loss, weights in (("balanced", "mask-ce-bal", 1 / torch.tensor(COUNTS, dtype=torch.float32)),
                                ("masked-ce", "mask-ce-avg", None), ("js", "js-avg", None)):
        for steps in (10, 100):
            for kind in ("as it is", "from the start"):
                attacker.check_oscillation, attacker.criterion_dict["ce-avg"] = own
                if kind == "from the start":
                    FromTheStart(attacker)
                found = []
                for i in range(len(x)):
                    images, _, _ = attacker.apgd_largereps(
                        dense, x[i:i + 1], y[i:i + 1], weights, eps=4 / 255, n_iter=steps, loss=loss, track_loss="ce-avg",
                        early_stop=True, num_classes=CLASSES)
                    found.append(images.detach())
                found = torch.cat(found)
                accuracy = (dense(found).argmax(1) == y).float().flatten(1).mean(1)
                print("SEA", loss, steps, kind, "accuracy", [round(v, 4) for v in accuracy.tolist()])
            out[f"sea_{name}_{steps}"] = found


def main():
    spec = importlib.util.spec_from_file_location("attacker", pathlib.Path(sys.argv[1]) / "semseg" / "attacker.py")
    attacker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(attacker)
    gen = torch.Generator().manual_seed(23)
    dense = Dense(gen)
    x = torch.rand(6, 3, 16, 16, generator=gen)
    out = {}
    classification(out, dense, x)
    # As in make_reference.py, which draws these next.
    images = torch.rand(2, 3, 16, 20, generator=gen)
    labels = dense(images).argmax(1)
    labels[torch.rand(labels.shape, generator=gen) < 0.15] = 2
    labels[torch.rand(labels.shape, generator=gen) < 0.1] = 255
    segmentation(out, dense, attacker, images, labels)
    save(HERE / "authors.safetensors", out)


if __name__ == "__main__":
    main()
