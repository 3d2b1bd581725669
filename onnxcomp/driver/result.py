"""What a job gives back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from onnxcomp.model.save import SavedModel, save_copy, save_model
from onnxcomp.model.weights import data_paths
from onnxcomp.passes.base import Plan
from onnxcomp.report.structures import Report


@dataclass(frozen=True)
class Result:
    """A compressed model with its report.

    Args:
        model: The result; the original itself where nothing was gained.
        report: What was done, what not and why, what was measured.
        plan: Of the last kept step; None if nothing was kept.
        source: Path of the input, which `save` refuses to overwrite.
    """

    model: ir.Model
    report: Report
    plan: Plan | None
    source: Path | None = None

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> SavedModel:
        """Writes the model atomically; large weights go into a data file beside it. An original is copied as it is.

        Raises:
            WriteError: It exists (and not `overwrite`), is the input itself, or can't be written.
        """
        original = self.report.result.sha256 == self.report.source.sha256
        if original and self.source is not None and not data_paths(self.model):
            return save_copy(self.source, path, overwrite=overwrite)
        return save_model(self.model, path, overwrite=overwrite, source=self.source)
