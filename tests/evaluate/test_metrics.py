"""Metrics against naive implementations."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcomp.errors import DataError, UsageError
from onnxcomp.evaluate.metrics import METRICS, find_metric

RNG = np.random.default_rng(0)


def one_row_feeds(array):
    return [[row[None]] for row in array]


def naive_top_k(scores, labels, k):
    hits = 0
    for row, label in zip(scores, labels, strict=True):
        order = sorted(range(len(row)), key=lambda j: (-row[j], j))
        hits += label in order[:k]
    return hits / len(labels)


@pytest.mark.parametrize(("name", "k"), [("top1", 1), ("top5", 5)])
@pytest.mark.parametrize("levels", [1000, 4], ids=["distinct", "many ties"])
@pytest.mark.parametrize("classes", [3, 12])
def test_top_k_equals_a_sort_with_ties_in_the_order_of_arg_max(name, k, levels, classes):
    scores = RNG.integers(0, levels, (200, classes)).astype(np.float32)
    labels = RNG.integers(0, classes, 200)
    expected = naive_top_k(scores, labels, k)
    assert METRICS[name].score(one_row_feeds(scores), list(labels)) == pytest.approx(expected)
    batches = [[scores[:150]], [scores[150:]]]
    assert METRICS[name].score(batches, [labels[:150], labels[150:]]) == pytest.approx(expected)


def test_a_row_with_nan_is_a_miss():
    scores = np.array([[np.nan, np.nan], [np.nan, 1.0], [0.0, 1.0]])
    assert METRICS["top1"].score([[scores]], [np.array([0, 1, 1])]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("labels", [[0, 1, 5], [0, -1, 1], [0.0, 0.5, 1.0], [0, 1]])
def test_labels_that_are_no_classes_of_the_output_are_a_data_error(labels):
    with pytest.raises(DataError, match="label"):
        METRICS["top1"].score([[np.zeros((3, 3))]], [np.array(labels)])


def ranks_by_counting(values):
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def pearson(a, b):
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


@pytest.mark.parametrize("levels", [1000, 5], ids=["distinct", "many ties"])
def test_spearman_equals_pearson_of_counted_ranks(levels):
    y, t = RNG.integers(0, levels, (2, 60)).astype(float)
    expected = pearson(ranks_by_counting(y), ranks_by_counting(t))
    assert METRICS["spearman"].score(one_row_feeds(y[:, None]), list(t)) == pytest.approx(expected)


def test_spearman_of_a_monotonic_relation_is_one_and_of_its_reverse_minus_one():
    t = RNG.standard_normal(20)
    assert METRICS["spearman"].score(one_row_feeds(np.exp(t)[:, None]), list(t)) == pytest.approx(1.0)
    assert METRICS["spearman"].score(one_row_feeds(-(t**3)[:, None]), list(t)) == pytest.approx(-1.0)


def test_spearman_of_a_constant_output_is_not_a_number_and_passes_no_gate():
    metric = METRICS["spearman"]
    score = metric.score(one_row_feeds(np.ones((4, 1))), [1.0, 2.0, 3.0, 4.0])
    assert np.isnan(score)
    assert not metric.drop(0.8, score) <= 0.01


def test_mse_and_psnr_follow_their_formulas():
    t = RNG.uniform(0, 255, (3, 4, 4))
    y = t + 2.0
    outputs, labels = [[row[None]] for row in y], list(t)
    assert METRICS["mse"].score(outputs, labels) == pytest.approx(4.0)
    assert METRICS["psnr"].score(outputs, labels) == pytest.approx(10 * np.log10(np.ptp(t) ** 2 / 4.0))
    assert METRICS["psnr"].score([[row[None]] for row in t], labels) == np.inf


def test_a_drop_is_positive_when_worse_whichever_way_is_better():
    assert METRICS["top1"].drop(0.9, 0.8) == pytest.approx(0.1)
    assert METRICS["mse"].drop(0.1, 0.3) == pytest.approx(0.2)
    assert METRICS["psnr"].drop(np.inf, np.inf) == 0.0


@pytest.mark.parametrize("name", ["mse", "psnr", "spearman"])
def test_values_that_do_not_pair_up_with_labels_are_a_data_error(name):
    with pytest.raises(DataError, match="values"):
        METRICS[name].score([[np.zeros((2, 3))]], [np.zeros(2)])


def test_a_metric_from_a_file_gets_all_outputs_and_says_which_way_is_better(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def error(outputs, labels):\n"
        "    return sum(abs(o[1] - l).sum() for o, l in zip(outputs, labels))\n"
        "error.higher_is_better = False\n"
    )
    metric = find_metric(f"py:{tmp_path}/mine.py:error")
    assert metric.score([[np.zeros(1), np.ones(1)], [np.zeros(1), np.ones(1)]], [np.array(0.0), np.array(3.0)]) == 3.0
    assert metric.drop(1.0, 3.0) == 2.0


def test_what_a_metric_raises_becomes_a_data_error_that_names_it(tmp_path):
    (tmp_path / "mine.py").write_text("def broken(outputs, labels):\n    return 1 / 0\n")
    with pytest.raises(DataError, match="ZeroDivisionError"):
        find_metric(f"py:{tmp_path}/mine.py:broken").score([], [])


def test_an_unknown_metric_suggests_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'top"):
        find_metric("topl")
