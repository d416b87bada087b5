"""Runs that are made once per session, whichever process of the tests comes first, and copied to whom asks for them."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock


@dataclass(frozen=True)
class FinishedRuns:
    """Use the fixture ``run_once``.

    Args:
        kept: Folder that all processes of the session share.
        folder: Folder of the test; its specs, its data and ``runs/`` lie there.
    """

    kept: Path
    folder: Path

    def __call__(self, spec: Path):  # type: ignore[no-untyped-def]
        """Make ``runs/`` what running the spec makes it, and return the report of the run.

        The spec, its teacher's and the rows may name paths below the folder of the test: copies name those of their
        own test.
        """
        from mta_framework.evaluation.report import read_report
        from mta_framework.registry import discover
        from mta_framework.runs import pipeline
        from mta_framework.runs.plugin_binding import bind

        bound = bind(spec, discover())
        source = self.kept / self._digest(spec)
        with FileLock(f"{source}.lock"):
            if source.is_dir():
                self._copy_from(source)
            else:
                pipeline.run(bound)
                self._keep(source)
        return read_report(Path(bound.spec.folder))

    def _digest(self, spec: Path) -> str:
        files = [spec, *sorted(self.folder.glob("*.jsonl"))]
        if spec.name != "teacher.json":
            files.append(self.folder / "teacher.json")
        content = "\0".join(path.read_text(encoding="utf-8") for path in files if path.is_file())
        return hashlib.sha256(content.replace(str(self.folder), "").encode()).hexdigest()[:16]

    def _keep(self, source: Path) -> None:
        unfinished = source.with_suffix(".unfinished")
        shutil.copytree(self.folder / "runs", unfinished / "runs")
        (unfinished / "made-in").write_text(str(self.folder), encoding="utf-8")
        unfinished.rename(source)

    def _copy_from(self, source: Path) -> None:
        from mta_framework.storage import add_to_manifest

        shutil.copytree(source / "runs", self.folder / "runs", dirs_exist_ok=True)
        made_in = (source / "made-in").read_text(encoding="utf-8")
        for path in (self.folder / "runs").rglob("*.json"):
            # What lies in a checkpoint is of a size that the checkpoint knows.
            if "checkpoints" not in path.parts and made_in in (text := path.read_text(encoding="utf-8")):
                path.write_text(text.replace(made_in, str(self.folder)), encoding="utf-8")
                if path.name == "report.json":
                    add_to_manifest(path.parent, path.name)
