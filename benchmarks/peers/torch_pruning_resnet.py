"""Torch-Pruning on ResNet-56 rebuilt from the ONNX file. Started by ../pruning_peers.py in the peer's own environment.

    python torch_pruning_resnet.py MODEL.onnx DATA.npz RESULTS.json

DATA holds test images `x` and labels `y`, what the ONNX model answers to the first of them (`logits`), its `macs`, and
the `cuts` wanted. L1 magnitude, no training, three forms of the model:

* `pad`: the network as it is; the shortcut between stages is a strided slice and zeros padded along the channels.
* `selection`: the same function, with that shortcut written as a fixed 1 × 1 Conv whose weights are 0 and 1, which
  Torch-Pruning can follow. Its MACs (0.2 %) are not counted.
* `inside`: the network as it is; only channels inside the blocks may go, the residual stream is ignored.

Channels go in many small steps, as in Torch-Pruning's own reproduction scripts; the step whose MACs come closest to a
cut is scored.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
import torch_pruning
from torch import nn

STEPS = 200
BATCH = 50


def conv(node: onnx.NodeProto, weights: dict[str, torch.Tensor]) -> nn.Conv2d:
    """The Conv with its folded BatchNorm."""
    w, b = weights[node.input[1]], weights[node.input[2]]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    result = nn.Conv2d(w.shape[1], w.shape[0], w.shape[2:], attributes["strides"], attributes["pads"][:2])
    result.weight.data, result.bias.data = w, b
    return result


class Selection(nn.Conv2d):
    """Every second pixel of the `wide` channels, in the middle of `wider` ones."""

    def __init__(self, wide: int, wider: int) -> None:
        super().__init__(wide, wider, 1, 2, bias=False)
        first = (wider - wide) // 2
        self.weight.data.zero_()
        self.weight.data[first : first + wide, :, 0, 0] = torch.eye(wide)


class Pad(nn.Module):
    """The same by slices and padding, as in the ONNX graph."""

    def __init__(self, wide: int, wider: int) -> None:
        super().__init__()
        self.each_side = (wider - wide) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.each_side, self.each_side))


class Block(nn.Module):
    def __init__(self, first: nn.Conv2d, second: nn.Conv2d, between: type[nn.Module]) -> None:
        super().__init__()
        wide, wider = first.in_channels, second.out_channels
        self.first, self.second = first, second
        self.shortcut = between(wide, wider) if wide != wider else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.shortcut(x) + self.second(F.relu(self.first(x))))


class ResNet(nn.Module):
    def __init__(self, proto: onnx.ModelProto, between: type[nn.Module]) -> None:
        super().__init__()
        weights = {t.name: torch.tensor(onnx.numpy_helper.to_array(t)) for t in proto.graph.initializer}
        convs = [conv(node, weights) for node in proto.graph.node if node.op_type == "Conv"]
        pairs = zip(convs[1::2], convs[2::2], strict=True)
        self.stem, self.blocks = convs[0], nn.Sequential(*(Block(a, b, between) for a, b in pairs))
        self.head = nn.Linear(*reversed(weights["linear.weight"].shape))
        self.head.weight.data, self.head.bias.data = weights["linear.weight"], weights["linear.bias"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


def macs(model: nn.Module, x: torch.Tensor) -> int:
    """Multiply-accumulates of Conv (without Selection) and Linear for one image; biases are not counted."""
    total = 0

    def add(layer: nn.Module, _: Any, y: torch.Tensor) -> None:
        nonlocal total
        total += layer.weight.numel() * y[0, 0].numel()

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and not isinstance(m, Selection)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return total


def logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(x[i : i + BATCH]) for i in range(0, len(x), BATCH)])


def rows(form: str, scope: str, proto: onnx.ModelProto, data: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    """A row for each cut, or one row that says why there is none."""
    x, whole = data["x"], int(data["macs"])
    model = ResNet(proto, Selection if form == "selection" else Pad).eval()
    worst = float((logits(model, x[:BATCH]) - data["logits"][:BATCH]).abs().max())
    assert worst < 1e-4, f"{form}: logits differ by {worst}"
    assert macs(model, x[:1]) == whole, (macs(model, x[:1]), whole)
    ignored = [model.head]
    if form == "inside":
        ignored += [model.stem, *(block.second for block in model.blocks)]
    found: list[dict[str, Any]] = []
    seconds = 0.0
    method = {"method": "torch-pruning, l1", "form": form, "scope": scope}
    try:
        pruner = torch_pruning.pruner.MagnitudePruner(
            model, x[:1], torch_pruning.importance.MagnitudeImportance(p=1), global_pruning=scope == "global",
            pruning_ratio=1.0, iterative_steps=STEPS, ignored_layers=ignored,
        )  # fmt: skip
        for cut in data["cuts"].tolist():
            start = time.monotonic()
            before = after = copy.deepcopy(model)
            while macs(after, x[:1]) > whole / cut and pruner.current_step < STEPS:
                before = after
                pruner.step()
                after = copy.deepcopy(model)
            seconds += time.monotonic() - start
            closest = min((before, after), key=lambda m: abs(np.log(whole / macs(m, x[:1]) / cut)))
            hits = (logits(closest, x).argmax(1) == data["y"]).float()
            row = {
                "wanted": cut,
                "macs": round(whole / macs(closest, x[:1]), 3),
                "accuracy": round(100 * float(hits.mean()), 2),
            }
            found.append(method | row | {"parameters": sum(p.numel() for p in closest.parameters())})
            found[-1]["seconds"] = round(seconds, 1)
            print(found[-1], flush=True)
    except Exception as error:
        found.append(method | {"error": f"{type(error).__name__}: {error}"})
        print(found[-1], flush=True)
    return found


def main() -> None:
    torch.set_num_threads(1)
    model, archive, results = sys.argv[1:4]
    with np.load(archive) as arrays:
        data = {name: torch.tensor(arrays[name]) for name in arrays.files}
    data["x"] = data["x"].to(memory_format=torch.channels_last)  # half the time
    forms = ("pad", "selection", "inside")
    proto = onnx.load(model)
    found = [row for form in forms for scope in ("uniform", "global") for row in rows(form, scope, proto, data)]
    Path(results).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
