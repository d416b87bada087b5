"""Uploads exported students and their model cards to the Hugging Face hub. No torch.

The token is huggingface_hub's own: from ``HF_TOKEN`` or a login. No field of a spec leads here.
"""

from __future__ import annotations

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from mta_framework.errors import Fault, FaultList, InputError, RunError, first_line
from mta_framework.runs.folder import RunFolder
from mta_framework.runs.manifest import export_faults


def open_repository(name: str, where: str, public: bool = False) -> str:
    """Create the repository of a model unless it exists, so that a name or token that is refused is known at once.

    Args:
        name: ``REPO``, in the namespace of the user, or ``OWNER/REPO``.
        where: Argument of the command line that names it, for errors.
        public: Whether a new repository is public; an existing one stays as it is.

    Returns:
        Full id of the repository.

    Raises:
        InputError: The name is none, there is no token, the hub cannot be reached, or it refuses.
    """
    if fault := _fault(name, where):
        raise InputError([fault])
    try:
        return huggingface_hub.HfApi().create_repo(name, private=not public, exist_ok=True).repo_id
    except Exception as error:  # of the network, the hub or its client, which have no base in common
        problem = f"cannot be opened on the hub (got {name!r}: {first_line(error)})"
        expected, hint = "a repository that the token may write to", "Check name, token and network, then try again."
        raise InputError([Fault(where, problem, expected, hint)]) from error


def upload(folder: RunFolder, repository: str) -> str:
    """Upload the exported student of a finished run, with its card, as one commit.

    Args:
        folder: Folder of the run.
        repository: Id of a repository that exists.

    Returns:
        Address of the commit.

    Raises:
        RunError: The upload failed; the run is complete all the same.
    """
    try:
        commit = huggingface_hub.HfApi().upload_folder(
            repo_id=repository,
            folder_path=folder.student,
            commit_message=f"Upload {folder.path.name}, distilled with mta-framework",
        )
    except Exception as error:  # see open_repository
        raise RunError(
            f"{repository}: the upload failed ({first_line(error)}). The run is complete and nothing of it is lost. "
            f"Try again: mta push {folder.path} {repository}"
        ) from error
    return str(commit.commit_url)


def require_pushable(folder: RunFolder) -> None:
    """Refuse a folder without a finished run, or whose exported student is damaged.

    Raises:
        InputError: It holds none, or files of the student are not as the run wrote them.
    """
    if not folder.is_finished:
        hint = "Name the folder runs/NAME; a run that is not finished goes on by mta run SPEC --resume."
        raise InputError([Fault("RUN", f"holds no finished run (got {folder.path})", "the folder of a run", hint)])
    FaultList(export_faults(folder)).raise_any()


def _fault(name: str, where: str) -> Fault | None:
    try:
        validate_repo_id(name)
    except HFValidationError:
        problem, expected = f"is not the name of a repository (got {name!r})", "REPO or OWNER/REPO"
        return Fault(where, problem, expected, "Use letters, digits, '-', '_' and '.'.")
    if constants.is_offline_mode():
        problem, hint = "cannot be reached: HF_HUB_OFFLINE is set", "Unset it, or push later: mta push RUN REPO."
        return Fault(where, problem, "access to the hub", hint)
    if huggingface_hub.get_token() is None:
        hint = "Log in by `hf auth login`, or set HF_TOKEN."
        return Fault(where, "cannot be written to without a token", "a token with write access", hint)
    return None
