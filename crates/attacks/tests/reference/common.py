"""What the scripts share."""
import json
import struct

import torch

VOID = 255
MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def save(path, tensors):
    """A safetensors file of float32 and int64 tensors."""
    names = {torch.float32: "F32", torch.int64: "I64"}
    header, blob, at = {}, [], 0
    for key, value in tensors.items():
        raw = value.contiguous().numpy().tobytes()
        header[key] = {"dtype": names[value.dtype], "shape": list(value.shape), "data_offsets": [at, at + len(raw)]}
        blob.append(raw)
        at += len(raw)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(blob))


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


class Stream:
    """fireproof_tensor::random::Stream."""

    def __init__(self, words):
        self.key = 0x243F6A8885A308D3
        for word in words:
            self.key = (mix(self.key ^ mix(word)) + GOLDEN) & MASK

    def child(self, name):
        h = 0xCBF29CE484222325
        for byte in name.encode():
            h = ((h ^ byte) * 0x100000001B3) & MASK
        return Stream([self.key, h])

    def below(self, counter, bound):
        return (mix((self.key + counter * GOLDEN) & MASK) * bound) >> 64

    def uniform(self, counter):
        return (mix((self.key + counter * GOLDEN) & MASK) >> 40) / 16_777_216
