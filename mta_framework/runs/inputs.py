"""The content of a run's inputs, kept in its folder: what a resumed run works with is what it began with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mta_framework.data.records import hub_fingerprint
from mta_framework.errors import Fault, FaultList
from mta_framework.models.fingerprint import Content, model_content, source_contents
from mta_framework.runs.folder import RunFolder, saved_spec
from mta_framework.runs.manifest import export_faults
from mta_framework.runs.plugin_binding import BoundEvaluation, BoundRun
from mta_framework.spec.data import DatasetSection
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.input_fields import data_inputs, model_inputs
from mta_framework.spec.run import RunSpec
from mta_framework.storage import file_digest, read_json

_MOST_NAMED = 3
"""Number of files of a model that a message names."""


def contents(bound: BoundRun | BoundEvaluation) -> dict[str, Content]:
    """Digests of all data sets and models that a spec names, by dotted field, e.g. ``data.train.path``.

    What lies on the hub is identified by commit (models) or fingerprint (data sets). Left out is what cannot be known
    now: the student of a ``teacher.run`` that is not trained, and everything that is missing.

    Raises:
        InputError: The student of ``teacher.run`` is damaged.
    """
    known = data_contents(bound.spec)
    for where, section in model_inputs(bound.spec):
        known |= source_contents(where, section)
    if isinstance(bound, BoundRun) and bound.teacher is not None:
        teacher = RunFolder.of(bound.teacher.spec)
        if teacher.is_trained:
            FaultList(export_faults(teacher)).raise_any()
            known["teacher.run"] = model_content(teacher.student)
    return known


def data_contents(spec: RunSpec | EvaluationSpec, section: str = "") -> dict[str, Content]:
    """The same of the data sets alone, or of those of one section of the spec."""
    known: dict[str, Content] = {}
    for where, part in data_inputs(spec):
        if where.startswith(section):
            known |= _data_content(where, part)
    return known


def changed_inputs(bound: BoundRun, folder: RunFolder) -> Iterator[Fault]:
    """Yield a fault for every input whose content is not what the run in ``folder`` began with.

    An evaluation set under another path than before is another set, which a resumed run may have.
    """
    try:
        began: dict[str, dict[str, str]] = read_json(folder.inputs)
        now_is = contents(bound)
        pairs = {name: (dict(began[name]), now_is[name]) for name in now_is if name in began}
    except (OSError, ValueError, TypeError) as error:
        problem = f"cannot be read (got {type(error).__name__}: {error})"
        hint = "Put it back, choose another name for the run, or delete the folder."
        yield Fault(str(folder.inputs), problem, "the digests of the inputs that the run began with", hint)
        return
    for where, (then, now) in pairs.items():
        if then != now and not (where.startswith("evaluation.") and _names_another(where, bound, folder)):
            yield _fault(where, then, now, folder)


def _names_another(where: str, bound: BoundRun, folder: RunFolder) -> bool:
    """Whether a set of the evaluation, such as ``evaluation.sets.test.path``, is read from elsewhere than before."""
    name = where.removeprefix("evaluation.sets.").rpartition(".")[0]
    sets = (saved_spec(bound.spec, folder).get("evaluation") or {}).get("sets") or {}
    section = bound.spec.evaluation.sets[name] if bound.spec.evaluation else None
    return section is None or sets.get(name) != section.model_dump(mode="json")


def _fault(where: str, then: Mapping[str, str], now: Mapping[str, str], folder: RunFolder) -> Fault:
    differing = [name for name in dict.fromkeys([*then, *now]) if then.get(name) != now.get(name)]
    named = ", ".join(f"{name} {now.get(name, 'absent')[:12]}" for name in differing[:_MOST_NAMED])
    expected = ", ".join(f"{name} {then.get(name, 'absent')[:12]}" for name in differing[:_MOST_NAMED])
    more = f" and {len(differing) - _MOST_NAMED} more" if len(differing) > _MOST_NAMED else ""
    problem = f"has other content than the run began with by {folder.inputs} (got {named}{more})"
    hint = "Put it back, choose another name, or delete the folder."
    if where.startswith("evaluation."):
        hint = "Put it back, or give the set another name."
    return Fault(where, problem, f"{expected}{more}", hint)


def _data_content(where: str, part: DatasetSection) -> dict[str, Content]:
    if part.path is not None:
        return {f"{where}.path": {"sha256": file_digest(Path(part.path))}} if Path(part.path).is_file() else {}
    fingerprint = hub_fingerprint(part)
    return {f"{where}.hub": {"fingerprint": fingerprint}} if fingerprint else {}
