"""Trains the small network of this folder on Fashion-MNIST and writes the model, the calibration set and the test set.

    apt-get install dataset-fashion-mnist    # Debian; puts four .gz files under /usr/share/datasets/fashion-mnist
    pip install torch onnx onnxruntime && python train.py

The ONNX graph is built node by node from the trained weights, not by an exporter: BatchNormalization stays a node of
its own (so that folding it is work that is left to do), and each node bears the name of its module.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

DATASET = Path("/usr/share/datasets/fashion-mnist")
BATCH, CALIBRATION_IMAGES, TEST_IMAGES = 128, 256, 1000


class ConvBn(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in (0, 1) computed from the means of all channels (Hu et al. 2018)."""

    def __init__(self, width: int, reduction: int = 4) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, width // reduction, 1)
        self.expand = nn.Conv2d(width // reduction, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class Residual(nn.Module):
    def __init__(self, width: int, *, squeeze_excite: bool = False) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvBn(width, width), ConvBn(width, width)
        self.se = SqueezeExcite(width) if squeeze_excite else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        return F.relu(x + (y if self.se is None else self.se(y)))


class FashionCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBn(1, 32)
        self.down = ConvBn(32, 64, stride=2)
        self.block1 = Residual(64)
        self.depthwise = ConvBn(64, 64, stride=2, groups=64)
        self.pointwise = ConvBn(64, 128, kernel=1)
        self.block2 = Residual(128, squeeze_excite=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.down(F.relu(self.stem(x))))
        x = F.relu(self.pointwise(F.relu(self.depthwise(self.block1(x)))))
        return self.head(self.block2(x).mean((2, 3)))


class GraphBuilder:
    """Writes the modules of a trained network as ONNX nodes; each method returns the name of the value that it made."""

    def __init__(self, net: FashionCnn) -> None:
        self.net = net
        self.weights = {k: v.numpy() for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
        self.nodes: list[onnx.NodeProto] = []

    def node(self, op: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"{name}.out"], name, **attributes))
        return f"{name}.out"

    def conv(self, x: str, name: str) -> str:
        conv = self.net.get_submodule(name)
        inputs = [x, *(f"{name}.{p}" for p, _ in conv.named_parameters())]
        window = {"kernel_shape": conv.kernel_size, "strides": conv.stride, "pads": 2 * conv.padding}
        return self.node("Conv", inputs, name, group=conv.groups, **window)

    def conv_bn(self, x: str, name: str) -> str:
        parameters = [f"{name}.bn.{p}" for p in ("weight", "bias", "running_mean", "running_var")]
        epsilon = self.net.get_submodule(f"{name}.bn").eps
        x = self.conv(x, f"{name}.conv")
        return self.node("BatchNormalization", [x, *parameters], f"{name}.bn", epsilon=epsilon)

    def conv_bn_relu(self, x: str, name: str) -> str:
        return self.node("Relu", [self.conv_bn(x, name)], f"{name}.relu")

    def squeeze_excite(self, x: str, name: str) -> str:
        y = self.conv(self.node("GlobalAveragePool", [x], f"{name}.pool"), f"{name}.reduce")
        y = self.conv(self.node("Relu", [y], f"{name}.relu"), f"{name}.expand")
        return self.node("Mul", [x, self.node("Sigmoid", [y], f"{name}.sigmoid")], f"{name}.mul")

    def residual(self, x: str, name: str) -> str:
        y = self.conv_bn(self.conv_bn_relu(x, f"{name}.conv1"), f"{name}.conv2")
        if f"{name}.se.reduce.weight" in self.weights:
            y = self.squeeze_excite(y, f"{name}.se")
        return self.node("Relu", [self.node("Add", [x, y], f"{name}.add")], f"{name}.relu")

    def model(self) -> onnx.ModelProto:
        x = self.residual(self.conv_bn_relu(self.conv_bn_relu("image", "stem"), "down"), "block1")
        x = self.residual(self.conv_bn_relu(self.conv_bn_relu(x, "depthwise"), "pointwise"), "block2")
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x], "pool")], "flatten")
        self.nodes.append(helper.make_node("Gemm", [x, "head.weight", "head.bias"], ["logits"], "head", transB=1))
        graph = helper.make_graph(
            self.nodes,
            "fashion_cnn",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def read_idx(path: Path) -> np.ndarray:
    """Reads a gzipped IDX file of bytes: two zeros, the type, the rank, then each size as a big-endian uint32."""
    raw = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + shape.nbytes).reshape(shape)


def shift_and_mirror(x: Tensor) -> Tensor:
    """A random shift of up to two pixels for the batch, a random mirror for each image."""
    top, left = torch.randint(0, 5, (2,)).tolist()
    x = F.pad(x, (2, 2, 2, 2))[:, :, top : top + 28, left : left + 28]
    return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)


def train(net: FashionCnn, x: Tensor, y: Tensor, *, epochs: int, rate: float, augment: bool) -> None:
    """SGD on a one-cycle schedule; `rate` is the highest learning rate of the cycle."""
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * -(-len(x) // BATCH))
    for epoch in range(epochs):
        total = 0.0
        for index in torch.randperm(len(x)).split(BATCH):
            images = x[index].float() / 255
            loss = F.cross_entropy(net(shift_and_mirror(images) if augment else images), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(index)
        print(f"epoch {epoch + 1} of {epochs}: loss {total / len(x):.3f}", flush=True)


def accuracy(model: Path, x: np.ndarray, y: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    parts = np.array_split(np.moveaxis(x, 3, 1).astype(np.float32) / 255, 50)
    logits = np.concatenate([session.run(["logits"], {"image": part})[0] for part in parts])
    return float((logits.argmax(1) == y).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATASET, help="folder of the four .gz files")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--epochs", type=int, default=3, help="with augmentation; one without follows")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    train_x, test_x = (read_idx(options.data / f"{s}-images-idx3-ubyte.gz")[..., None] for s in ("train", "t10k"))
    train_y, test_y = (read_idx(options.data / f"{s}-labels-idx1-ubyte.gz") for s in ("train", "t10k"))

    net = FashionCnn().to(memory_format=torch.channels_last)
    x, y = torch.tensor(np.moveaxis(train_x, 3, 1)), torch.tensor(train_y, dtype=torch.int64)
    train(net, x, y, epochs=options.epochs, rate=0.1, augment=True)
    torch.manual_seed(options.seed + 1)  # the last epoch sees the images as they are, like those of the test set
    train(net, x, y, epochs=1, rate=0.04, augment=False)

    model = options.output / "fashion_cnn.onnx"
    onnx.save(GraphBuilder(net).model(), model)
    chosen = np.random.default_rng(options.seed).choice(len(train_x), CALIBRATION_IMAGES, replace=False)
    np.savez_compressed(options.output / "calibration.npz", x=train_x[np.sort(chosen)])
    np.savez_compressed(options.output / "test.npz", x=test_x[:TEST_IMAGES], y=test_y[:TEST_IMAGES])
    for n in (TEST_IMAGES, len(test_x)):
        print(f"accuracy of {model.name} on the first {n} test images: {accuracy(model, test_x[:n], test_y[:n]):.4f}")


if __name__ == "__main__":
    main()
