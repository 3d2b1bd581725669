"""The models that `quantization.py` compares quantisers on, each with its data and its score.

A task is a folder: `model.onnx`, `calibration/NNNN.npz` (one whole feed in each file, which every tool reads), and what
its score needs. Scores are taken from samples, so that two files are compared on the same ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zoo_data
from common import assets, spearman, sts_pairs
from PIL import Image

from onnxcomp.runtime.session import SessionConfig, open_session

Feed = dict[str, np.ndarray]
CALIBRATION = 256
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
SESSION = SessionConfig(threads=2)


@dataclass(frozen=True)
class Sources:
    """Where things are: `models`: of models_fetch.py; `zoo`: of zoo_fetch.py."""

    models: Path
    zoo: Path


@dataclass(frozen=True)
class Task:
    """One model.

    Args:
        name: Of its row.
        metric: What the score is, in words.
        model: Path of the float model.
        feeds: Calibration feeds, then the ones to score on with what is right (None: what the float model says).
        samples: Answers of a model to one feed and what is right → what the score needs of them; NaN if nothing.
        total: That of all samples → the score. `together`: samples in a row that belong to each other.
        typical: Which feed latencies are taken on.
        against_float: What is right is what the float model says.
    """

    name: str
    metric: str
    model: Callable[[Sources], Path]
    feeds: Callable[[Sources], tuple[list[Feed], list[tuple[Feed, object]]]]
    samples: Callable[[list[np.ndarray], object], float | np.ndarray]
    total: Callable[[np.ndarray], float] = lambda samples: 100 * float(np.nanmean(samples))
    together: int = 1
    typical: Callable[[list[Feed]], Feed] = lambda feeds: feeds[0]
    against_float: bool = False


def answers(model: Path, feeds: Iterable[Feed]) -> Iterator[list[np.ndarray]]:
    with open_session(model, SESSION) as session:
        for feed in feeds:
            yield session.run(feed)


def scores(task: Task, model: Path, scored: list[tuple[Feed, object]], float_model: Path) -> np.ndarray:
    """[samples, …]: what the score needs of each."""
    right: Iterable[object] = (known for _, known in scored)
    if task.against_float:
        right = answers(float_model, (feed for feed, _ in scored))
    given = answers(model, (feed for feed, _ in scored))
    return np.array([task.samples(a, known) for a, known in zip(given, right, strict=True)])


def write_feeds(folder: Path, feeds: Iterable[Feed]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for index, feed in enumerate(feeds):
        np.savez(folder / f"{index:04d}.npz", **feed)  # type: ignore[arg-type]  # numpy's own keyword is not a key


# ------------------------------------------------------------------------------------------------ classification


def _hit(given: list[np.ndarray], label: object) -> float:
    return float(given[0].argmax() == label)


def _cifar(sources: Sources) -> tuple[list[Feed], list[tuple[Feed, object]]]:
    def images(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        with np.load(assets() / "cifar10" / name) as data:
            x = (data["x"][:count].astype(np.float32) / 255 - MEAN) / STD
            return x.transpose(0, 3, 1, 2).copy(), data["y"][:count]

    learn, _ = images("train_10k.npz", CALIBRATION)
    x, y = images("test.npz", 5000)
    return [{"input": a[None]} for a in learn], [({"input": a[None]}, int(b)) for a, b in zip(x, y, strict=True)]


def photos(size: int | None = None) -> list[tuple[np.ndarray, int]]:
    """All ImageNet pictures [h, w, 3] uint8 and their classes, in a fixed shuffled order."""
    files = sorted((assets() / "imagenet224").glob("*.jpg"))
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    opened = ((Image.open(f).convert("RGB"), int(f.name[:4])) for f in files)
    return [(np.asarray(i if size is None else i.resize((size, size))), label) for i, label in opened]


def _imagenet(sources: Sources) -> tuple[list[Feed], list[tuple[Feed, object]]]:
    pairs = [
        ({"input": ((p.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None].copy()}, label)
        for p, label in photos()
    ]
    # The last 372 as in mobilenet_int8.py; the pictures are few, so calibration has 128.
    return [feed for feed, _ in pairs[:128]], [(feed, label) for feed, label in pairs[128:]]


# ------------------------------------------------------------------------------------------------ sentences


def _sentences(sources: Sources) -> tuple[list[Feed], list[tuple[Feed, object]]]:
    """Calibration: sentences of the first 400 pairs; scored: the pairs from the 501st on, sentence after sentence."""
    pairs = sts_pairs()
    learn = [feed for p in pairs[:400] for feed in p[:2]]
    chosen = np.random.default_rng(0).permutation(len(learn))[:CALIBRATION]
    return [learn[i] for i in chosen], [(feed, p[2]) for p in pairs[500:] for feed in p[:2]]


def tokens(feeds: list[Feed]) -> Feed:
    """64 tokens: those of several sentences in a row."""
    joined = {k: np.concatenate([f[k] for f in feeds], axis=1)[:, :64] for k in feeds[0]}
    return {k: np.ascontiguousarray(v) for k, v in joined.items()}


def _vector(given: list[np.ndarray], similarity: object) -> np.ndarray:
    """The sentence's vector, and what people said of its pair."""
    return np.append(given[0][0], float(similarity))  # type: ignore[arg-type]


def _similarity(samples: np.ndarray) -> float:
    """Rank correlation of the cosine of neighbouring vectors with what people said, in percent."""
    a, b, wanted = samples[0::2, :-1], samples[1::2, :-1], samples[0::2, -1]
    return 100 * spearman((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1), wanted)


# ------------------------------------------------------------------------------------------------ OCR


def _ocr(name: str) -> Callable[[Sources], Path]:
    return lambda sources: next(sources.zoo.glob(f"rapidocr-onnxruntime/{name}"))


def _pages(sources: Sources) -> tuple[list[Feed], list[tuple[Feed, object]]]:
    rng = np.random.default_rng(0)
    made = [{"x": zoo_data.to_bgr(zoo_data.page(*zoo_data.PAGE_SIZES[i % 3], rng))[None]} for i in range(96)]
    return made[:48], [(feed, None) for feed in made[48:]]


def _text_overlap(given: list[np.ndarray], right: object) -> float:
    """F-score of the pixels that are text (probability above 0.3) against the float model's."""
    a, b = given[0] > 0.3, right[0] > 0.3  # type: ignore[index]
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def _lines(sources: Sources) -> tuple[list[Feed], list[tuple[Feed, object]]]:
    rng = np.random.default_rng(1)
    made = [zoo_data.text_line(rng) for _ in range(CALIBRATION + 400)]
    feeds = [{"x": zoo_data.padded(image, 160, 480)[None]} for image, _ in made]
    model = _ocr("ch_PP-OCRv4_rec_infer.onnx")(sources)
    letters = _letters(model)
    truth = [(feed, (text, letters)) for feed, (_, text) in zip(feeds, made, strict=True)]
    return feeds[:CALIBRATION], truth[CALIBRATION:]


def _letters(model: Path) -> list[str]:
    """The recogniser's alphabet, from its metadata; class 0 is the blank, the last one the space."""
    import onnx

    meta = {p.key: p.value for p in onnx.load(str(model), load_external_data=False).metadata_props}
    return ["", *meta["character"].splitlines(), " "]


def _characters(given: list[np.ndarray], right: object) -> float:
    """1 − edit distance / length of the text that CTC reads, at least 0; spaces don't count."""
    text, letters = right  # type: ignore[misc]
    best = given[0][0].argmax(axis=1)
    read = "".join(letters[c] for i, c in enumerate(best) if c and (i == 0 or c != best[i - 1]))
    wanted, read = text.replace(" ", ""), read.replace(" ", "")
    return max(0.0, 1 - _distance(wanted, read) / max(1, len(wanted)))


def _distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def _directions(sources: Sources) -> tuple[list[Feed], list[tuple[Feed, object]]]:
    rng = np.random.default_rng(2)
    made = []
    for i in range(CALIBRATION + 500):
        image = zoo_data.text_line(rng)[0].rotate(180 * (i % 2), expand=True)
        made.append(({"x": zoo_data.padded(image, 192, 192)[None]}, i % 2))
    return [feed for feed, _ in made[:CALIBRATION]], [(f, label) for f, label in made[CALIBRATION:]]


# ------------------------------------------------------------------------------------------------ detection


def _scenes(sources: Sources) -> tuple[list[Feed], list[tuple[Feed, object]]]:
    feeds = [{"images": (p.astype(np.float32) / 255).transpose(2, 0, 1)[None].copy()} for p, _ in photos(320)]
    return feeds[:128], [(feed, None) for feed in feeds[128:]]


def _boxes(answer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [n, 4] as corners and classes [n] of YOLOv8's [1, 4 + classes, anchors], after non-maximum suppression."""
    rows = answer[0].T
    score, kind = rows[:, 4:].max(axis=1), rows[:, 4:].argmax(axis=1)
    order = np.argsort(-score, kind="stable")
    order = order[score[order] > 0.2][:300]
    centre, size, kind = rows[order, :2], rows[order, 2:4], kind[order]
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    kept: list[int] = []
    for i in range(len(boxes)):
        if not kept or (_overlap(boxes[i], boxes[kept]) < 0.45).all():
            kept.append(i)
    return boxes[kept], kind[kept]


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union."""
    inside = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = inside.clip(0).prod(axis=1)
    return np.asarray(common / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - common))


def _found_again(given: list[np.ndarray], right: object) -> float:
    """F-score of the boxes against the float model's: same class, overlap above one half; NaN where there are none."""
    (a, ka), (b, kb) = _boxes(given[0]), _boxes(right[0])  # type: ignore[index]
    if not len(a) + len(b):
        return float("nan")
    free, hits = set(range(len(b))), 0
    for box, kind in zip(a, ka, strict=True):
        overlap = _overlap(box, b) if len(b) else np.zeros(0)
        match = next((i for i in np.argsort(-overlap) if i in free and kb[i] == kind and overlap[i] > 0.5), None)
        if match is not None:
            free.discard(match)
            hits += 1
    return 2 * hits / (len(a) + len(b))


# ------------------------------------------------------------------------------------------------ speech


def _speech(sources: Sources) -> tuple[list[Feed], list[tuple[Feed, object]]]:
    """Chunks of one run that carries its state."""
    rng = np.random.default_rng(4)
    sound = np.concatenate([np.zeros(zoo_data.CONTEXT, np.float32), zoo_data.conversation(rng)])
    state, feeds = np.zeros((2, 1, 128), np.float32), []
    with open_session(_vad(sources), SESSION) as session:
        for start in range(0, len(sound) - zoo_data.CONTEXT - zoo_data.CHUNK, zoo_data.CHUNK):
            chunk = sound[None, start : start + zoo_data.CONTEXT + zoo_data.CHUNK]
            feed = {"input": chunk, "state": state, "sr": np.array(zoo_data.RATE)}
            feeds.append(feed)
            state = session.run(feed)[1]
    feeds = [feeds[i] for i in rng.permutation(len(feeds))]
    return feeds[:CALIBRATION], [(feed, None) for feed in feeds[CALIBRATION : CALIBRATION + 600]]


def _vad(sources: Sources) -> Path:
    return sources.zoo / "silero-vad" / "silero_vad_16k_op15.onnx"


def _same_probability(given: list[np.ndarray], right: object) -> float:
    """1 − |difference| of the probability of speech."""
    return 1 - float(np.abs(given[0] - right[0]).mean())  # type: ignore[index]


def _asset(name: str) -> Callable[[Sources], Path]:
    return lambda sources: assets() / "models" / name


TASKS = {
    task.name: task
    for task in (
        Task("resnet56", "top-1 %, CIFAR-10, n = 5,000", _asset("resnet56_cifar10.onnx"), _cifar, _hit),
        Task("mobilenet_v2", "top-1 %, ImageNet, n = 372", _asset("mobilenet_v2.onnx"), _imagenet, _hit),
        Task(
            "minilm",
            "Spearman × 100, STS-B dev, 1,000 pairs",
            lambda s: s.models / "minilm.onnx",
            _sentences,
            _vector,
            total=_similarity,
            together=2,
            typical=tokens,
        ),
        Task(
            "ppocr_det",
            "F-score of text pixels against float, 48 pages",
            _ocr("ch_PP-OCRv4_det_infer.onnx"),
            _pages,
            _text_overlap,
            against_float=True,
        ),
        Task("ppocr_rec", "characters read, 400 lines", _ocr("ch_PP-OCRv4_rec_infer.onnx"), _lines, _characters),
        Task("ppocr_cls", "direction %, 500 lines", _ocr("ch_ppocr_mobile_v2.0_cls_infer.onnx"), _directions, _hit),
        Task(
            "nudenet",
            "F-score of boxes against float, 372 photos",
            lambda s: s.zoo / "nudenet" / "320n.onnx",
            _scenes,
            _found_again,
            against_float=True,
        ),
        Task(
            "silero_vad",
            "speech probability, 1 − mean difference to float, 600 chunks",
            _vad,
            _speech,
            _same_probability,
            against_float=True,
        ),
    )
}
