"""Trains a wide multilayer perceptron on Fashion-MNIST and writes it as ONNX, with data to calibrate and to score on.

    apt-get install dataset-fashion-mnist    # Debian
    python benchmarks/fashion_mlp.py DIR     # needs torch and onnx; about two minutes on two cores

784 → 1024 → 1024 → 1024 → 10, 2.9 M parameters, all of them in fully connected layers. Writes `fashion_mlp.onnx` and
`fashion_mlp.npz`: `train_x` 4,096 training images, `test_x` and `test_y` the 10,000 test images, scaled to 0..1.
"""

from __future__ import annotations

import gzip
import itertools
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

DATASET = Path("/usr/share/datasets/fashion-mnist")
WIDTH, BATCH, EPOCHS, CALIBRATION = 1024, 256, 8, 4096


def read(name: str, offset: int) -> np.ndarray:
    """The bytes of an IDX file behind its header."""
    with gzip.open(DATASET / name) as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


def images(part: str) -> np.ndarray:
    """float32 [n, 784], 0 to 1."""
    return read(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 784).astype(np.float32) / 255


def train(x: torch.Tensor, y: torch.Tensor) -> nn.Sequential:
    torch.manual_seed(0)
    sizes = (784, WIDTH, WIDTH, WIDTH)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(0.2)]
    model = nn.Sequential(*layers, nn.Linear(WIDTH, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(x))
        for part in order[: len(x) // BATCH * BATCH].split(BATCH):
            loss = F.cross_entropy(model(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def export(model: nn.Sequential, path: Path) -> None:
    """Gemm and Relu nodes, one for each module."""
    nodes, weights, value = [], [], "input"
    linear = [m for m in model if isinstance(m, nn.Linear)]
    for i, layer in enumerate(linear):
        names = [f"fc{i + 1}.weight", f"fc{i + 1}.bias"]
        weights += [
            numpy_helper.from_array(p.detach().numpy(), n)
            for p, n in zip((layer.weight, layer.bias), names, strict=True)
        ]
        last = i == len(linear) - 1
        output = "logits" if last else f"fc{i + 1}.out"
        nodes.append(helper.make_node("Gemm", [value, *names], [output], f"fc{i + 1}", transB=1))
        value = output
        if not last:
            nodes.append(helper.make_node("Relu", [value], [f"fc{i + 1}.relu"], f"relu{i + 1}"))
            value = f"fc{i + 1}.relu"
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", s]) for n, s in (("input", 784), ("logits", 10))
    ]
    graph = helper.make_graph(nodes, "fashion_mlp", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    x, y = torch.from_numpy(images("train")), torch.from_numpy(read("train-labels-idx1-ubyte.gz", 8).astype(np.int64))
    model = train(x, y)
    export(model, folder / "fashion_mlp.onnx")
    test_x, test_y = images("t10k"), read("t10k-labels-idx1-ubyte.gz", 8)
    np.savez(folder / "fashion_mlp.npz", train_x=x[:CALIBRATION].numpy(), test_x=test_x, test_y=test_y)
    with torch.no_grad():
        found = model(torch.from_numpy(test_x)).argmax(1).numpy()
    print(f"test accuracy {100 * (found == test_y).mean():.2f} %")


if __name__ == "__main__":
    main()
