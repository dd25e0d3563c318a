#!/usr/bin/env python3
"""Makes what tests/suite compares with: PyTorch's answers for random weights.

    python3 -m venv venv && venv/bin/pip install torch==2.11.0 torchvision==0.26.0 numpy safetensors
    venv/bin/python make_parity.py golden          # the small U-Net in this repository
    venv/bin/python make_parity.py --large DIR     # networks of usual size, 800 MB; tests read DIR from FIREPROOF_PARITY

The answers for the large ones are computed in double precision, so that what differs is the error of single precision.

Batch-norm statistics and weights are perturbed, so that nothing is right by being one or zero.
"""
import argparse
import pathlib

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file


def block(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
                         nn.Conv2d(o, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class UNet(nn.Module):
    def __init__(self, base, levels, classes):
        super().__init__()
        ch = [base << k for k in range(levels)]
        rising = range(levels - 1, 0, -1)
        self.down = nn.ModuleList([block(3, ch[0])] + [block(ch[k - 1], ch[k]) for k in range(1, levels)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(ch[k], ch[k - 1], 2, 2) for k in rising])
        self.merge = nn.ModuleList([block(ch[k], ch[k - 1]) for k in rising])
        self.head = nn.Conv2d(base, classes, 1)

    def forward(self, x):
        skips, h = [], self.down[0](x)
        for stage in self.down[1:]:
            skips.append(h)
            h = stage(F.max_pool2d(h, 2))
        for up, merge in zip(self.up, self.merge):
            h = merge(torch.cat([skips.pop(), up(h)], 1))
        return self.head(h)


class PSPNet(nn.Module):
    """The common layout: layer0..4, ppm.features, cls, aux; 3x3 stem or 7x7 stem, both ways to dilate."""

    def __init__(self, depth, classes, deep_stem, dilate_first, hidden):
        super().__init__()
        import torchvision.models as tv
        r = getattr(tv, f"resnet{depth}")(weights=None)
        relu, pool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        if deep_stem:
            def conv(i, o, s):
                return [nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o), relu]
            self.layer0 = nn.Sequential(*conv(3, 64, 2), *conv(64, 64, 1), *conv(64, 128, 1), pool)
            first = r.layer1[0]
            first.conv1 = nn.Conv2d(128, first.conv1.out_channels, 1, bias=False)
            first.downsample[0] = nn.Conv2d(128, 256, 1, bias=False)
        else:
            self.layer0 = nn.Sequential(r.conv1, r.bn1, relu, pool)
        self.layer1, self.layer2, self.layer3, self.layer4 = r.layer1, r.layer2, r.layer3, r.layer4
        for layer, dilation in ((self.layer3, 2), (self.layer4, 4)):
            for index, b in enumerate(layer):
                d = dilation if index or dilate_first else dilation // 2
                for m in b.modules():
                    if isinstance(m, nn.Conv2d):
                        m.stride = (1, 1)
                        if m.kernel_size == (3, 3):
                            m.dilation, m.padding = (d, d), (d, d)
        c3, c4 = (1024, 2048) if depth == 50 else (256, 512)
        self.ppm = nn.Module()
        self.ppm.features = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(b), nn.Conv2d(c4, c4 // 4, 1, bias=False),
                                                        nn.BatchNorm2d(c4 // 4), nn.ReLU()) for b in (1, 2, 3, 6))

        def head(c, h):
            return nn.Sequential(nn.Conv2d(c, h, 3, padding=1, bias=False), nn.BatchNorm2d(h), nn.ReLU(),
                                 nn.Dropout2d(0.1), nn.Conv2d(h, classes, 1))
        self.cls, self.aux = head(2 * c4, hidden), head(c3, c3 // 4)

    def forward(self, x):
        h = self.layer2(self.layer1(self.layer0(x)))
        h = self.layer4(self.layer3(h))
        parts = [h] + [F.interpolate(f(h), h.shape[2:], mode="bilinear", align_corners=True) for f in self.ppm.features]
        return F.interpolate(self.cls(torch.cat(parts, 1)), x.shape[2:], mode="bilinear", align_corners=True)


def perturb(model):
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0, 0.2)
            nn.init.normal_(m.running_mean, 0, 0.2)
            nn.init.uniform_(m.running_var, 0.5, 2.0)
    return model.eval()


def gradient(f, x, probe):
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad((f(x) * probe).sum(), x)[0]


def small(folder):
    torch.manual_seed(0)
    model = perturb(UNet(4, 4, 5))
    torch.save(model.state_dict(), folder / "unet_base4.pth")
    x = torch.rand(2, 3, 24, 40)
    out = {"images": x}
    with torch.no_grad():
        out["logits"] = model(x)
    probe = torch.randn_like(out["logits"])
    out["probe"], out["image_gradient"] = probe, gradient(model, x, probe)
    model.train()
    y = model(x)
    (y * probe).sum().backward()
    out["train_logits"] = y.detach()
    for name, p in model.named_parameters():
        out[f"gradient.{name}"] = p.grad
    for name, b in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            out[f"after.{name}"] = b
    save_file({k: v.detach().contiguous().clone() for k, v in out.items()}, folder / "unet_base4_answers.safetensors")


def large(folder):
    from torchvision.models import segmentation
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def torchvision(name):
        net = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=7, aux_loss=True)
        return net, lambda x: net(x)["out"]

    def pspnet(*args):
        net = PSPNet(*args)
        return net, net

    def unet():
        net = UNet(32, 5, 7)
        for m in net.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        return net, net

    odd, halved = ((97, 131), (64, 64), (40, 33)), ((96, 144), (64, 64), (48, 32))
    cases = {
        "unet_base32": unet,
        "deeplabv3_resnet50": lambda: torchvision("deeplabv3_resnet50"),
        "fcn_resnet50": lambda: torchvision("fcn_resnet50"),
        "pspnet_resnet50_deep_stem": lambda: pspnet(50, 7, True, True, 512),
        "pspnet_resnet50_torchvision": lambda: pspnet(50, 7, False, False, 512),
        "pspnet_resnet18": lambda: pspnet(18, 7, False, True, 128),
    }
    for seed, (name, make) in enumerate(cases.items()):
        torch.manual_seed(seed)
        net, forward = make()
        perturb(net)
        torch.save(net.state_dict(), folder / f"{name}.pth", _use_new_zipfile_serialization=name != "fcn_resnet50")
        net.double()
        out = {}
        for h, w in halved if name.startswith("unet") else odd:
            x = torch.rand(1, 3, h, w).double()
            f = forward if name.startswith("unet") else lambda x: forward((x - mean) / std)
            with torch.no_grad():
                y = f(x)
            probe = torch.randn_like(y, dtype=torch.float32).double()
            out |= {f"images.{h}x{w}": x, f"logits.{h}x{w}": y, f"probe.{h}x{w}": probe,
                    f"gradient.{h}x{w}": gradient(f, x, probe)}
        save_file({k: v.float().contiguous() for k, v in out.items()}, folder / f"{name}_answers.safetensors")
        print(name, flush=True)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("--large", action="store_true")
    arguments = arguments.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    (large if arguments.large else small)(arguments.folder)
