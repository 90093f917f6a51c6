#!/usr/bin/env python3
"""The Python half of the exchange of weights: reads what Gradus wrote, and writes what Gradus must read.

    python3 check.py DIR        (needs numpy and safetensors)

Gradus has written into DIR, with PyTorch's names:
  model.safetensors   the state of an MLP: fc1 64→32, relu, fc2 32→10 (fc1.weight [32, 64], fc1.bias [32], ...)
  io.safetensors      `x`, f32 [n, 64], and the `logits`, f32 [n, 10], that the model gave for it
  dtypes.safetensors  one tensor of shape [2, 3] for each dtype, named as it: 0, 1, 2, 3, 4, 5 (bool: odd is true)
This program computes the logits itself and compares every value; then it writes the three files again under `python/`
with weights of its own. Gradus loads those by name and compares in its turn. The safetensors package judges the format.
"""

import pathlib
import sys

import numpy as np
from safetensors import TensorSpec, deserialize, serialize
from safetensors.numpy import load_file, save_file

SHAPES = {"fc1.weight": (32, 64), "fc1.bias": (32,), "fc2.weight": (10, 32), "fc2.bias": (10,)}
NUMPY = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "U32": "u4", "U8": "u1", "BOOL": "?"}
NAMES = {
    "f64": "F64",
    "f32": "F32",
    "f16": "F16",
    "bf16": "BF16",
    "i64": "I64",
    "i32": "I32",
    "u32": "U32",
    "u8": "U8",
    "bool": "BOOL",
}


def check(condition: bool, what: str) -> None:
    if not condition:
        sys.exit(f"interop: {what}")


def logits_of(state: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    hidden = np.maximum(x @ state["fc1.weight"].T + state["fc1.bias"], 0)
    return hidden @ state["fc2.weight"].T + state["fc2.bias"]


def expected(dtype: str) -> np.ndarray:
    """What the tensor of this dtype holds; bf16, which NumPy lacks, as its bits (the upper half of an f32)."""
    values = np.arange(6).reshape(2, 3)
    if dtype == "BF16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values % 2 == 1 if dtype == "BOOL" else values.astype(NUMPY[dtype])


def read_model(folder: pathlib.Path) -> None:
    state, io = load_file(folder / "model.safetensors"), load_file(folder / "io.safetensors")
    shapes = {name: tensor.shape for name, tensor in state.items()}
    check(shapes == SHAPES, f"model.safetensors holds {shapes}, not {SHAPES}")
    check(all(t.dtype == np.float32 for t in state.values()), "model.safetensors is not all f32")
    check(all(t.std() > 0 for t in state.values()), "model.safetensors holds a constant tensor")
    ours = logits_of(state, io["x"])
    check(io["logits"].shape == ours.shape, f"logits have shape {io['logits'].shape}, not {ours.shape}")
    worst = np.abs(ours - io["logits"]).max()
    check(worst <= 1e-5, f"logits differ from NumPy's by {worst:.2e}")
    print(f"interop: Python read the model of Gradus; {ours.size} logits agree within {worst:.1e}")


def read_dtypes(folder: pathlib.Path) -> None:
    found = dict(deserialize((folder / "dtypes.safetensors").read_bytes()))
    check(set(found) == set(NAMES), f"dtypes.safetensors holds {sorted(found)}, not {sorted(NAMES)}")
    for name, dtype in NAMES.items():
        entry = found[name]
        check(entry["dtype"] == dtype, f"{name} is stored as {entry['dtype']}")
        check(list(entry["shape"]) == [2, 3], f"{name} has shape {entry['shape']}, not [2, 3]")
        check(bytes(entry["data"]) == expected(dtype).tobytes(), f"{name} holds other values than 0..6")
    print(f"interop: Python read {len(NAMES)} dtypes of Gradus")


def write_all(folder: pathlib.Path) -> None:
    rng = np.random.default_rng(1)
    state = {name: rng.uniform(-0.2, 0.2, shape).astype(np.float32) for name, shape in SHAPES.items()}
    x = rng.standard_normal((5, 64), dtype=np.float32)
    folder.mkdir()
    save_file(state, folder / "model.safetensors", metadata={"format": "np"})
    save_file({"x": x, "logits": logits_of(state, x)}, folder / "io.safetensors")
    held = {name: np.ascontiguousarray(expected(dtype)) for name, dtype in NAMES.items()}
    specs = {
        name: TensorSpec(
            dtype="bfloat16" if name == "bf16" else array.dtype.name,
            shape=array.shape,
            data_ptr=array.ctypes.data,
            data_len=array.nbytes,
        )
        for name, array in held.items()
    }
    (folder / "dtypes.safetensors").write_bytes(serialize(specs))


def main() -> None:
    check(len(sys.argv) == 2, f"usage: {sys.argv[0]} DIR")
    folder = pathlib.Path(sys.argv[1])
    read_model(folder)
    read_dtypes(folder)
    write_all(folder / "python")


if __name__ == "__main__":
    main()
