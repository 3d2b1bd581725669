"""The HTML view: one file that loads nothing, says everything the report holds, and is safe from every name in it."""

from __future__ import annotations

import base64
import doctest
import hashlib
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from html_reader import HOSTILE, Page
from report_examples import benchmark, facts, report

from onnxcomp.report.html import page as builder
from onnxcomp.report.html import render, svg, words
from onnxcomp.report.html.curves import FAINTEST, blocks, histogram, spectrum
from onnxcomp.report.html.pictures import bar, columns, integer_share, strip
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import (
    ActivationRange,
    ActivationRanges,
    Channels,
    FusionAudit,
    GateResult,
    KernelPair,
    Layer,
    LayerDifference,
    LayerPairs,
    NodeTime,
    Note,
    OutputFidelity,
    ProfilePair,
    Report,
    Skip,
    StepReport,
    StepStatus,
    Stretch,
    Verdict,
)


def layer(name: str, rank: int | None) -> Layer:
    return Layer(
        name=name,
        op_type="Gemm",
        size="64 × 32",
        rank=rank,
        break_even=21.3,
        form="svd",
        energy=0.9,
        loss=0.01,
        why="?",
        ranks=() if rank is None else (1, 4, 8, 32),
        energies=() if rank is None else (0.5, 0.8, 0.9, 1.0),
    )


def clipping(name: str, clipped: float = 0.02, through: str = "") -> ActivationRange:
    return ActivationRange(
        name=name,
        low=-4.0,
        high=12.0,
        chosen=(-2.0, 6.0),
        method="mse",
        beyond=0.03,
        clipped=clipped,
        through=through,
        start=-4.0,
        width=4.0,
        counts=(3, 1000, 20, 1),
    )


def everything(**changes: Any) -> Report:
    """A report with something in every field."""
    first = report()
    order = (
        Stretch(integer=True, nodes=9, macs=900, first="conv1", last="conv9"),
        Stretch(integer=False, nodes=1, macs=100, first="gemm", last="gemm"),
    )
    (step,) = first.steps
    assert step.audit is not None
    shown = (clipping("act"), clipping("gate", 0.0, "Sigmoid"), *(clipping(f"more{i}") for i in range(20)))
    ranges = ActivationRanges(activations=99, shown=shown)
    cut = tuple(Channels(name=f"cell{i}", size=64, kept=64 - i, exact=i % 2 == 0, loss=0.1) for i in range(12))
    steps = (
        step.model_copy(update={"audit": step.audit.model_copy(update={"order": order}), "ranges": ranges}),
        StepReport(name="prune", status=StepStatus.KEPT, why="as asked", channels=cut),
        StepReport(
            name="factorize", status=StepStatus.UNDONE, why="slower", layers=(layer("fc1", 8), layer("fc2", None))
        ),
    )
    profile = ProfilePair(
        runs=(50, 50),
        total_ms=(0.9, 0.5),
        kernels=(KernelPair(operator="FusedConv", nodes=(10, 2), ms=(0.8, 0.2)),),
        nodes_a=(),
        nodes_b=(NodeTime(name="slow", op_type="FusedConv", ms=0.123),),
    )
    values = (LayerDifference(name="far", op_type="Relu", error=0.25), LayerDifference(name="n", op_type="x", error=0))
    inside = LayerPairs(feeds=4, values=9, matched=3, layers=values, reshaped=("cut",))
    return first.model_copy(update={"steps": steps, "profile": profile, "inside": inside, **changes})


def test_the_page_is_well_formed_and_everything_in_it_is_named() -> None:
    page = Page(render(everything()))
    assert page.open == []
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    for reference in ("aria-labelledby", "aria-controls"):
        assert set(page.attributes(reference)) <= set(ids), reference
    assert {href[1:] for href in page.attributes("href") if href.startswith("#")} <= set(ids)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption") > 7
    assert tags.count("h1") == 1
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels)), levels
    assert dict(page.elements)["html"] == {"lang": "en"}


def test_all_that_a_report_holds_is_on_the_page() -> None:
    text = Page(render(everything())).text
    for shown in (
        "PASSED 1.64 → 0.45 MB",
        "out/m.opt.onnx",
        "3.64 × smaller",
        "1.63 × as fast",
        "95 %: 1.61–1.66",
        "One warning RANDOM feeds",
        "0.9260 → 0.9280 on 1,000 labelled samples",
        "drop of top1 is -0.0020, wanted ≤ 0.01",
        "logits 0.999870 34.7 dB 0.437 99.40 %",
        "90 % of the nodes",
        "QLinearConv 10",
        "Gemm in float 1",
        "cell11 53 64 approximate",
        "fc1 Gemm 64 × 32 8 21 90.00 %",
        "act −2 … 6 of −4 … 12 by mse 2 % clipped",
        "gate −2 … 6 of −4 … 12 by mse nothing clipped (3 % lie beyond; Sigmoid flattens them)",
        "22 of 99 activations are shown, those with the longest tails.",
        "10 more",
        "FusedConv × 10 → 2 0.800 0.200",
        "slow FusedConv 0.123",
        "far Relu 0.25",
        "on 4 feeds. 3 of the 9 values",
        "some have another shape there",
        "A value that a pass rescaled differs without harm",
        "2 attempts",
        "not kept cosine of y is 0.9, wanted ≥ 0.99",
        "unsupported-form 2 2 Add The attributes or shapes",
        "late Conv quantize not-fused runs in float",
        "BatchNormalization 8 0",
        "256 real feeds of c.npz, no labels",
        "1 RANDOM feed of random:8, with labels",
        "1" * 64,
        "onnx 1.23",
        "A CPU, 2 cores",
        "no VNNI",
        "seed 0, 12 s, exit code 0",
    ):
        assert shown in text, shown


def test_parts_without_data_vanish() -> None:
    bare = report(fidelity=(), metric=None, benchmark=None, gates=(), steps=(), notes=(), calibration=None)
    text = Page(render(bare)).text
    for absent in (
        "Latency",
        "Cosine",
        "warning",
        "What was done",
        "Where the time goes",
        "values part",
        "left alone",
        "Learned from",
        "Notes",
    ):
        assert absent not in text, absent
    kept = report(verdict=Verdict.NOTHING_GAINED, result=facts(), benchmark=None, result_path=None)
    text = Page(render(kept)).text
    assert "NOTHING GAINED" in text
    assert "smaller" not in text
    assert "Written to" not in text


def test_doubt_is_said_beside_the_figure() -> None:
    assert "not proven: the measurement was unstable" in Page(render(report(benchmark=benchmark("UNSTABLE")))).text
    text = Page(render(report(target="arm64", target_is_host=False))).text
    assert "UNVERIFIED for the target" in text
    assert "arm64, which is not this machine" in text


def test_nothing_is_loaded_from_anywhere() -> None:
    text = render(everything())
    page = Page(text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:", re.sub(r"// [A-Z].*", "", text))
    assert page.attributes("src") == []
    assert {href for href in page.attributes("href") if not href.startswith("#")} == {"data:,"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.attributes("style") == []


def test_the_policy_allows_this_style_and_this_script_alone() -> None:
    page = Page(render(everything()))
    (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.source[kind].encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
        assert [tag for tag, _ in page.elements].count(kind) == 1
    names = [(tag, attributes.get("http-equiv", "")) for tag, attributes in page.elements]
    assert names.index(("meta", "Content-Security-Policy")) < [tag for tag, _ in names].index("style")


def test_hostile_text_in_every_field_leaves_the_page_as_it_is_built() -> None:
    """A page from hostile names has the elements and attributes of one from harmless names, in the same order."""
    harmless, hostile = Page(render(_renamed("harmless"))), Page(render(_renamed(HOSTILE)))
    assert hostile.shape() == harmless.shape()
    assert hostile.source == harmless.source
    assert "alert(1)" in hostile.text
    assert "{{ 7*7 }}" in hostile.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", render(_renamed(HOSTILE)))


def _renamed(name: str) -> Report:
    fixed = {"level", "code", "kind", "status", "verdict", "command", "schema"}

    def renamed(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            free = key in ("operators", "versions", "latency", "speedup", "interval", "shapes", "integer_kernels")
            return {(f"{name}{i}" if free else k): renamed(v, k) for i, (k, v) in enumerate(value.items())}
        if isinstance(value, list):
            return [renamed(v, key) for v in value]
        return name if isinstance(value, str) and key not in fixed else value

    values = everything().model_dump(mode="json", by_alias=True)
    measured = values.pop("benchmark")
    changed = renamed(values)
    ours = list(measured["latency"])
    measured["latency"] = {name + n: v for n, v in measured["latency"].items()}
    measured["speedup"] = {name + ours[1]: measured["speedup"][ours[1]]}
    measured["interval"] = {name + ours[1]: measured["interval"][ours[1]]}
    measured["shapes"] = {name: (1, 2)}
    measured["reason"] = name
    return Report.model_validate({**changed, "benchmark": measured})


def test_a_page_on_an_enormous_model_stays_small_and_says_what_it_leaves_out() -> None:
    skips = tuple(
        Skip(node=f"/encoder/layer.{i}/attention/MatMul", op_type="MatMul", code=Reason.EXCLUDED, sentence="x" * 150)
        for i in range(50_000)
    )
    cut = tuple(Channels(name=f"cell{i}", size=64, kept=32, exact=True, loss=0.1) for i in range(5_000))
    order = tuple(Stretch(integer=i % 2 == 0, nodes=1, macs=1, first="a", last="b") for i in range(20_000))
    audit = FusionAudit(integer_kernels={f"k{i}": 1 for i in range(5_000)}, float_heavy={}, conversions=0, order=order)
    fidelity = tuple(OutputFidelity(output=f"y{i}", cosine=1, sqnr_db=9, max_abs=0) for i in range(5_000))
    step = StepReport(
        name="quantize",
        status=StepStatus.KEPT,
        why="w",
        skips=skips,
        audit=audit,
        channels=cut,
        layers=tuple(layer(f"fc{i}", 8) for i in range(5_000)),
        summary=("s" * 200,) * 5_000,
    )
    notes = (Note(level="warning", sentence="n" * 500),) * 5_000
    text = render(report(steps=(step,), fidelity=fidelity, notes=notes))
    assert len(text.encode()) < 3_000_000
    shown = Page(text).text
    assert "3,000 of 50,000 nodes are shown; the JSON report has all of them." in shown
    for what in ("cells", "layers", "outputs", "warnings"):
        assert re.search(rf"of 5,000 {what} are shown", shown), what


def test_figures_that_are_infinite_or_not_a_number_are_words() -> None:
    fidelity = (
        OutputFidelity(output="same", cosine=1, sqnr_db=float("inf"), max_abs=0),
        OutputFidelity(output="broken", cosine=float("nan"), sqnr_db=float("nan"), max_abs=float("inf")),
    )
    gates = (GateResult(name="cosine of broken", wanted="≥ 0.99", value=float("nan"), passed=False),)
    text = Page(render(report(fidelity=fidelity, gates=gates, metric=None))).text
    assert "same 1.000000 exact" in text
    assert text.index("broken nan") < text.index("same 1.000000")
    assert "Failed: cosine of broken is nan" in text


def test_commands_in_sentences_are_set_as_code() -> None:
    text = render(report(notes=(Note(level="warning", sentence="`onnxcomp optimize` <would> not keep this"),)))
    assert "<code>onnxcomp optimize</code> &lt;would&gt; not keep this" in text


def test_the_same_report_gives_the_same_page() -> None:
    assert render(everything()) == render(everything())


def test_the_examples_in_the_docstrings_run() -> None:
    assert [doctest.testmod(module).failed for module in (builder, words, svg)] == [0, 0, 0]


def widths(markup: str) -> list[float]:
    return [float(attributes["width"]) for tag, attributes in Page(markup).elements if tag == "rect"]


def test_bars_are_as_long_as_their_figures() -> None:
    assert widths(bar(0.45, 1.8, "after")) == [25]
    assert widths(bar(9, 3, "after")) == [100]  # never longer than its scale
    assert widths(bar(0, 0, "after")) == [0]


def paths(markup: str) -> dict[str, list[tuple[float, float]]]:
    """Class → the corners of its path."""
    found = {}
    for tag, attributes in Page(markup).elements:
        if tag == "path":
            assert re.fullmatch(r"([MLHVZ]|-?[\d.]+(e-?\d+)?| )+", attributes["d"]), attributes["d"][:80]
            x = y = 0.0
            corners = found.setdefault(attributes["class"], [])
            for letter, numbers in re.findall(r"([MLHV])([^MLHVZ]+)", attributes["d"]):
                values = [float(n) for n in numbers.split()]
                x = values[0] if letter != "V" else x
                y = values[-1] if letter != "H" else y
                corners.append((x, y))
    return found


def test_a_histogram_shows_what_is_clipped_where_it_lies() -> None:
    r = clipping("act")
    parts = list(blocks(r))
    assert [(b.left, b.right, b.clipped) for b in parts] == [
        (-4, -2, True),
        (-2, 0, False),
        (0, 4, False),
        (4, 6, False),
        (6, 8, True),
        (8, 12, True),
    ]
    assert [b.height for b in parts[:3]] == pytest.approx([0.2007, 0.2007, 1.0], abs=1e-4)  # ln(1 + 3) / ln(1 + 1000)
    drawn = paths(histogram(r))
    assert {x for x, _ in drawn["clipped"]} == {0, 125, 625, 750, 1000}
    assert {x for x, _ in drawn["after"]} == {125, 250, 500, 625}
    assert {x for x, _ in drawn["whisker"]} == {125, 625}
    assert set(paths(histogram(clipping("gate", 0.0, "Sigmoid")))) == {"after", "flat", "whisker"}


def test_a_histogram_of_one_value_or_of_many_bins_is_drawn_whole() -> None:
    same = clipping("c").model_copy(
        update={"low": 1.0, "high": 1.0, "chosen": (0.0, 1.0), "counts": (7,), "start": 1.0}
    )
    assert {y for _, y in paths(histogram(same))["whisker"]} == {0, 100}
    counts = tuple(range(1, 65))
    many = clipping("m").model_copy(update={"counts": counts, "low": 0.0, "high": 64.0, "start": 0.0, "width": 1.0})
    tall = [y for _, y in paths(histogram(many))["clipped"]]
    assert len([y for y in tall if y < 100]) == 2 * 58
    assert min(tall) == pytest.approx(6)


def test_a_spectrum_falls_from_all_of_the_energy_and_marks_rank_and_break_even() -> None:
    drawn = paths(spectrum(layer("fc1", 8)))
    assert [x for x, _ in drawn["line"]] == pytest.approx([0, 31.2, 125, 250, 1000], abs=0.1)
    depths = [100 * np.log10(1 - e) / np.log10(FAINTEST) for e in (0, 0.5, 0.8, 0.9)]
    assert [y for _, y in drawn["line"]] == pytest.approx([*depths, 100], abs=0.1)
    assert {x for x, _ in drawn["chosen"]} == {250}
    assert {x for x, _ in drawn["even"]} == {665.6}
    assert "rank 8 loses 0.1 of the energy, break-even at rank 21 of 32" in spectrum(layer("fc1", 8))


@pytest.mark.parametrize(("by", "expected"), [("nodes", [750, 250]), ("macs", [900, 100])])
def test_a_strip_shares_its_length_out_over_the_graph(by: Any, expected: list[float]) -> None:
    order = (
        Stretch(integer=True, nodes=3, macs=9, first="a", last="c"),
        Stretch(integer=False, nodes=1, macs=1, first="d", last="d"),
    )
    drawn = strip(order, by)
    assert widths(drawn) == expected
    assert integer_share(order, by) == expected[0] / 1000
    titles = Page(drawn).text
    assert "INT8: 3 nodes, a … c" in titles
    assert "float: 1 node, d" in titles


def test_columns_are_drawn_where_they_say_more_than_the_table() -> None:
    def make(n: int) -> list[Channels]:
        return [Channels(name=str(i), size=4, kept=1, exact=True, loss=0) for i in range(n)]

    assert not columns(make(3))
    assert not columns(make(100_000))
    heights = [a["height"] for tag, a in Page(columns(make(20))).elements if tag == "rect"]
    assert heights == ["100", "25"] * 20
