"""What the scripts share."""
import json
import struct

import torch

VOID = 255


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
