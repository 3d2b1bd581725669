from __future__ import annotations

import doctest

import pytest

from onnxcomp.report import text
from onnxcomp.report.text import printable


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x07", "\x9b2J", "a\nb", "\u202egnp.exe", "\u2028", "\udcff", "\x00"])
def test_characters_that_act_on_a_terminal_are_replaced(hostile: str):
    shown = printable(hostile)
    assert "?" in shown
    assert all(c.isprintable() for c in shown)
    shown.encode("utf-8")


def test_ordinary_names_in_any_script_stay_as_they_are():
    assert printable("/модель/卷积.1/Conv[0]") == "/модель/卷积.1/Conv[0]"


def test_a_long_name_keeps_its_beginning_and_its_end_within_the_limit():
    shown = printable("x" * 500 + "end", limit=20)
    assert len(shown) == 20
    assert shown.startswith("xxx")
    assert shown.endswith("end")


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(text).failed == 0
