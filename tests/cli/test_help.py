"""Help: complete, 80 columns, examples that parse, one to a line."""

from __future__ import annotations

import re
import shlex

import pytest
from commands import Command

from onnxcomp.cli.main import VERBS, cli


def page(onnxcomp: Command, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    result = onnxcomp(*words, "--help")
    assert (result.code, result.err) == (0, "")
    return result.out


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_ends_with_examples_that_stand_on_lines_of_their_own_and_parse(
    onnxcomp: Command, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    text = page(onnxcomp, monkeypatch, verb)
    options, heading, tail = text.partition("Examples")
    assert heading
    assert not options.splitlines()[-2].strip(), "a blank line before the examples"
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    assert len(lines) >= 2
    for line in lines:
        assert len(line) <= 76
        program, name, *rest = shlex.split(line, comments=True)
        assert (program, name) == ("onnxcomp", verb)
        cli.get_command(cli.make_context("onnxcomp", [verb]), verb).make_context(verb, rest)  # type: ignore[union-attr]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_fits_80_columns(onnxcomp: Command, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    assert max(map(len, page(onnxcomp, monkeypatch, *([verb] if verb else [])).splitlines())) <= 80


def test_the_page_of_the_program_lists_the_verbs_in_the_order_of_use(
    onnxcomp: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page(onnxcomp, monkeypatch)
    assert re.findall(r"^│ ([a-z]+) ", text, re.MULTILINE) == list(VERBS)


@pytest.mark.parametrize("verb", ["optimize", "simplify", "quantize", "verify"])
def test_options_of_the_contract_that_all_model_verbs_share(
    onnxcomp: Command, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    text = page(onnxcomp, monkeypatch, verb)
    shared = "--eval --metric --max-drop --min-cosine --target --ep --shape --report --format --threads --seed"
    for option in f"{shared} --time-limit --custom-ops --verbose --quiet --no-color --help".split():
        assert f"{option} " in text


def test_no_arguments_at_all_show_the_help_as_wrong_usage(onnxcomp: Command) -> None:
    result = onnxcomp()
    assert result.code == 2
    assert not result.out
    assert "optimize" in result.err


def test_the_version_is_one_line_on_stdout(onnxcomp: Command) -> None:
    from onnxcomp import __version__

    assert onnxcomp("--version").out == f"onnxcomp, version {__version__}\n"
