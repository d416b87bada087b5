"""The files of a report and of a comparison."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mta_framework.evaluation.report import Report, read_report
from mta_framework.reporting import report_files
from mta_framework.reporting.report_files import write_report


def test_report_is_written_whole(tmp_path, report):
    (tmp_path / "student").mkdir()
    write_report(tmp_path, report)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["files.json", "report.html", "report.json", "report.md", "student/README.md"]
    assert read_report(tmp_path) == report


def test_report_of_a_run_that_did_little_is_written_too(tmp_path):
    write_report(tmp_path, Report("bare", {"name": "bare"}))
    assert read_report(tmp_path) == Report("bare", {"name": "bare"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files.json", "report.html", "report.json", "report.md"]


def test_data_are_written_last_so_that_a_report_with_them_is_whole(tmp_path, report, monkeypatch):
    order = []
    monkeypatch.setattr(report_files, "write_atomically", lambda path, content: order.append(Path(path).name))
    monkeypatch.setattr(report_files, "add_to_manifest", lambda folder, name: order.append(f"digest of {name}"))
    (tmp_path / "student").mkdir()
    write_report(tmp_path, report)
    assert order[-2:] == ["report.json", "digest of report.json"]
    assert sorted(order[:-1]) == ["README.md", "report.html", "report.json", "report.md"]


def test_page_that_cannot_be_made_leaves_the_earlier_report(tmp_path, report):
    write_report(tmp_path, report)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    broken = dataclasses.replace(report, geometry=(None,))
    with pytest.raises(AttributeError):
        write_report(tmp_path, broken)
    assert (tmp_path / "report.json").read_bytes() == before["report.json"]
    assert (tmp_path / "report.html").read_bytes() == before["report.html"]
