"""The pages of `compare` and `inspect`: figures are those of the record, names are text, and nothing is endless."""

from __future__ import annotations

import re
from typing import Any

import pytest
from html_reader import HOSTILE, Page
from report_examples import benchmark, facts

from onnxcomp.report.comparison import ModelComparison, OperatorPair
from onnxcomp.report.html import render
from onnxcomp.report.inspection import Inspection, ModelFinding, NodeRow, OperatorRow, Prospect, TensorFacts, Trait
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import (
    DataFacts,
    KernelPair,
    LayerDifference,
    LayerPairs,
    NodeTime,
    Note,
    OutputFidelity,
    ProfilePair,
    Skip,
)

Model = ModelComparison | Inspection


def comparison(name: str = "v", **changes: Any) -> ModelComparison:
    timing = benchmark()
    names = (f"{name}-a.onnx", f"{name}-b.onnx")
    before, after = timing.latency.values()
    speed = {names[1]: timing.speedup["after"]}
    timing = timing.model_copy(
        update={
            "latency": {names[0]: before, names[1]: after},
            "speedup": speed,
            "interval": {names[1]: (1.61, 1.66)},
        }
    )
    layers = tuple(LayerDifference(name=f"{name}{i}", op_type=name, error=0.5 / (i + 1)) for i in range(20))
    values: dict[str, Any] = {
        "version": name,
        "target": name,
        "host": name,
        "seed": 0,
        "versions": {name: "1"},
        "names": names,
        "a": facts(name=name),
        "b": facts(name=name, bytes=450_000, parameters=1000, sha256="1" * 64),
        "operators": (
            OperatorPair(operator=f"Conv{name}", nodes=(4, 2), macs=(8_000_000, 2_000_000), bytes=(4000, 1000)),
            OperatorPair(operator=f"Loop{name}", nodes=(1, 1), macs=(None, None), bytes=(0, 0)),
            OperatorPair(operator=f"Relu{name}", nodes=(3, 3), macs=(0, 0), bytes=(0, 0)),
        ),
        "evaluation": DataFacts(kind="random", name=name, samples=8, labels=False, sha256="2" * 64),
        "fidelity": (OutputFidelity(output=name, cosine=0.987, sqnr_db=20, max_abs=0.5),),
        "benchmark": timing,
        "profile": ProfilePair(
            runs=(50, 40),
            total_ms=(0.9, 0.5),
            kernels=(KernelPair(operator=name, nodes=(4, 2), ms=(0.8, 0.2)),),
            nodes_a=(NodeTime(name=name, op_type=name, ms=0.4),),
            nodes_b=(NodeTime(name=name, op_type=name, ms=0.3),),
        ),
        "layers": LayerPairs(feeds=4, values=30, matched=20, layers=layers, reshaped=(name,)),
        "notes": (Note(level="warning", sentence=f"RANDOM {name}"), Note(level="info", sentence=name)),
    }
    return ModelComparison(**(values | changes))


def inspection(name: str = "v", **changes: Any) -> Inspection:
    skips = tuple(
        Skip(node=f"{name}{i}", op_type=name, code=Reason.EXCLUDED if i % 3 else Reason.TOO_SMALL, sentence=name)
        for i in range(12)
    )
    nodes = tuple(
        NodeRow(name=f"{name}{i}", op_type=f"{name}{i % 2}", shape=(1, name, None), macs=100 * i, weight_bytes=4000 * i)
        for i in range(12)
    )
    values: dict[str, Any] = {
        "version": name,
        "target": name,
        "target_is_host": True,
        "executed": False,
        "model": facts(name=name),
        "inputs": (TensorFacts(name=name, dtype="float", shape=(name, 3)),),
        "outputs": (TensorFacts(name=name, dtype="int64", shape=None),),
        "shapes": {name: (1, 3)},
        "operators": (
            OperatorRow(op_type=f"{name}0", nodes=6, macs=3000, uncounted=0, weight_bytes=120_000),
            OperatorRow(op_type=f"{name}1", nodes=6, macs=1000, uncounted=1, weight_bytes=512),
        ),
        "nodes": (*nodes, NodeRow(name="unknown", op_type="x", shape=None, macs=None, weight_bytes=0)),
        "findings": (
            ModelFinding(code=Trait.OPSET, level="warning", sentence=f"opset of {name}"),
            ModelFinding(code=Trait.DYNAMIC, level="info", sentence=f"dynamic {name}"),
        ),
        "prospects": (
            Prospect(
                name=f"static INT8 {name}",
                command=f"quantize {name}",
                nodes=(f"{name}1", f"{name}2"),
                macs_share=0.75,
                bytes_share=0.5,
                detail=(f"some {name}",),
                skips=skips,
            ),
            Prospect(name="prune", command="prune", nodes=(f"{name}1",), bytes_share=0.25, skips=skips[:1]),
            Prospect(name="other", command="other", not_examined=f"no {name}"),
        ),
        "notes": (Note(level="info", sentence=f"noted {name}"),),
    }
    return Inspection(**(values | changes))


MAKERS = {"compare": comparison, "inspect": inspection}


@pytest.mark.parametrize("verb", MAKERS)
def test_the_page_is_well_formed_and_names_in_it_are_text(verb: str) -> None:
    page, hostile = (Page(render(MAKERS[verb](name))) for name in ("harmless", HOSTILE))
    assert page.open == []
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    for reference in ("aria-labelledby", "aria-controls"):
        assert set(page.attributes(reference)) <= set(ids), reference
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption") > 4
    assert tags.count("h1") == tags.count("script") == tags.count("style") == 1
    assert hostile.shape() == page.shape()
    assert hostile.source == page.source
    assert "alert(1)" in hostile.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", render(MAKERS[verb](HOSTILE)))
    assert page.attributes("src") == page.attributes("style") == []


def test_a_comparison_says_all_that_differs() -> None:
    text = Page(render(comparison())).text
    for shown in (
        "v-b.onnx B, beside A: v-a.onnx",
        "COMPARED v-b.onnx beside v-a.onnx: 3.64 × smaller, 1.63 × as fast; lowest cosine 0.98700",
        "Cosine to A 0.98700",
        "One warning RANDOM v",
        "parameters 408,458 1,000 408.46 × fewer",
        "v-b.onnx 0.541",
        "Convv 4 2 8.00 M 2.00 M 4.0 kB 1.0 kB",
        "Loopv 1 1 unknown unknown",
        "v × 4 → 2 0.800 0.200",
        "The slowest nodes of A",
        "The slowest nodes of B",
        "Values inside: B has 20 of A's 30 by name; compared all of them on 4 feeds; 1 has another shape",
        "v0 v 0.5",
        "The other 8",
        "v19 v 0.025",
        "8 RANDOM feeds of v, no labels",
        "medians of 40 profiled calls",
    ):
        assert shown in text, shown
    assert "Reluv" not in text


def test_the_bars_of_a_comparison_are_pairs_on_one_scale() -> None:
    page = Page(render(comparison(fidelity=(), layers=None)))
    assert "Where the values part" not in page.text
    assert "Does B answer" not in page.text
    widths = [(a["class"], float(a["width"])) for tag, a in page.elements if tag == "rect"]
    for pair in ([100, 25], [100, 25], [100, 27.4423]):  # MACs, weights, bytes of the file
        both = [("before", pytest.approx(pair[0])), ("after", pytest.approx(pair[1]))]
        assert any(widths[i : i + 2] == both for i in range(len(widths))), pair


def test_an_inspection_begins_with_what_was_found_and_shows_each_node() -> None:
    page = Page(render(inspection()))
    text = page.text
    for shown in (
        "One warning opset of v",
        "Parameters 408,458",
        "dynamic v noted v",
        "v float v×3",
        "v int64 ?",
        "static INT8 v onnxcomp quantize v 2 75 % 50 % 12",
        "prune onnxcomp prune 1 none 25 % 1",
        "not examined: no v",
        "Static INT8 v some v",
        "v0 6 3.00 k 75.0% 120.0 kB 99.6%".replace("120.0 kB", "0.12 MB"),
        "v1 6 > 1.00 k 25.0% 512 B 0.4%",
        "v11 1×v×? 12 v1 1.10 k 16.7% 44.0 kB",
        "v1 1×v×? 2 v1 100 1.5% 4.0 kB static INT8 v, prune",
        "unknown ? 13 x unknown",
        "excluded 8 8 v",
        "too-small 5 5 v",
        "nothing was run",
    ):
        assert shown in text, shown
    assert text.index("One warning") < text.index("Parameters") < text.index("What each pass could do")
    assert text.index("v11 1×v×?") < text.index("v10 1×v×?") < text.index("unknown ? 13")


def test_nodes_and_reasons_can_be_filtered_by_what_they_are() -> None:
    page = Page(render(inspection()))
    keys = page.attributes("data-key")
    assert keys == ["operator", "pass", "reason"]
    for key in keys:
        told = set(page.attributes(f"data-{key}"))
        options = {a["value"] for tag, a in page.elements if tag == "option"}
        assert told <= options, key
    forms = [a for tag, a in page.elements if tag == "form"]
    assert forms == [{"class": "filters", "hidden": ""}] * 2  # until the script obeys them


def test_enormous_models_have_pages_of_bounded_size_that_say_so() -> None:
    nodes = tuple(
        NodeRow(name=f"/a/long/name/of/a/node/{i}", op_type=f"T{i}", shape=(1,) * 8, macs=i, weight_bytes=i)
        for i in range(30_000)
    )
    skips = tuple(Skip(node=n.name, op_type="T", code=Reason.EXCLUDED, sentence="x" * 150) for n in nodes)
    operators = tuple(OperatorRow(op_type=n.op_type, nodes=1, macs=1, uncounted=0, weight_bytes=1) for n in nodes)
    prospects = (Prospect(name="prune", command="prune", nodes=tuple(n.name for n in nodes), skips=skips),)
    found = inspection(nodes=nodes, operators=operators, prospects=prospects, inputs=inspection().inputs * 5000)
    text = render(found)
    assert len(text.encode()) < 4_000_000
    for what in (
        "2,000 of 30,000 nodes",
        "3,000 of 30,000 nodes",
        "200 of 30,000 operators",
        "200 of 5,000 inputs",
    ):
        assert f"{what} are shown; the JSON report has all of them." in Page(text).text
    layers = tuple(LayerDifference(name=f"v{i}", op_type="Conv", error=1.0) for i in range(30_000))
    pairs = tuple(OperatorPair(operator=f"T{i}", nodes=(1, 2), macs=(1, 1), bytes=(1, 1)) for i in range(30_000))
    told = comparison(operators=pairs, layers=LayerPairs(feeds=1, values=1, matched=30_000, layers=layers))
    assert len(render(told).encode()) < 1_000_000
    assert "212 of 30,000 values are shown" in Page(render(told)).text
    assert "200 of 30,000 operators are shown" in Page(render(told)).text


def test_the_same_record_gives_the_same_page() -> None:
    for make in MAKERS.values():
        assert render(make()) == render(make())


@pytest.mark.parametrize("verb", MAKERS)
def test_no_two_tables_of_a_page_have_the_same_name(verb: str) -> None:
    """A screen reader lists them by their captions."""
    text = render(MAKERS[verb]())
    captions = re.findall(r"<caption[^>]*>([^<]*)<", text)
    assert len(set(captions)) == len(captions)
