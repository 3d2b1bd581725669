"""The Markdown view of a report."""

from __future__ import annotations

import re

from report_examples import benchmark, report, skips

from onnxcomp.report.markdown import benchmark_markdown, markdown
from onnxcomp.report.structures import OutputFidelity, StepReport, StepStatus

HOSTILE = "</td>|`x`*b*[l](http://e)\\|<img src=x onerror=alert(1)>\x1b[2J\n# h"


def cells(line: str) -> list[str]:
    """The cells of a table row; an escaped bar is no border."""
    return re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]


def test_tables_are_complete() -> None:
    text = markdown(report())
    rows = [cells(line) for line in text.splitlines() if line.startswith("|")]
    assert [" size ", " 1.64 MB ", " 0.45 MB ", " 3.64 × smaller "] in rows
    assert [" logits ", " 0.99987 ", " 34.7 dB ", " 0.437 ", " 99.40 % "] in rows
    assert [" BatchNormalization ", " 8 ", " 0 "] in rows
    assert "* ✓ drop of top1 is -0.0020, wanted ≤ 0.01" in text
    assert "* **!** RANDOM feeds" in text
    assert "* **quantize**: kept, 1.63 × as fast" in text
    assert "\n\n\n" not in text


def test_names_from_a_model_neither_break_a_table_nor_format_nor_run() -> None:
    fidelity = (OutputFidelity(output=HOSTILE, cosine=1, sqnr_db=9, max_abs=0),)
    step = StepReport(name="quantize", status=StepStatus.KEPT, why=HOSTILE, skips=skips(HOSTILE))
    text = markdown(report(fidelity=fidelity, steps=(step,), sentence=HOSTILE, result_path=HOSTILE))
    assert "<img" not in text
    assert "&lt;img" in text
    assert "\x1b" not in text
    assert "\n# h" not in text
    assert not re.search(r"(?<!\\)[`\[]", text.replace("[excluded", ""))
    (row,) = [line for line in text.splitlines() if line.startswith("| &lt;/td")]
    assert len(cells(row)) == 5


def test_a_report_without_anything_measured_has_no_empty_tables() -> None:
    text = markdown(report(fidelity=(), metric=None, benchmark=None, gates=(), steps=(), notes=(), calibration=None))
    assert "cosine" not in text
    assert "latency" not in text
    assert text.count("\n|---|") == 2  # before and after; operators


def test_the_benchmark_is_one_table() -> None:
    lines = benchmark_markdown(benchmark()).splitlines()
    assert cells(lines[3]) == [" after ", " 0.541 ", " 0.541 ", " 0.541 ", " 0.541 ", " 1.63 (1.61–1.66) "]
    assert lines[-1].startswith("VALID: milliseconds, on cpu (CPUExecutionProvider), 2 threads, image 1×1×28×28")


def test_the_verdict_and_its_figures_are_open_and_the_rest_is_folded() -> None:
    text = markdown(report())
    open_part, *folded = text.split("<details>")
    assert open_part.index("PASSED") < open_part.index("drop of top1") < open_part.index("RANDOM feeds")
    assert open_part.index("RANDOM feeds") < open_part.index("| size |") < open_part.index("judged on 1 RANDOM feed")
    assert [re.findall("<summary>(.*)</summary>", part) for part in folded] == [
        ["Steps: quantize kept"],
        ["Operators whose number changed: 2"],
        ["Versions and digests"],
    ]
    for part in folded:
        assert re.match("<summary>.*</summary>\n\n", part), "Markdown begins behind an empty line"
        assert part.count("\n</details>") == 1
    assert f"original {'0' * 64}" in text
    assert "no VNNI" in folded[-1]


def test_a_name_can_not_end_the_fold() -> None:
    step = StepReport(name="</summary></details>", status=StepStatus.KEPT, why="</details>")
    text = markdown(report(steps=(step,), versions={"</details>": "</details>"}))
    assert text.count("</details>") == text.count("<details>") == 3
    assert text.count("</summary>") == 3


def test_of_many_outputs_the_least_close_are_shown_and_the_rest_counted() -> None:
    fidelity = tuple(OutputFidelity(output=f"y{i}", cosine=1 - i / 100, sqnr_db=9, max_abs=0) for i in range(50))
    text = markdown(report(fidelity=fidelity))
    assert "| y49 |" in text
    assert "| y1 |" not in text
    assert "… and 38 outputs that are closer" in text
