"""The judge against figures computed by hand from ONNX Runtime's outputs; its cache must not change them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import feeds, graph, reader, run

from onnxcomp.calibration.readers import DataKind, Reader
from onnxcomp.errors import DataError
from onnxcomp.evaluate import judge as judge_module
from onnxcomp.evaluate.gates import Gates
from onnxcomp.evaluate.judge import Judge
from onnxcomp.evaluate.metrics import METRICS
from onnxcomp.runtime.session import SessionConfig

TEXT = "g (float[N,8] x, float[8,5] w) => (float[N,5] y, float[N,8] z) { y = MatMul(x, w) z = Tanh(x) }"
REFERENCE = graph(TEXT, seed=0)
NOISE = np.random.default_rng(9).standard_normal((8, 5)).astype(np.float32) * 0.1
CANDIDATE = graph(TEXT, w=REFERENCE.graph.initializers["w"].const_value.numpy() + NOISE)
ITEMS = feeds(REFERENCE, 12)
ONE_THREAD = SessionConfig(threads=1)


def judge(items=ITEMS, labels=None, **options):
    source = replace(reader(items), labels=labels)
    return Judge(REFERENCE, source, ONE_THREAD, options.pop("gates", Gates()), **options)


def test_the_figures_are_those_of_the_outputs_of_both_models():
    found = judge().judge(CANDIDATE).fidelity
    assert [f.output for f in found] == ["y", "z"]
    y, z = (np.concatenate([run(m, f)[0] for f in ITEMS]).astype(float) for m in (REFERENCE, CANDIDATE))
    by_hand = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(y, z, strict=True)]
    assert found[0].cosine == pytest.approx(np.mean(by_hand))
    assert found[0].top1_agreement == pytest.approx((y.argmax(1) == z.argmax(1)).mean())
    assert (found[1].cosine, found[1].top1_agreement) == (1.0, None)


def test_the_error_is_that_of_the_worst_output():
    found = judge().judge(CANDIDATE)
    assert found.error == 1 - found.fidelity[0].cosine > 0


@pytest.mark.parametrize("limit", [0, 10**9])
def test_the_cache_changes_no_figure(monkeypatch, limit):
    monkeypatch.setattr(judge_module, "CACHE_BYTES", limit)
    judged = judge()
    first, second = judged.judge(CANDIDATE), judged.judge(CANDIDATE)
    assert first == second == judge().judge(CANDIDATE)
    assert judged.judge(REFERENCE).error == 0.0


def test_the_original_is_run_once_while_its_answers_fit_into_the_cache(monkeypatch):
    opened = []
    real = judge_module.open_session
    monkeypatch.setattr(judge_module, "open_session", lambda model, config: opened.append(model) or real(model, config))
    judged = judge(ITEMS[:3])
    for _ in range(3):
        judged.judge(CANDIDATE)
        judged.quick_error(CANDIDATE)
    assert sum(model is REFERENCE for model in opened) == 1


def test_a_candidate_that_fails_half_way_leaves_no_half_cache():
    class Broken(Exception):
        pass

    def progress(done, total):
        if done == 3 and not calls:
            calls.append(done)
            raise Broken

    calls: list[int] = []
    judged = judge(progress=progress)
    with pytest.raises(Broken):
        judged.judge(CANDIDATE)
    assert judged.judge(CANDIDATE) == judge().judge(CANDIDATE)


def test_the_quick_error_is_that_of_the_first_feeds():
    expected = judge(ITEMS[:4]).judge(CANDIDATE).error
    judged = judge()
    assert judged.quick_error(CANDIDATE, feeds=4) == pytest.approx(expected)
    judged.judge(CANDIDATE)
    assert judged.quick_error(CANDIDATE, feeds=4) == pytest.approx(expected)
    assert judged.quick_error(CANDIDATE, feeds=100) == pytest.approx(judged.judge(CANDIDATE).error)


def test_a_metric_is_the_same_over_single_rows_and_over_batches():
    labels = np.array([int(run(REFERENCE, f)[0].argmax()) for f in ITEMS])
    labels[:3] = (labels[:3] + 1) % 5
    batches = [{"x": np.concatenate([f["x"] for f in ITEMS[i : i + 4]])} for i in (0, 4, 8)]
    single = judge(labels=labels, metric=METRICS["top1"]).judge(CANDIDATE).metric
    batched = judge(batches, labels.reshape(3, 4), metric=METRICS["top1"]).judge(CANDIDATE).metric
    hits = np.mean([int(run(CANDIDATE, f)[0].argmax()) == label for f, label in zip(ITEMS, labels, strict=True)])
    assert single == batched
    assert (single.before, single.after, single.samples) == (0.75, pytest.approx(hits), 12)


def test_gates_decide_whether_a_candidate_passes():
    assert judge(gates=Gates(min_cosine=0.5)).judge(CANDIDATE).passed
    assert not judge(gates=Gates(min_cosine=0.99999)).judge(CANDIDATE).passed


def test_a_metric_without_labels_and_an_empty_set_are_data_errors():
    with pytest.raises(DataError, match="needs labels"):
        judge(metric=METRICS["top1"])
    with pytest.raises(DataError, match="empty"):
        judge([]).judge(CANDIDATE)


def test_feeds_whose_number_nobody_knows_are_judged_too():
    source = Reader(lambda: iter(ITEMS), DataKind.REAL, "stream", None)
    assert Judge(REFERENCE, source, ONE_THREAD, Gates()).judge(CANDIDATE) == judge().judge(CANDIDATE)
