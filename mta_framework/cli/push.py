"""``mta push``."""

from __future__ import annotations

from pathlib import Path

import click

from mta_framework.cli.group import say


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("repository", metavar="REPO")
@click.option("--public", is_flag=True, help="Create the repository as a public one; an existing one stays as it is.")
def push(folder: Path, repository: str, public: bool) -> None:
    """Upload a student and its model card to the Hugging Face hub.

    RUN is the folder of a finished run, REPO the name of a repository, with or without its owner. A new repository is
    private. The token is that of `hf auth login` or HF_TOKEN.
    """
    from mta_framework.runs.folder import RunFolder
    from mta_framework.runs.upload import open_repository, require_pushable, upload

    run = RunFolder(folder)
    require_pushable(run)
    opened = open_repository(repository, "REPO", public)
    say(f"Pushed: {upload(run, opened)}")
