"""Small NIfTI-1 files and what nibabel reads from them, for `nifti.json`.

Run once, with nibabel 5.4.2 and numpy: `python nifti.py > nifti.json`. Files are stored as hexadecimal text, so the test
needs nothing of this.
"""

import gzip
import io
import json

import nibabel as nib
import numpy as np
from nibabel.fileholders import FileHolder

rng = np.random.default_rng(7)


def rotation(axis, degrees):
    """Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    t = np.radians(degrees)
    return np.eye(3) + np.sin(t) * k + (1 - np.cos(t)) * k @ k


def affine(linear, zooms, origin):
    out = np.eye(4)
    out[:3, :3] = linear @ np.diag(zooms)
    out[:3, 3] = origin
    return out


def case(name, data, matrix, form, big_endian=False, scaling=None, zipped=False, unit="mm"):
    header = nib.Nifti1Header(endianness=">" if big_endian else "<")
    header.set_data_dtype(data.dtype)
    image = nib.Nifti1Image(data, None, header)
    image.header.set_data_shape(data.shape)
    image.set_sform(matrix if form == "sform" else None, code=2 if form == "sform" else 0)
    image.set_qform(matrix if form == "qform" else None, code=1 if form == "qform" else 0)
    image.header.set_xyzt_units(unit)
    stream = io.BytesIO()
    image.file_map = {"image": FileHolder(fileobj=stream), "header": FileHolder(fileobj=stream)}
    image.to_file_map(image.file_map)
    content = bytearray(stream.getvalue())
    if scaling:
        content[112:120] = np.array(scaling, dtype=">f4" if big_endian else "<f4").tobytes()
    content = bytes(content)
    read = nib.Nifti1Image.from_bytes(content)
    assert (read.header.endianness == ">") == big_endian
    factor = {"mm": 1.0, "meter": 1e3, "micron": 1e-3}[unit]
    return {
        "name": name,
        "file": (gzip.compress(content, mtime=0) if zipped else content).hex(),
        "shape": data.shape,
        "kind": str(data.dtype.name),
        "spacing": [float(v) * factor for v in nib.affines.voxel_sizes(read.affine)],
        "affine": (read.affine[:3] * factor).tolist(),
        "orientation": "".join(nib.aff2axcodes(read.affine)),
        # x fastest, as the file stores them.
        "values": [float(v) for v in np.asarray(read.get_fdata()).ravel(order="F")],
    }


def integers(dtype, shape):
    low, high = max(np.iinfo(dtype).min, -(2**20)), min(np.iinfo(dtype).max, 2**20)
    return rng.integers(low, high, size=shape, dtype=np.int64).astype(dtype)


tilted = rotation([1, 2, 3], 20)
cases = [
    case("int16, RAS", integers(np.int16, (4, 3, 2)), affine(np.eye(3), [1, 1, 1], [0, 0, 0]), "sform"),
    case("uint8, LPS, gzip", integers(np.uint8, (3, 4, 2)), affine(np.diag([-1, -1, 1]), [0.5, 0.75, 3.6], [90, 126, -72]), "sform", zipped=True),
    case("float32, oblique sform", rng.standard_normal((3, 2, 2)).astype(np.float32), affine(tilted, [0.62, 0.62, 3.6], [-10, 5, 2.5]), "sform"),
    case("int16, oblique qform, big-endian", integers(np.int16, (2, 3, 2)), affine(tilted, [1.25, 1.25, 1.37], [1, 2, 3]), "qform", big_endian=True),
    case("int16, mirrored qform", integers(np.int16, (2, 2, 3)), affine(rotation([0.3, 1, 0.2], 70) @ np.diag([1, 1, -1]), [1, 2, 3], [0, 0, 0]), "qform"),
    case("half a turn in the qform", integers(np.uint8, (2, 2, 2)), affine(np.diag([-1, -1, 1]), [1, 1, 1], [0, 0, 0]), "qform"),
    case("axes in another order", integers(np.uint8, (2, 3, 4)), affine(np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]]), [2, 1, 0.5], [4, 5, 6]), "sform"),
    case("int16, scaled, big-endian, gzip", integers(np.int16, (3, 3, 1)), affine(np.eye(3), [1, 1, 1], [0, 0, 0]), "sform", big_endian=True, scaling=[0.5, -1024], zipped=True),
    case("uint16, slope of zero", integers(np.uint16, (2, 2, 1)), affine(np.eye(3), [1, 1, 1], [0, 0, 0]), "sform", scaling=[0, 7]),
    case("int8", integers(np.int8, (3, 1, 1)), affine(np.eye(3), [1, 1, 1], [0, 0, 0]), "sform"),
    case("int32, in metres", integers(np.int32, (2, 1, 2)), affine(np.eye(3), [0.001, 0.002, 0.003], [0, 0, 0]), "sform", unit="meter"),
    case("float64, in micrometres", rng.standard_normal((2, 2, 1)), affine(np.eye(3), [500, 500, 1000], [0, 0, 0]), "sform", unit="micron"),
    case("float32, big-endian, two channels", rng.standard_normal((2, 3, 2, 2)).astype(np.float32), affine(np.eye(3), [1, 1, 1], [0, 0, 0]), "sform", big_endian=True),
]
print(json.dumps(cases, separators=(",", ":")))
