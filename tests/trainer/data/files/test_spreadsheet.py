"""Spreadsheets: sheets, cells of every type, and files that are none."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from tunechat.serve.contract.errors import InvalidData
from tunechat.trainer.data.files import spreadsheet
from tunechat.trainer.data.files.spreadsheet import read_spreadsheet
from tunechat.trainer.data.record import Record


@pytest.fixture
def workbook(tmp_path: Path) -> Path:
    """An empty sheet, then one with an empty row in front."""
    book = Workbook()
    sheet = book.create_sheet("DrugQA")
    for row in ([], ["Question", None, "ANSWER"], ["how much?", "note", 3.0], [None, None, None], ["and?", "", 2.5]):
        sheet.append(row)
    path = tmp_path / "MedQA.xlsx"
    book.save(path)
    return path


def test_rows_of_the_first_sheet_that_has_any(workbook: Path) -> None:
    error, last = read_spreadsheet(workbook)
    assert isinstance(error, Record) and error.value == {"Question": "how much?", "ANSWER": "3"}
    assert error.place.line == 3
    assert isinstance(last, Record) and last.value["ANSWER"] == "2.5" and last.place.line == 5


def test_a_sheet_by_its_name(workbook: Path) -> None:
    assert len(list(read_spreadsheet(workbook, "DrugQA"))) == 2
    with pytest.raises(InvalidData, match="the sheets are: Sheet, DrugQA"):
        list(read_spreadsheet(workbook, "Other"))
    with pytest.raises(InvalidData, match="no sheet has any rows"):
        list(read_spreadsheet(workbook, "Sheet"))


def test_what_is_no_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(b"\xd0\xcf\x11\xe0 an old .xls")
    with pytest.raises(InvalidData, match=r"no \.xlsx file"):
        list(read_spreadsheet(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(InvalidData, match="no readable spreadsheet"):
        list(read_spreadsheet(path))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_is_an_error_of_ours(workbook: Path, data: st.DataObject) -> None:
    raw = bytearray(workbook.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=3)):
        raw[place] = data.draw(st.integers(0, 255))
    damaged = workbook.with_name("damaged.xlsx")
    damaged.write_bytes(raw)
    with contextlib.suppress(InvalidData):
        list(read_spreadsheet(damaged))


def test_what_unpacks_to_too_much_is_refused_unread(workbook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheet, "MAX_UNPACKED", 1000)
    with pytest.raises(InvalidData, match="too large"):
        list(read_spreadsheet(workbook))
