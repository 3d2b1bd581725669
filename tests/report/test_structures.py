"""The records of a report: strict, frozen, and the same after a journey through JSON."""

from __future__ import annotations

import json
import math

import jsonschema
import pytest
from pydantic import ValidationError
from report_examples import facts, report

from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import OutputFidelity, Report
from onnxcomp.report.text import harmless_json, on_one_line


def test_a_report_comes_back_from_json_as_it_was() -> None:
    first = report()
    assert Report.model_validate_json(first.model_dump_json(by_alias=True)) == first


def test_infinite_figures_survive_json_that_every_parser_reads() -> None:
    exact = report(fidelity=(OutputFidelity(output="y", cosine=1, sqnr_db=math.inf, max_abs=0),))
    text = exact.model_dump_json(by_alias=True)
    assert "Infinity" in json.loads(text, parse_constant=lambda name: pytest.fail(name))["fidelity"][0]["sqnr_db"]
    assert Report.model_validate_json(text) == exact


def test_a_report_validates_against_its_schema() -> None:
    schema = Report.model_json_schema(by_alias=True, mode="serialization")
    jsonschema.validate(json.loads(report().model_dump_json(by_alias=True)), schema)


def test_unknown_keys_are_refused_and_records_are_frozen() -> None:
    with pytest.raises(ValidationError, match="colour"):
        facts(colour="red")
    with pytest.raises(ValidationError, match="frozen"):
        report().exit_code = 1  # type: ignore[misc]


def test_a_file_name_that_is_not_utf8_can_be_written_as_json() -> None:
    assert facts(name="m\udcff.onnx").name == "m?.onnx"
    report(result_path="out/\udcff.onnx").model_dump_json()


def test_json_is_harmless_on_a_terminal_and_still_the_same_data() -> None:
    first = report(sentence="a\x1b[2J\x9b\u202e\x7f\n\U000e0041 é ×")
    text = harmless_json(first.model_dump_json(by_alias=True, indent=2))
    assert not {"\x1b", "\x9b", "\u202e", "\x7f", "\U000e0041"} & set(text)
    assert "é ×" in text
    assert Report.model_validate_json(text) == first


def test_numbers_on_one_line_are_the_same_data_whatever_strings_look_like() -> None:
    nasty = 'a [\n 1,\n 2\n] \\" [1, 2]'
    data = {"a": [1, -2.5e-7, [3], []], nasty: [[1, 2], [3, 4]], "c": ["1", 2], "d": [nasty, "NaN"]}
    text = on_one_line(json.dumps(data, indent=2))
    assert json.loads(text) == data
    assert "[1, 2],\n" in text
    assert '"c": [\n' in text


def test_every_reason_has_a_description_that_is_a_sentence() -> None:
    assert set(DESCRIPTIONS) == set(Reason)
    for sentence in DESCRIPTIONS.values():
        assert sentence[0].isupper()
        assert sentence.endswith(".")


def test_an_infinite_figure_is_a_word_in_json_that_the_schema_allows() -> None:
    equal = OutputFidelity(output="y", cosine=1.0, sqnr_db=float("inf"), max_abs=0.0)
    written = json.loads(equal.model_dump_json())
    assert written["sqnr_db"] == "Infinity"
    jsonschema.validate(written, OutputFidelity.model_json_schema())
    assert OutputFidelity.model_validate_json(equal.model_dump_json()) == equal
