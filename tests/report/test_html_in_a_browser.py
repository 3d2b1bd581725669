"""The pages in a real browser, where there is one: the policy lets their script run, and the browser complains of
nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from html_reader import Page
from test_html import everything
from test_html_models import comparison, inspection

from onnxcomp.report.html import render

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
RECORDS = {"report": everything, "compare": comparison, "inspect": inspection}


@pytest.mark.skipif(not BROWSER, reason="needs Chromium or Chrome")
@pytest.mark.parametrize("name", RECORDS)
def test_the_script_sorts_and_filters_and_nothing_is_complained_of(name: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(render(RECORDS[name]()), encoding="utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path}"]
    done = subprocess.run([BROWSER, *words, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120)
    if done.returncode or "<html" not in done.stdout:
        pytest.skip(f"the browser does not run here: {done.stderr[-200:]}")
    assert "CONSOLE" not in done.stderr, done.stderr
    elements = Page(done.stdout).elements
    forms = [attributes for tag, attributes in elements if tag == "form"]
    assert all("hidden" not in form for form in forms)
    assert name != "inspect" or len(forms) == 2
    sorted_by = [attributes for tag, attributes in elements if tag == "button"]
    assert len(sorted_by) > 3
