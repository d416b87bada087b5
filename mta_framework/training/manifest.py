"""The list of a checkpoint's files, written last: what tells a whole checkpoint from a damaged one."""

from __future__ import annotations

import json
from pathlib import Path

from mta_framework.files import replace

MANIFEST = "files.json"


def list_files(folder: Path) -> None:
    """Write down the files of a folder, with their sizes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    replace(folder / MANIFEST, json.dumps(sizes, indent=2))


def damage(folder: Path) -> str | None:
    """What is wrong with a folder whose files were listed, as half a sentence; None: it is as it was."""
    try:
        sizes: dict[str, int] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, size in sizes.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if (found := path.stat().st_size) != size:
                return f"{name} has {found:,} bytes instead of {size:,}"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    return None
