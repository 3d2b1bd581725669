"""What a report says of the inside of a result: where the time goes, and where the values part."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph

from onnxcomp import optimize, quantize
from onnxcomp.driver import inside
from onnxcomp.errors import LimitError, ModelError

CNN = """g (float[N,3,16,16] image, float[16,3,3,3] w1, float[32,16,3,3] w2) => (float[N,32,12,12] y) {
    a = Conv(image, w1) b = Relu(a) y = Conv(b, w2)
}"""


def feeds():
    rng = np.random.default_rng(0)
    return [{"image": rng.standard_normal((1, 3, 16, 16), dtype=np.float32)} for _ in range(10)]


def test_the_report_of_a_pass_says_where_the_time_goes_and_where_values_part():
    report = quantize(graph(CNN), calibration=feeds()).report
    assert report.profile is not None
    assert report.inside is not None
    kernels = {k.operator: k.nodes for k in report.profile.kernels}
    assert kernels["QLinearConv"] == (0, 2)
    assert all(ms > 0 for k in report.profile.kernels for count, ms in zip(k.nodes, k.ms, strict=True) if count)
    errors = {x.name: x.error for x in report.inside.layers}
    assert 0 < errors["y"] < 0.01
    assert sorted(errors.values(), reverse=True) == [x.error for x in report.inside.layers]


def test_an_original_that_is_handed_back_is_not_looked_into():
    report = optimize(graph(CNN), calibration=feeds(), only=["Relu"]).report
    assert report.result.sha256 == report.source.sha256
    assert report.profile is None
    assert report.inside is None


def test_a_large_model_is_not_loaded_once_more_for_the_report(monkeypatch):
    monkeypatch.setattr(inside, "MOST_BYTES", 100)
    report = quantize(graph(CNN), calibration=feeds()).report
    assert (report.profile, report.inside) == (None, None)


def test_a_profile_that_fails_is_a_note_and_a_limit_stays_one(monkeypatch):
    def fails(error):
        def profile(*_, **__):
            raise error

        monkeypatch.setattr(inside, "profile", profile)

    fails(ModelError("no profile"))
    report = quantize(graph(CNN), calibration=feeds()).report
    assert report.profile is None
    assert "operators were not profiled: no profile" in [n.sentence for n in report.notes]
    fails(LimitError("time is over"))
    with pytest.raises(LimitError):
        quantize(graph(CNN), calibration=feeds())
