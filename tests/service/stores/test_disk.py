"""What lasts is on disk whole or not at all."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.stores.disk import BLOCK, append_line, mend, staged


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a disk that is full: a write beyond so many bytes is cut, and the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_line_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state" / "lines"
    append_line(path, "first")
    with files_of_at_most(10), pytest.raises(OSError, match="File too large"):
        append_line(path, "second, which is too long")
    append_line(path, "third")
    assert path.read_text() == "first\nthird\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="ascii", categories=["L"]), max_size=9), max_size=3), st.integers(0, 3))
def test_half_a_line_is_removed_and_whole_ones_stay(tmp_path: Path, lines: list[str], size: int) -> None:
    path, whole = tmp_path / "lines", "".join(line + "\n" for line in lines)
    path.write_text(whole + "x" * (size * BLOCK // 2))
    mend(path)
    assert path.read_text() == whole
    path.write_text(whole + "x" * size)
    append_line(path, "next")
    assert path.read_text() == whole + "next\n"


def test_there_may_be_nothing_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file", tmp_path / "file" / "below"):
        mend(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_staged_counts_once_all_that_belongs_to_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "state" / "file.json"
    with staged(path, {"a": 1}):
        assert not path.exists()
    with pytest.raises(KeyError), staged(path, {"a": 2}):
        raise KeyError
    with files_of_at_most(10), pytest.raises(OSError, match="File too large"), staged(path, ["long"] * 10):
        pytest.fail("what is staged does not fit")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == [path.name]
