"""Low-rank factorisation without training: error and accuracy against rank, three ways to choose what is kept.

    ONNXCOMP_ASSETS=... python benchmarks/factorization.py DIR [layers|mlp|vgg|minilm|latency|int8 ...]

DIR: of models_fetch.py (VGG-16 CIFAR-10, MiniLM) and fashion_mlp.py. Needs `tokenizers` for MiniLM. Each part writes
`results/factorization_<part>.json`; without names all parts run.

* layers: error of every layer's output on held-back feeds at a quarter and half of its break-even rank.
* mlp: fully connected layers 5 and 10 times smaller. vgg: budgets of MACs. Plain SVD, activation-scaled SVD,
  covariance, and covariance with the refit (the default).
* minilm: 30 % fewer parameters in the MatMuls; Spearman on STS-B pairs that were not calibrated on.
* latency: original and result in turns, one thread; models for which it does not pay included.
* memory: one layer of 25,088 × 4,096.
* int8: quantised afterwards, with and without the rotation of the channels between the factors.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from common import assets, spearman, sts_pairs, write

import onnxcomp
from onnxcomp.calibration.readers import Feed, as_reader
from onnxcomp.calibration.second_moments import Wanted, gather
from onnxcomp.driver.jobs import bench
from onnxcomp.model.load import load
from onnxcomp.model.normalize import normalize
from onnxcomp.model.signature import signature
from onnxcomp.passes.factorize import spectrum as spectra
from onnxcomp.passes.factorize.ranks import break_even
from onnxcomp.passes.factorize.sites import Site, find_sites
from onnxcomp.runtime.session import SessionConfig, open_session

SESSION = SessionConfig(threads=2)
METHODS = (("svd", "none"), ("asvd", "none"), ("covariance", "none"), ("covariance", "least-squares"))
SECONDS = 6.0
FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "models")


class Feeds:
    """Re-iterable rows of one array, one a call."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = np.ascontiguousarray(x)

    def __iter__(self) -> Iterator[Feed]:
        return ({"input": self.x[i : i + 1]} for i in range(len(self.x)))

    def __len__(self) -> int:
        return len(self.x)


def cifar(name: str, part: slice) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 3, 32, 32], 0 to 1, and labels."""
    with np.load(assets() / "cifar10" / name) as data:
        return (data["x"][part].astype(np.float32) / 255).transpose(0, 3, 1, 2), data["y"][part]


def accuracy(model: ir.Model | Path, x: np.ndarray, y: np.ndarray) -> float:
    """Percent."""
    with open_session(model, SESSION) as session:
        logits = [session.run({"input": np.ascontiguousarray(x[i : i + 250])})[0] for i in range(0, len(x), 250)]
    return round(float(100 * (np.concatenate(logits).argmax(1) == y).mean()), 2)


def rows(
    path: Path, feeds: Sequence[Feed] | Feeds, budgets: Sequence[dict[str, float]], score: Callable[[ir.Model], float]
) -> list[dict[str, object]]:
    """One row for each budget and method."""
    found: list[dict[str, object]] = []
    for budget in budgets:
        for method, refit in METHODS:
            begin = time.monotonic()
            result = onnxcomp.factorize(path, feeds, method=method, refit=refit, allow_slower=True, **budget)
            before, after = result.report.source, result.report.result
            row = budget | {
                "method": method,
                "refit": refit,
                "seconds": round(time.monotonic() - begin, 1),
                "score": score(result.model),
                "cosine": round(min((f.cosine for f in result.report.fidelity), default=1.0), 4),
                "parameters": round(after.parameters / before.parameters, 4),
                "macs": None if not before.macs or after.macs is None else round(after.macs / before.macs, 4),
                "budget": result.plan.aim() if result.plan is not None else "",
            }
            print(row, flush=True)
            found.append(row)
    return found


def layers() -> None:
    """Σ‖y − ŷ‖² / Σ‖y − mean‖² of each layer on feeds that nothing was learned from."""
    found, better, count = [], 0, 0
    for name, model, feeds in layer_models():
        reader = as_reader(feeds, signature(model))
        learned, held = reader.part(0, len(feeds) * 3 // 4), reader.part(len(feeds) * 3 // 4, len(feeds))
        sites = find_sites(model, (), ())[0]
        outputs = {s.name: Wanted(s.views, "outputs", rows=10_000) for s in sites}
        judged = gather(model, outputs, held, SESSION)
        for site in sites:
            _, out, columns = site.shape
            row: dict[str, object] = {"model": name, "layer": site.name, "size": f"{out} × {columns}"}
            for share in (0.25, 0.5):
                rank = max(1, int(share * break_even(out, columns)))
                errors = {m: held_error(site, m, rank, model, learned, judged[site.name]) for m in ("svd", "asvd")}
                errors["covariance"] = held_error(site, "covariance", rank, model, learned, judged[site.name])
                row[f"rank {rank}"] = {m: float(f"{e:.4g}") for m, e in errors.items()}
                better += errors["covariance"] < errors["svd"]
                count += 1
            found.append(row)
    print(f"covariance is better than the plain SVD in {better} of {count}")
    write("factorization_layers", {"rows": found, "better": better, "of": count})


def layer_models() -> Iterator[tuple[str, ir.Model, Sequence[Feed]]]:
    """Models in the form that the pass starts from, with feeds."""
    step = onnxcomp.simplify
    images, _ = cifar("train_10k.npz", slice(0, 512))
    with np.load(FOLDER / "fashion_mlp.npz") as data:
        digits = data["train_x"][:2048]
    models = [
        ("vgg16_cifar10", list(Feeds(images))),
        ("fashion_mlp", list(Feeds(digits))),
        ("minilm", sentences()[0][:512]),
    ]
    for name, feeds in models:
        simple = step(FOLDER / f"{name}.onnx", None, feeds[:2]).model
        yield name, normalize(load(simple).model).model, feeds


def held_error(site: Site, method: str, rank: int, model: ir.Model, learned: object, judged: object) -> float:
    """From the second moments of the outputs alone: what is lost is (1 − V·Vᵀ)·(y − b) less the shift of the bias."""
    want = spectra.wanted(site, method)  # type: ignore[arg-type]
    gram = gather(model, {site.name: want}, learned, SESSION)[site.name] if want is not None else None  # type: ignore[arg-type]
    found = spectra.spectrum(site, method, gram, 0.1)  # type: ignore[arg-type]
    moments = judged.moments(centred=True)  # type: ignore[attr-defined]
    offset = site.views[0].offset()
    lost = total = 0.0
    for group in range(site.shape[0]):
        kept = found.basis[group, :, :rank]
        rest = np.eye(len(kept)) - kept @ kept.T
        bias = 0.0 if offset is None else offset.reshape(site.shape[:2])[group]
        mean = rest @ (moments.mean_x[group] - bias) - rest @ found.mean[group]
        lost += float(np.trace(rest @ moments.xx[group] @ rest) + mean @ mean)
        total += float(np.trace(moments.xx[group]))
    return lost / total


def mlp() -> None:
    path = FOLDER / "fashion_mlp.onnx"
    with np.load(FOLDER / "fashion_mlp.npz") as data:
        train, x, y = data["train_x"], data["test_x"], data["test_y"]
    found = rows(path, Feeds(train), [{"params": k} for k in (0.5, 0.2, 0.1)], lambda model: accuracy(model, x, y))
    write("factorization_mlp", {"float": accuracy(path, x, y), "images": len(train), "rows": found})


def vgg() -> None:
    path, images = FOLDER / "vgg16_cifar10.onnx", 1280
    train, _ = cifar("train_10k.npz", slice(0, images))
    x, y = cifar("test.npz", slice(None))
    found = rows(path, Feeds(train), [{"macs": k} for k in (0.7, 0.5, 0.35)], lambda model: accuracy(model, x, y))
    write("factorization_vgg", {"float": accuracy(path, x, y), "images": images, "rows": found})


def sentences() -> tuple[list[Feed], list[tuple[Feed, Feed]], np.ndarray]:
    """Feeds to calibrate on (the first 400 pairs), pairs to score on (from the 501st on), and their similarity."""
    pairs = sts_pairs()
    scored = pairs[500:]
    return [f for p in pairs[:400] for f in p[:2]], [p[:2] for p in scored], np.array([p[2] for p in scored])


def similarity(model: ir.Model | Path, pairs: list[tuple[Feed, Feed]], wanted: np.ndarray) -> float:
    """Spearman of the cosine of both sentences' vectors."""
    with open_session(model, SESSION) as session:
        vectors = [[session.run(feed)[0][0] for feed in pair] for pair in pairs]
    given = np.array([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in vectors])
    return round(spearman(given, wanted), 4)


def minilm() -> None:
    path = FOLDER / "minilm.onnx"
    feeds, pairs, wanted = sentences()
    model = load(path).model
    matrices = sum(
        int(np.prod(v.shape.numpy()))
        for n in model.graph
        if n.op_type == "MatMul"
        for v in n.inputs
        if v and v.const_value
    )
    total = sum(
        int(np.prod(v.shape.numpy())) for v in model.graph.initializers.values() if v.dtype == ir.DataType.FLOAT
    )
    budget = {"params": round(1 - 0.3 * matrices / total, 4)}
    found = rows(path, feeds, [budget], lambda m: similarity(m, pairs, wanted))
    facts = {"parameters of MatMuls": matrices, "parameters": total, "pairs": len(pairs)}
    write("factorization_minilm", facts | {"float": similarity(path, pairs, wanted), "rows": found})


def latency() -> None:
    """What the cuts are worth in milliseconds, and where they are worth nothing."""
    images, _ = cifar("train_10k.npz", slice(0, 1280))
    normalised = (images - np.float32(0.45)) / np.float32(0.25)
    with np.load(FOLDER / "fashion_mlp.npz") as data:
        digits = data["train_x"]
    models = assets() / "models"
    cases: list[tuple[Path, object, dict[str, object]]] = [
        (FOLDER / "vgg16_cifar10.onnx", Feeds(images), {"macs": 0.5}),
        (FOLDER / "vgg16_cifar10.onnx", Feeds(images), {"latency": 0.5}),
        (FOLDER / "vgg16_cifar10.onnx", None, {"macs": 0.5}),
        (FOLDER / "fashion_mlp.onnx", Feeds(digits), {"params": 0.2}),
        (FOLDER / "minilm.onnx", sentences()[0], {"macs": 0.7}),
        (models / "resnet56_cifar10.onnx", Feeds(normalised[:512]), {"macs": 0.7}),
        (models / "resnet56_cifar10.onnx", Feeds(normalised[:512]), {"macs": 0.7, "allow_slower": True}),
        (models / "mobilenet_v2.onnx", None, {"macs": 0.8}),
        (models / "mobilenet_v2.onnx", None, {"macs": 0.8, "allow_slower": True}),
    ]
    found = []
    for path, feeds, budget in cases:
        result = onnxcomp.factorize(path, feeds, threads=1, **budget)
        row: dict[str, object] = {"model": path.stem, "data": feeds is not None} | budget
        layers_of = [layer for step in result.report.steps for layer in step.layers]
        row["factorised"] = f"{sum(layer.rank is not None for layer in layers_of)} of {len(layers_of)}"
        row["budget"] = result.report.steps[0].why if result.plan is None else result.plan.aim()
        if result.report.result.macs and result.report.source.macs:
            row["macs"] = round(result.report.result.macs / result.report.source.macs, 3)
        if any(layer.rank is not None for layer in layers_of):
            one = next(iter(feeds)) if feeds is not None else None  # type: ignore[call-overload]
            times = bench([path, result.model], None if one is None else [one], threads=1, min_seconds=SECONDS)
            name = next(iter(times.speedup))
            row |= {"speed-up": round(times.speedup[name], 2), "verdict": times.verdict}
            row["interval"] = [round(v, 2) for v in times.interval[name]]
            row["cosine"] = round(min((f.cosine for f in result.report.fidelity), default=1.0), 4)
        print(row, flush=True)
        found.append(row)
    write("factorization_latency", {"rows": found})


def int8() -> None:
    """VGG-16 at half of its MACs, then static INT8."""
    path = FOLDER / "vgg16_cifar10.onnx"
    train, _ = cifar("train_10k.npz", slice(0, 1280))
    x, y = cifar("test.npz", slice(None))
    feeds, judges = Feeds(train[:1024]), Feeds(train[1024:])
    found, mixing = [], spectra._mixing
    dense = onnxcomp.quantize(path, Feeds(train[:256]), judges, threads=1)
    results = {"int8, whole layers": dense}
    for rotated in (True, False):
        spectra._mixing = mixing if rotated else np.eye
        low = onnxcomp.factorize(path, feeds, judges, macs=0.5, threads=1)
        word = "rotated" if rotated else "not rotated"
        results[f"low rank, {word}"] = low
        results[f"low rank and int8, {word}"] = onnxcomp.quantize(low.model, Feeds(train[:256]), judges, threads=1)
    spectra._mixing = mixing
    names = {name: result.model for name, result in results.items()}
    times = bench([path, *names.values()], [next(iter(judges))], threads=1, min_seconds=SECONDS)
    for (name, result), speed in zip(results.items(), times.speedup.values(), strict=True):
        audit = next((s.audit for s in result.report.steps if s.audit is not None), None)
        row = {
            "model": name,
            "top-1": accuracy(result.model, x, y),
            "MB": round(result.report.result.bytes / 1e6, 2),
            "speed-up": round(speed, 2),
            "SQNR to its input, dB": round(min(f.sqnr_db for f in result.report.fidelity), 1),
            "integer kernels": None if audit is None else audit.integer_kernels,
            "float heavy": None if audit is None else audit.float_heavy,
        }
        print(row, flush=True)
        found.append(row)
    write("factorization_int8", {"float": accuracy(path, x, y), "verdict": times.verdict, "rows": found})


def memory() -> None:
    """Peak memory and time for one layer of 25,088 × 4,096 (VGG-16's first fully connected one), 411 MB of weights."""
    import resource
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        path, data = Path(name) / "fc6.onnx", Path(name) / "data.npz"
        rng = np.random.default_rng(0)
        low = rng.standard_normal((25_088, 128), dtype=np.float32) @ rng.standard_normal((128, 4096), dtype=np.float32)
        weight = low / 128 + 0.1 * rng.standard_normal(low.shape, dtype=np.float32)
        weight /= np.float32(160)
        values = [
            ir.val("x", ir.DataType.FLOAT, ["batch", 25_088]),
            ir.val("w", const_value=ir.tensor(weight, name="w")),
        ]
        node = ir.node("Gemm", values, name="fc6")
        node.outputs[0].name, node.outputs[0].dtype = "y", ir.DataType.FLOAT
        node.outputs[0].shape = ir.Shape(["batch", 4096])
        graph = ir.Graph(
            values[:1], node.outputs, nodes=[node], initializers=values[1:], opset_imports={"": 17}, name="g"
        )
        ir.save(ir.Model(graph, ir_version=8), path, external_data="fc6.data")
        np.savez(data, x=rng.standard_normal((640, 25_088), dtype=np.float32))
        del low, weight
        command = [sys.executable, "-m", "onnxcomp.cli.main", "factorize", str(path), "--params", "0.1"]
        begin = time.monotonic()
        subprocess.run([*command, "--calibration", str(data)], check=True)
        seconds = round(time.monotonic() - begin, 1)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    write("factorization_memory", {"layer": "25,088 × 4,096", "peak MB": round(peak / 1024), "seconds": seconds})


PARTS = {part.__name__: part for part in (layers, mlp, vgg, minilm, latency, int8, memory)}


def main() -> None:
    for name in sys.argv[2:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
