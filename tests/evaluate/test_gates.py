"""What passes a gate, to the last digit."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcomp.evaluate.gates import Gates
from onnxcomp.report.structures import MetricResult, OutputFidelity


def fidelity(**cosines):
    return tuple(OutputFidelity(output=name, cosine=c, sqnr_db=30.0, max_abs=0.1) for name, c in cosines.items())


def metric(before, after):
    return MetricResult(name="top1", before=before, after=after, drop=before - after, samples=1000)


@pytest.mark.parametrize(("images", "passes"), [(9, True), (10, True), (11, False)])
def test_a_drop_of_exactly_the_limit_passes_and_one_image_more_does_not(images, passes):
    (result,) = Gates(max_drop=0.01).check((), metric(0.874, (874 - images) / 1000))
    assert result.passed is passes


def test_the_worst_output_decides():
    (result,) = Gates(min_cosine=0.99).check(fidelity(a=0.999, b=0.98, c=1.0), None)
    assert (result.passed, result.name, result.value) == (False, "cosine of b", 0.98)


def test_a_cosine_of_exactly_the_limit_passes():
    assert Gates(min_cosine=0.99).check(fidelity(a=0.99), None)[0].passed
    assert Gates(min_cosine=1.0).check(fidelity(a=1.0), None)[0].passed


def test_a_figure_that_is_not_a_number_passes_nothing():
    assert not Gates(max_drop=0.01).check((), metric(0.8, np.nan))[0].passed
    assert not Gates(min_cosine=0.9).check(fidelity(a=0.999, b=np.nan), None)[0].passed


def test_gates_that_are_not_set_or_cannot_be_judged_give_no_result():
    assert Gates().check(fidelity(a=0.0), metric(1.0, 0.0)) == ()
    assert Gates(min_cosine=0.9, max_drop=0.1).check((), None) == ()


def test_both_gates_are_judged():
    results = Gates(min_cosine=0.9, max_drop=0.1).check(fidelity(a=0.95), metric(0.9, 0.7))
    assert [(r.name, r.wanted, r.passed) for r in results] == [
        ("cosine of a", "≥ 0.9", True),
        ("drop of top1", "≤ 0.1", False),
    ]
