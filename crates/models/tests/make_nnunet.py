#!/usr/bin/env python3
"""Answers of nnU-Net's own network for tests/suite/nnunet.rs: random weights, an odd size, all heads.

    pip install torch==2.11.0 numpy safetensors && pip install --no-deps dynamic-network-architectures==0.4.4 einops fft-conv-pytorch
    python3 make_nnunet.py golden

Weights and biases of the norms are perturbed, so that nothing is right by being one or zero.
"""
import pathlib
import sys

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from safetensors.torch import save_file
from torch import nn

folder = pathlib.Path(sys.argv[1])
torch.manual_seed(0)
torch.set_num_threads(1)
net = PlainConvUNet(1, 4, (4, 8, 10, 10), nn.Conv2d, 3, (1, 2, 2, 2), 2, 3, 2, conv_bias=True, norm_op=nn.InstanceNorm2d,
                    norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU,
                    nonlin_kwargs={"negative_slope": 0.01, "inplace": True}, deep_supervision=True)
for m in net.modules():
    if isinstance(m, nn.InstanceNorm2d):
        nn.init.uniform_(m.weight, 0.5, 1.5)
        nn.init.normal_(m.bias, 0, 0.2)
x = torch.randn(2, 1, 24, 40)
leaf = x.clone().requires_grad_(True)
heads = net(leaf)
out = {"images": x, "probe": torch.randn_like(heads[0])}
loss = (heads[0] * out["probe"]).sum()
for k, head in enumerate(heads):
    out[f"logits.{k}"] = head
    if k:
        out[f"probe.{k}"] = torch.randn_like(head)
        loss = loss + (head * out[f"probe.{k}"]).sum()
out["image_gradient"] = torch.autograd.grad((heads[0] * out["probe"]).sum(), leaf, retain_graph=True)[0]
loss.backward()
kept = {}
for name, p in net.named_parameters():
    if ".all_modules." not in name and not name.startswith("decoder.encoder."):
        out[f"gradient.{name}"] = kept[name] = p.grad
torch.save(net.state_dict(), folder / "nnunet_base4.pth")
save_file({k: v.detach().contiguous().clone() for k, v in out.items()}, folder / "nnunet_base4_answers.safetensors")
print(len(net.state_dict()), "tensors in the file,", len(kept), "of them once")
