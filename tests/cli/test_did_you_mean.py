"""A word that is nearly right is answered with the right one, wherever words are typed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from commands import Command

WORDS = [
    ("verb", ["optmize", "M"], "optimize"),
    ("verb of a group", ["recipe", "shwo"], "show"),
    ("option", ["quantize", "M", "--rages", "mse"], "--ranges"),
    ("mode", ["quantize", "M", "--mode", "dynamik"], "dynamic"),
    ("goal", ["optimize", "M", "--goal", "sise"], "size"),
    ("importance", ["prune", "M", "--ratio", "0.5", "--importance", "osb"], "obs"),
    ("provider by another name", ["bench", "M", "--ep", "gpu"], "cuda"),
    ("format by another name", ["bench", "M", "--format", "md"], "markdown"),
    ("shell", ["completion", "fsh"], "fish"),
    ("schema", ["recipe", "schema", "plans"], "plan"),
    ("metric", ["verify", "M", "--against", "M", "--eval", "D", "--metric", "spearmann"], "spearman"),
    ("target", ["optimize", "M", "--target", "cpu-vnnni"], "cpu-vnni"),
    ("kind of data", ["optimize", "M", "--calibration", "nzp:D"], "npz"),
    ("key of data", ["optimize", "M", "--calibration", "npz:D?lyout=nhwc"], "layout"),
    ("value of a key", ["optimize", "M", "--calibration", "npz:D?layout=nhcw"], "nhwc"),
    ("input in a map", ["optimize", "M", "--calibration", "npz:D?map=image:imge"], "image"),
    ("input in a shape", ["optimize", "M", "--shape", "imgae=1,3,16,16"], "image"),
    ("node pattern", ["optimize", "M", "--only", "Covn"], "Conv"),
    ("report", ["optimize", "M", "--report", "r.jsno"], ".json"),
    ("report of a comparison", ["compare", "M", "M", "--report", "r.mdd"], ".md"),
    ("recipe", ["optimize", "M", "--recipe", "defualt"], "default"),
    ("recipe to show", ["recipe", "show", "static"], "static-int8"),
]


@pytest.mark.parametrize(("words", "meant"), [w[1:] for w in WORDS], ids=[w[0] for w in WORDS])
def test_the_nearest_word_is_named(onnxcomp: Command, model: Path, data: Path, words: list[str], meant: str) -> None:
    before = sorted(model.parent.iterdir())
    places = {"M": str(model), "D": str(data)}
    result = onnxcomp(*(places.get(w, re.sub(r":D\b", f":{data}", w)) for w in words))
    assert result.code == 2, result.err
    near = re.search(r"[Dd]id you mean (?:one of: )?([^?]+)\?", result.err)
    assert near, result.err
    assert meant in re.findall(r"[\w.-]+", near.group(1))
    assert not result.out
    assert sorted(model.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('[[step]]\npass = "quantise"', "quantize"),
        ('[[step]]\npass = "quantize"\nrange = "mse"', "ranges"),
        ('[[steps]]\npass = "quantize"', "step"),
        ('[[step]]\npass = "simplify"\n[gates]\nmin_cosin = 0.9', "min_cosine"),
    ],
)
def test_keys_and_passes_of_a_recipe(onnxcomp: Command, model: Path, tmp_path: Path, text: str, meant: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    result = onnxcomp("optimize", model, "--recipe", tmp_path / "r.toml")
    assert result.code == 2
    assert f"did you mean {meant!r}?" in result.err


def test_a_file_that_is_nearly_there(onnxcomp: Command, model: Path) -> None:
    result = onnxcomp("optimize", model.with_name("modle.onnx"))
    assert result.code == 4
    assert "model.onnx" in result.err.splitlines()[-1]


def test_options_of_python_too(model: Path) -> None:
    import onnxcomp as api
    from onnxcomp.errors import UsageError

    with pytest.raises(UsageError, match="did you mean 'threads'"):
        api.bench([model], thread=1)
    with pytest.raises(UsageError, match="did you mean 'weight-only'"):
        api.quantize(model, [{"image": np.zeros((1, 3, 16, 16), np.float32)}], mode="weights-only")
