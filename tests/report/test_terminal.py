"""The terminal's view of a report."""

from __future__ import annotations

import io

from report_examples import benchmark, facts, report
from rich.console import Console, RenderableType

from onnxcomp.report.structures import OutputFidelity, Report, Verdict
from onnxcomp.report.terminal import benchmark_line, benchmark_table, render, verdict_line


def shown(renderable: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    console.print(renderable)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    return text


def words(report: Report, **options: bool) -> str:
    return " ".join(shown(render(report, **options)).split())


def test_before_and_after_stand_beside_each_other_with_the_change() -> None:
    text = words(report())
    assert "size 1.64 MB 0.45 MB 3.64 × smaller" in text
    assert "latency p10 0.882 ms 0.541 ms 1.63 × as fast (1.61–1.66)" in text
    assert "top1 0.9260 0.9280 +0.0020" in text
    assert "parameters 408,458 408,458 MACs" in text  # nothing where nothing changed
    assert "logits 0.99987 34.7 dB 0.437 99.40%" in text


def test_what_the_figures_stand_on_is_said() -> None:
    text = words(report())
    assert "on cpu (CPUExecutionProvider), 2 threads, image 1×1×28×28" in text
    assert "judged on 1 RANDOM feed (random:8), with labels" in text
    assert "learned from 256 real feeds (c.npz)" in text


def test_an_unstable_latency_and_a_foreign_target_take_the_proof_from_the_figure() -> None:
    assert "1.63 × as fast (not proven)" in words(report(benchmark=benchmark("UNSTABLE")))
    text = words(report(target="arm64", target_is_host=False))
    assert "1.63 × as fast (UNVERIFIED)" in text
    assert "target arm64, for which figures from this machine are UNVERIFIED" in text


def test_only_operators_whose_number_changed_are_listed() -> None:
    text = words(report())
    assert "QuantizeLinear 0 18 BatchNormalization 8 0" in text
    assert "Conv 10 10" not in text


def test_the_audit_shows_kernels_what_stayed_float_and_conversions() -> None:
    text = words(report())
    assert "integer kernels: 10 QLinearConv" in text
    assert "heavy operators in float: 1 Gemm" in text
    assert "conversions between float and INT8: 3" in text


def test_skips_are_grouped_by_reason_and_named_when_verbose() -> None:
    text = words(report())
    assert "left alone: 1 Gemm [excluded] excluded by 'Gemm'" in text
    assert "left alone: 2 Add [unsupported-form] The attributes or shapes" in text  # two sentences: the code's own
    assert "left alone: 1 Conv [not-fused] runs in float" in text
    loud = words(report(), verbose=True)
    for node in ("gemm (Gemm)", "add1 (Add)", "add2 (Add)", "late (Conv)"):
        assert node in loud


def test_attempts_are_shown_when_there_was_more_than_one() -> None:
    text = words(report())
    assert "tried as planned: not kept, cosine of y is 0.9, wanted ≥ 0.99" in text
    assert "tried relaxed: kept" in text


def test_warnings_have_an_exclamation_mark() -> None:
    text = words(report())
    assert "! RANDOM feeds" in text
    assert "· no VNNI" in text


def test_more_outputs_than_fit_show_the_worst_and_say_so() -> None:
    outputs = tuple(OutputFidelity(output=f"o{i}", cosine=1 - i / 100, sqnr_db=9, max_abs=0) for i in range(20))
    text = words(report(fidelity=outputs))
    assert "o19" in text
    assert "o0 " not in text
    assert "and 14 outputs that are closer" in text


def test_unknown_macs_are_unknown_and_not_zero() -> None:
    assert "MACs unknown 33.2 M" in words(report(source=facts(macs=None, macs_unknown=2)))


def test_the_verdict_line_has_verdict_sentence_and_path() -> None:
    assert verdict_line(report()).plain == "PASSED  1.64 → 0.45 MB  → out/m.opt.onnx"
    failed = report(verdict=Verdict.FAILED, result_path=None)
    assert verdict_line(failed).plain == "FAILED  1.64 → 0.45 MB"


def test_the_benchmark_says_what_was_measured_and_whether_to_trust_it() -> None:
    text = " ".join(shown(benchmark_table(benchmark())).split())
    assert "before 0.882 0.882 0.882 0.882 1.00" in text
    assert "after 0.541 0.541 0.541 0.541 1.63 (1.61–1.66)" in text
    assert "milliseconds of 1,200 rounds, on cpu" in text
    assert benchmark_line(benchmark()).plain == "VALID  after is 1.63 × as fast as before"
    assert benchmark_line(benchmark("UNSTABLE")).plain == "UNSTABLE  after: 8% apart"
