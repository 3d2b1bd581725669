"""What the peers do where `onnxcomp prune` is measured: onnxsim and Torch-Pruning on the same models.

    ONNXCOMP_ASSETS=... python benchmarks/pruning_peers.py SCRATCH [ZOO]    # ZOO: of zoo_fetch.py (rapidocr, magika)

Each peer lives in a virtual environment of its own in SCRATCH, which is made on the first run (network: PyPI) and used
again.

1. Coverage, onnxsim: share of the parameters that go with 50 % of the channels, on the generated topologies and on
   trained models, beside `pruning_coverage.py`. The best of every variant below, of the model as it is and after
   `onnxsim.simplify`, each relative to the form that it was given. What doesn't load or run counts as 0 and is named; a
   result that runs is taken as right, which `pruning_coverage.py` proves for onnxcomp.
2. ResNet-56, CIFAR-10, both peers: accuracy at 1/1.5, 1/2.1 and 1/2.6 of the MACs without training, beside
   `pruning_resnet.py`. MACs are counted as onnxcomp counts them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from common import RESULTS, assets, environment, write
from pruning_resnet import accuracy, images

from onnxcomp.errors import OnnxcompError
from onnxcomp.model.cost import cost
from onnxcomp.model.normalize import normalize
from onnxcomp.passes.simplify.simplify import Simplify, SimplifyConfig
from onnxcomp.runtime.session import SessionConfig, open_session

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

Feed = Mapping[str, np.ndarray]
Job = dict[str, Any]
Row = dict[str, Any]

PACKAGES = {
    "onnxsim": ("onnxsim>=0.8", "onnxruntime"),
    "torch-pruning": ("torch==2.13.0", "torch-pruning", "onnx"),
}
SHARE = 0.5
FAMILIES = (
    "structured_pruning", "structured_pruning_qdq", "structured_pruning_qoperator", "structured_pruning_matmul_nbits",
    "structured_pruning_dynamic_quantize_matmul", "structured_pruning_dynamic_quantize_conv", "attention_head_pruning",
    "moe_expert_channel_pruning",
)  # fmt: skip
"""onnxsim has a function for each kind of weight; no two of these cut the same weights."""

VARIANTS: dict[str, list[tuple[str, Row]]] = {
    "channels": [("apply_structured_pruning", {"sparsity": SHARE})],
    "channels, C++": [("apply_structured_pruning_cpp", {"sparsity": SHARE})],
    "every family": [(f"apply_{name}", {"sparsity": SHARE}) for name in FAMILIES],
}
MODELS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "PP-OCR cls": ("*/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": (1, 3, 48, 192)}),
    "PP-OCRv4 det": ("*/ch_PP-OCRv4_det_infer.onnx", {"x": (1, 3, 64, 64)}),
    "PP-OCRv4 rec": ("*/ch_PP-OCRv4_rec_infer.onnx", {"x": (1, 3, 48, 320)}),
    "magika": ("magika/*.onnx", {"bytes": (1, 2048)}),
}
"""Patterns in the zoo, and shapes to run them at."""

CUTS = (1.5, 2.1, 2.6)
RATIOS = tuple(round(0.2 + 0.02 * i, 2) for i in range(35))
SEARCHED_IMAGES, IMAGES = 64, 1024
RESNET_INPUT = {"input": (1, 3, 32, 32)}


def version(python: Path, package: str) -> str:
    command = [str(python), "-c", f"import importlib.metadata as m; print(m.version('{package}'))"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def work(python: Path, script: str, arguments: Sequence[Path], results: Path) -> Any:
    """Result of a script in peers/, run by `python`."""
    subprocess.run([python, Path(__file__).parent / "peers" / script, *arguments, results], check=True)
    return json.loads(results.read_text())


def onnxsim(python: Path, scratch: Path, jobs: list[Job], learn: Path | None = None) -> list[str]:
    """What went wrong with each job, "" if nothing."""
    listed = scratch / "jobs.json"
    listed.write_text(json.dumps(jobs, default=str))
    return list(work(python, "onnxsim_jobs.py", (listed, learn or listed), scratch / "outcomes.json"))


def parameters(path: Path) -> int:
    return cost(normalize(ir.load(path)).model).parameters


def fault(path: Path, feed: Feed) -> str:
    """Why ONNX Runtime doesn't load or run the file; "" if it does."""
    try:
        with open_session(path, SessionConfig(threads=1)) as session:
            session.run(feed)
    except OnnxcompError as error:
        return error.message.splitlines()[0][:160]
    return ""


def coverage(python: Path, scratch: Path, models: Mapping[str, tuple[Path, Feed]]) -> dict[str, Row]:
    """A row for each model: the best share that was removed, by which variant, and what broke."""
    simplified = {name: scratch / f"{name}.simplified.onnx" for name in models}
    jobs = [{"model": p, "output": simplified[n], "calls": [("simplify", {})]} for n, (p, _) in models.items()]
    failed = dict(zip(models, onnxsim(python, scratch, jobs), strict=True))
    forms = {(name, "as it is"): path for name, (path, _) in models.items()}
    forms |= {(name, "simplified"): simplified[name] for name in models if not failed[name]}
    keys = [(name, form, variant) for name, form in forms for variant in VARIANTS]
    outputs = {key: scratch / f"{key[0]}.{i}.onnx" for i, key in enumerate(keys)}
    jobs = [{"model": forms[k[:2]], "output": outputs[k], "calls": VARIANTS[k[2]]} for k in keys]
    for key, trouble in zip(keys, onnxsim(python, scratch, jobs), strict=True):
        failed[", ".join(key)] = trouble
    rows: dict[str, Row] = {
        name: {"removed": 0.0, "by": "", "broken": [f"simplify: {failed[name]}"] if failed[name] else []}
        for name in models
    }
    for name, form, variant in keys:
        row, path = rows[name], outputs[name, form, variant]
        trouble = failed[f"{name}, {form}, {variant}"] or fault(path, models[name][1])
        if trouble:
            row["broken"].append(f"{form}, {variant}: {trouble}")
            continue
        removed = round(1 - parameters(path) / max(1, parameters(forms[name, form])), 4)
        if removed > row["removed"]:
            row |= {"removed": removed, "by": f"{variant}, {form}"}
    return rows


def generated(scratch: Path) -> dict[str, tuple[Path, Feed]]:
    from prune_topologies import TOPOLOGIES, feed_of

    found: dict[str, tuple[Path, Feed]] = {}
    for name, topology in TOPOLOGIES.items():
        model, path = topology.build(), scratch / f"{name}.onnx"
        ir.save(model, path)
        found[name] = (path, feed_of(model, 2))
    return found


def trained(zoo: Path) -> dict[str, tuple[Path, Feed]]:
    rng = np.random.default_rng(0)
    found: dict[str, tuple[Path, Feed]] = {}
    for name, (pattern, shapes) in MODELS.items():
        for path in sorted(zoo.glob(pattern))[:1]:
            types = {v.name: v.dtype.numpy() for v in ir.load(path).graph.inputs if v.dtype}
            feed = {
                n: (rng.random(s) * (255 if types[n].kind == "i" else 1)).astype(types[n]) for n, s in shapes.items()
            }
            found[name] = (path, feed)
    return found


def whole_macs(model: Path) -> int:
    """MACs of the original, whose shapes are known only after its Constant nodes are folded."""
    from graphs import context

    loaded = normalize(ir.load(model)).model
    ctx = context([{name: np.zeros(shape, np.float32) for name, shape in RESNET_INPUT.items()}])
    fold = Simplify(SimplifyConfig(rules=("fold-constants", "remove-idle")))
    return macs(fold.apply(loaded, fold.plan(loaded, ctx), ctx))


def macs(model: ir.Model) -> int:
    weighed = cost(model, RESNET_INPUT)
    assert not weighed.macs_unknown
    return weighed.macs


@dataclass(frozen=True)
class Method:
    """One way to prune ResNet-56 by onnxsim: after `simplify`, `function` with `options`; then `more`."""

    name: str
    function: str
    options: Row
    more: tuple[str, ...] = ()

    def job(self, model: Path, output: Path, ratio: float, images: int) -> Job:
        calls = [("simplify", {}), (self.function, self.options | {"sparsity": ratio}), *((m, {}) for m in self.more)]
        return {"model": model, "output": output, "calls": calls, "images": images}


PLAIN, WANDA = "apply_structured_pruning", "apply_structured_wanda_pruning"
METHODS = (
    Method("magnitude l1", PLAIN, {"importance_norm": "l1"}),
    Method("magnitude l2", PLAIN, {"importance_norm": "l2"}),
    Method("Wanda", WANDA, {}),
    Method("Wanda + finetune", WANDA, {}, ("apply_pruning_finetune",)),
)
"""Wanda ranks by activations of the calibration images; apply_pruning_finetune is a ridge regression of MatMul and Gemm
on them. onnxsim has no reconstruction of Conv."""


def onnxsim_resnet(python: Path, scratch: Path, model: Path, learn: Path) -> Iterator[tuple[Row, ir.Model]]:
    """A row and its model for each method, scope and cut, at the one of RATIOS whose MACs come closest to the cut."""
    whole = whole_macs(model)
    outputs = [scratch / f"resnet.{ratio}.onnx" for ratio in RATIOS]
    searched: dict[str, np.ndarray] = {}
    for known in METHODS:
        for scope in ("uniform", "global"):
            method = replace(known, options=known.options | {"global_sparsity": scope == "global"})
            key = f"{method.function} {method.options}"  # a refit changes no shape
            if key not in searched:
                cheap = replace(method, more=())
                tried = [cheap.job(model, o, r, SEARCHED_IMAGES) for r, o in zip(RATIOS, outputs, strict=True)]
                assert not any(onnxsim(python, scratch, tried, learn))
                searched[key] = np.array([whole / macs(ir.load(output)) for output in outputs])
            factors = searched[key]
            for cut in CUTS:
                start, output = time.monotonic(), scratch / f"resnet.{method.name}.{scope}.{cut}.onnx"
                ratio = RATIOS[int(np.abs(np.log(factors / cut)).argmin())]
                assert not any(onnxsim(python, scratch, [method.job(model, output, ratio, IMAGES)], learn))
                pruned, seconds = ir.load(output), round(time.monotonic() - start, 1)
                row: Row = {"method": f"onnxsim, {method.name}", "scope": scope, "wanted": cut, "ratio": ratio}
                weighed = {"macs": round(whole / macs(pruned), 3), "parameters": cost(pruned).parameters}
                yield row | weighed | {"seconds": seconds}, pruned


def resnet(pythons: Mapping[str, Path], scratch: Path, folder: Path) -> list[Row]:
    model = folder / "models" / "resnet56_cifar10.onnx"
    learn, _ = images(str(folder / "cifar10" / "train_10k.npz"), IMAGES)
    x, y = images(str(folder / "cifar10" / "test.npz"), None)
    np.savez(scratch / "learn.npz", x=learn)
    with open_session(model, SessionConfig(threads=1)) as session:
        logits = session.run({"input": x[:250]})[0]
    facts = {"logits": logits, "macs": np.array(whole_macs(model)), "cuts": np.array(CUTS)}
    arrays: Any = {"x": x, "y": y.astype(np.int64)} | facts
    np.savez(scratch / "test.npz", **arrays)
    rows: list[Row] = [{"method": "float", "accuracy": round(accuracy(ir.load(model), x, y), 2)}]
    for row, pruned in onnxsim_resnet(pythons["onnxsim"], scratch, model, scratch / "learn.npz"):
        rows.append(row | {"accuracy": round(accuracy(pruned, x, y), 2)})
        print(rows[-1], flush=True)
    arguments = (model, scratch / "test.npz")
    return rows + list(work(pythons["torch-pruning"], "torch_pruning_resnet.py", arguments, scratch / "torch.json"))


def beside(rows: Mapping[str, Row]) -> Row:
    """How onnxcomp's shares on the same topologies compare, where pruning_coverage.py has been run."""
    path = RESULTS / "pruning_coverage.json"
    ours = json.loads(path.read_text())["topologies"] if path.exists() else {}
    both = [(ours[name], row["removed"]) for name, row in rows.items() if name in ours]
    if not both:
        return {}
    better, worse = sum(a > b + 0.005 for a, b in both), sum(a < b - 0.005 for a, b in both)
    means = {"mean_onnxcomp": round(float(np.mean([a for a, _ in both])), 4)}
    means["mean_onnxsim"] = round(float(np.mean([b for _, b in both])), 4)
    return means | {"better": better, "equal": len(both) - better - worse, "worse": worse}


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: pruning_peers.py SCRATCH [ZOO]")
    folder, scratch, start = assets(), Path(sys.argv[1]).absolute(), time.monotonic()
    pythons = {peer: environment(scratch / peer, PACKAGES[peer]) for peer in PACKAGES}
    versions = {peer: version(python, peer) for peer, python in pythons.items()}
    versions["torch"] = version(pythons["torch-pruning"], "torch")
    files = scratch / "files"
    files.mkdir(exist_ok=True)
    shares = coverage(pythons["onnxsim"], files, generated(files))
    real = coverage(pythons["onnxsim"], files, trained(Path(sys.argv[2]))) if len(sys.argv) > 2 else {}
    for name, row in (shares | real).items():
        print(f"{name:44} {row['removed']:6.1%}  {row['by']:28} {'; '.join(row['broken'])}", flush=True)
    mean, comparison = float(np.mean([row["removed"] for row in shares.values()])), beside(shares)
    print(
        f"{len(shares)} topologies: {mean:.1%} of the parameters removed on average by onnxsim; onnxcomp: {comparison}"
    )
    rows = resnet(pythons, files, folder)
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    result = {
        "topologies": shares,
        "mean": round(mean, 4),
        "beside_onnxcomp": comparison,
        "models": real,
        "resnet": rows,
    }
    seconds = {"seconds": round(time.monotonic() - start)}
    write("pruning_peers", result | seconds | {"peers": versions, "calibration_images": IMAGES})


if __name__ == "__main__":
    main()
