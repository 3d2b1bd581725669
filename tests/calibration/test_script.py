from __future__ import annotations

from pathlib import Path

import pytest
from calibration_signatures import takes

from onnxcomp.calibration.readers import Reader
from onnxcomp.calibration.spec import open_spec
from onnxcomp.errors import DataError, UsageError

MODEL = takes(x=("float32", (1,)))
HEAD = "import numpy as np\nfeeds = [{'x': np.full(1, i, np.float32)} for i in range(3)]\n"


def opened(folder: Path, code: str, name: str = "reader") -> Reader:
    (folder / "my_reader.py").write_text(HEAD + code)
    return open_spec(f"py:{folder}/my_reader.py:{name}", MODEL)


@pytest.mark.parametrize(
    "code",
    [
        "reader = feeds",
        "def reader(): return feeds",
        "def reader(): yield from feeds",
        "class reader:\n  def __iter__(self): return iter(feeds)",
        "class reader:\n  left = list(feeds)\n  def get_next(self): return self.left.pop(0) if self.left else None",
        "reader = iter(feeds)",
        "class R:\n  def __iter__(self): return iter(feeds)\n  def __call__(self): 1 / 0\nreader = R()",
    ],
)
def test_iterables_and_callables_that_give_them_can_be_read_again_and_again(tmp_path: Path, code: str) -> None:
    reader = opened(tmp_path, code)
    assert reader.name == "py:my_reader.py:reader"
    for _ in range(3):
        assert [float(feed["x"][0]) for feed in reader] == [0, 1, 2]


def test_a_generator_function_is_called_again_and_nothing_is_held(tmp_path: Path) -> None:
    reader = opened(tmp_path, "def reader(): yield from feeds\nreader.labels = [4, 5, 6]")
    assert reader.count is None
    assert reader.labels is not None
    assert reader.labels.tolist() == [4, 5, 6]


def test_labels_and_len_are_honoured(tmp_path: Path) -> None:
    code = (
        "class reader:\n  labels = [1, 2, 3]\n  def __iter__(self): return iter(feeds)\n  def __len__(self): return 3"
    )
    reader = opened(tmp_path, code)
    assert len(reader) == 3
    assert reader.labels is not None
    with pytest.raises(DataError, match="2 labels for 3 feeds"):
        opened(tmp_path, code.replace("[1, 2, 3]", "[1, 2]"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def reader():\n  return feeds[0]['q']", "my_reader.py, line 4: KeyError: 'q'"),
        ("raise ValueError('no data here')", "my_reader.py, line 3: ValueError: no data here"),
        ("import sys\nsys.exit(3)", "my_reader.py, line 4: SystemExit: 3"),
        ("def reader(:", "my_reader.py, line 3: SyntaxError"),
        ("import no_such_module_at_all", "my_reader.py, line 3: ModuleNotFoundError"),
        ("import json\nreader = json.loads('')", "my_reader.py, line 4: JSONDecodeError"),
        ("def reader(path): return feeds", "my_reader.py: TypeError.*path"),
        ("reader = []", "no feeds"),
        ("reader = 7", "not a set of feeds"),
    ],
)
def test_what_the_code_raises_is_said_with_file_and_line(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(tmp_path, code)


def test_an_error_in_the_middle_of_an_iteration_is_said_with_its_line(tmp_path: Path) -> None:
    reader = opened(tmp_path, "def reader():\n  yield feeds[0]\n  yield feeds[9]")
    with pytest.raises(DataError, match=r"my_reader.py, line 5: IndexError"):
        list(reader)


def test_the_name_is_asked_for_and_the_nearest_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no 'raeder'\n.*reader"):
        opened(tmp_path, "def reader(): return feeds", "raeder")
    for spec in (f"py:{tmp_path}/my_reader.py", "py:reader", "py:C:\\data\\my_reader.py"):
        with pytest.raises(UsageError, match="names no object"):
            open_spec(spec, MODEL)
    with pytest.raises(DataError, match=r"none.py: no such file"):
        open_spec(f"py:{tmp_path}/none.py:reader", MODEL)


def test_neighbours_can_be_imported_and_nothing_is_written_for_the_script_itself(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_my_reader.py").write_text("value = 7")
    reader = opened(tmp_path, "import neighbour_of_my_reader as n\nreader = [{'x': np.full(1, n.value, np.float32)}]")
    assert [float(feed["x"][0]) for feed in reader] == [7]
    assert not list(tmp_path.glob("**/my_reader*.pyc"))
