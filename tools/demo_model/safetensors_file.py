"""Reads and writes safetensors files with torch alone (neither numpy nor the safetensors package is needed)."""

import ctypes
import json
import os
import struct

import torch

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_MAX_HEADER = 100 << 20  # bytes, the format's own limit


def save(path, tensors, metadata=None):
    """Writes {name: tensor}; names in order, so that equal contents give equal files."""
    header, offset = {}, 0
    if metadata:
        header["__metadata__"] = {key: str(value) for key, value in metadata.items()}
    ordered = [(name, tensors[name].detach().cpu().contiguous()) for name in sorted(tensors)]
    for name, tensor in ordered:
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = path + ".part"
    with open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in ordered:
            file.write(ctypes.string_at(tensor.data_ptr(), tensor.numel() * tensor.element_size()))
    os.replace(temporary, path)


def load(path):
    """({name: tensor}, metadata) of a file that this folder or the product wrote."""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        if size > _MAX_HEADER:
            raise ValueError(f"{path}: header of {size} bytes, limit {_MAX_HEADER}")
        header = json.loads(file.read(size))
        data = bytearray(file.read())
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = _TYPES[entry["dtype"]]
        count = 1
        for extent in entry["shape"]:
            count *= extent
        if not 0 <= begin <= end <= len(data) or (end - begin) != count * dtype.itemsize:
            raise ValueError(f"{path}: {name} at {begin}..{end} does not hold {entry['shape']} {entry['dtype']}")
        if count == 0:
            tensors[name] = torch.zeros(entry["shape"], dtype=dtype)
            continue
        raw = torch.frombuffer(data, dtype=torch.uint8, count=end - begin, offset=begin).clone()
        tensors[name] = raw.view(dtype).reshape(entry["shape"])
    return tensors, metadata
