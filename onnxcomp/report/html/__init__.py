"""The report as one HTML file, which needs nothing else and loads nothing."""

from onnxcomp.report.html.page import render

__all__ = ["render"]
