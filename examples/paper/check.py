"""Say where a run or a spec departs from the paper's settings.

    python examples/paper/check.py RUN_FOLDER
    python examples/paper/check.py SPEC.json

The settings are those of arXiv 2605.01374v2, and of its authors' code where the paper is silent or the code, which made
the numbers, does something else; such rows say so. Settings that neither of them names are not compared. A run folder
is judged by its ``report.json``; a spec by what it says, without defaults of plugins and sizes of data sets. The exit
status is 1 where a setting differs, 2 where nothing can be compared.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mta_framework.errors import InputError
from mta_framework.evaluation.report import Report, read_report
from mta_framework.spec.reading import read_spec
from mta_framework.types import LayerPair

Verdict = Literal["as in the paper", "differs", "the paper has no such case"]
Layers = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Setting:
    """One row: a field of the spec, its value here, the paper's, and how they compare."""

    name: str
    here: str
    paper: str
    verdict: Verdict


@dataclass(frozen=True)
class _Rule:
    """The paper's values of a field.

    Args:
        name: Dotted name of the field.
        values: Every value that agrees with the paper; empty: the paper has no such case.
        label: The values in words; empty: they are listed.
    """

    name: str
    values: tuple[Any, ...]
    label: str = ""


_OPT: Layers = ((16, 20), (18, 23), (20, 26), (22, 29), (24, 32))
_LAYERS: Mapping[str, tuple[Layers, Layers]] = {
    "GPT-2": (((6, 24), (9, 36), (12, 48)), ((4, 16), (6, 24), (8, 32))),
    "Qwen1.5": (((14, 14), (16, 16), (18, 18), (20, 20), (22, 22), (24, 24)), ((4, 4), (8, 8), (16, 16))),
    "OPT": (_OPT, _OPT),
}
"""Key layers by pair of models, without and with FDD as the base loss: words at the first, phrases at the others."""

_STUDENTS = {"gpt2": "GPT-2", "openai-community/gpt2": "GPT-2", "Qwen/Qwen1.5-0.5B": "Qwen1.5"}
_STUDENTS |= {"facebook/opt-1.3b": "OPT"}
_SETS = {"dolly": 500, "self_inst": 242, "vicuna": 80, "sni": 1694}
_ALWAYS = (
    _Rule("seed", (42,)),
    _Rule("base_loss.name", ("fdd", "distillm", "distillm2")),
    _Rule("data.template", ("alpaca",)),
    _Rule("data.max_length", (256,)),
    _Rule("data.max_prompt_length", (128,)),
    _Rule("data.long_prompts", ("first_tokens",), "first_tokens (authors' code)"),
    _Rule("data.parse", ("text",)),
    _Rule("training.epochs", (5,)),
    _Rule("training.weight_decay", (0.01,)),
    _Rule("training.schedule", ("cosine",)),
    _Rule("training.max_grad_norm", (1.0,)),
    _Rule("training.precision", ("bf16", "fp16")),
)
_TERMS = ("dsa", "hid")
_ALIGNED = (
    _Rule("data.leading_character", ("any",), "any (authors' code)"),
    _Rule("alignment.spans.name", ("spacy_phrases",)),
    _Rule("alignment.spans.params.words", ("within_each_phrase",), "within_each_phrase (authors' code)"),
    _Rule("alignment.importance.name", ("attention",)),
    _Rule("alignment.importance.params.padding_rows", (True,), "true (authors' code)"),
    _Rule("alignment.pooling", (None,), "that of importance"),
    _Rule("alignment.terms.0.params.reduction", ("batch",), "batch (authors' code)"),
    _Rule("alignment.terms.0.params.weights", ("importance",)),
    _Rule("alignment.terms.0.params.max_spans", (None,), "all"),
    _Rule("alignment.terms.1.params.reduction", ("mean",), "mean (authors' code; the equation has a sum)"),
    _Rule("alignment.terms.1.params.weights", ("importance",)),
    _Rule("alignment.projection_learning_rate", (5e-4,)),
)
_EVALUATED = (
    _Rule("evaluation.metrics.0.name", ("rouge_l",)),
    _Rule("evaluation.metrics.0.params.use_stemmer", (True,)),
    _Rule(
        "evaluation.metrics.0.params.references", ("first", "best"), "first (authors' code), best (MiniLLM's protocol)"
    ),
    _Rule("evaluation.seeds", ([10, 20, 30, 40, 50],)),
    _Rule("evaluation.temperature", (0.7,)),
    _Rule("evaluation.top_p", (1.0,)),
    _Rule("evaluation.max_prompt_length", (256,)),
    _Rule("evaluation.max_new_tokens", (512,)),
)
_NOT_IMITATED = (
    "the authors' code labels the student's responses one position late and leaves their end token unsupervised",
    "the authors' code feeds the last token of a text to neither model",
)
"""What every run does otherwise than the authors' code."""

_ABSENT = object()


def settings(report: Report) -> tuple[Setting, ...]:
    """Every setting that the paper names and the run has, those that differ first.

    Args:
        report: Of a run with training; of a spec alone, a report that has a name, the spec and its key layers.
    """
    report = replace(report, spec=_with_sorted_terms(report.spec))
    family = _STUDENTS.get(str(_value(report.spec, "student.hub")))
    rules = [*_ALWAYS, *_of_models(report.spec, family), *_of_base_loss(report.spec)]
    rules += _ALIGNED if report.spec.get("alignment") else ()
    rules += _EVALUATED if report.spec.get("evaluation") else ()
    rows = [_setting(rule, _value(report.spec, rule.name)) for rule in rules]
    return tuple(sorted([*filter(None, rows), *_counted(report, family)], key=lambda row: _ORDER.index(row.verdict)))


def read(path: Path) -> Report:
    """The report of a run folder, or a spec as a report of nothing but itself.

    Raises:
        InputError: There is no such file, it is faulty, or the run trained nothing.
    """
    if path.is_dir():
        return read_report(path)
    reading = read_spec(path)
    if reading.spec is None:
        raise InputError(reading.faults)
    spec = reading.spec.model_dump(mode="json")
    pairs = _value(spec, "alignment.layers.params.pairs")
    pairs = () if pairs is _ABSENT else tuple(LayerPair(**pair) for pair in pairs)
    return Report(spec["name"], spec, layer_pairs=pairs)


def main(path: Path) -> int:
    """Print what differs from the paper; return the exit status."""
    try:
        report = read(path)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if "base_loss" not in report.spec:
        print(f"{path}: is no training run; the paper's settings are those of a distillation", file=sys.stderr)
        return 2
    rows = settings(report)
    for verdict in _ORDER[:2]:
        for row in rows:
            if row.verdict == verdict:
                paper = f"; paper: {row.paper}" if row.paper else ""
                print(f"{row.name}: {verdict} (here: {row.here}{paper})")
    same = sum(row.verdict == _SAME for row in rows)
    print(f"{same} of {len(rows)} settings are as in the paper.")
    for difference in _NOT_IMITATED:
        print(f"Differs in every run: {difference}.")
    return int(any(row.verdict == "differs" for row in rows))


def _of_models(spec: Mapping[str, Any], family: str | None) -> Iterator[_Rule]:
    """Settings that depend on the pair of models."""
    paired = _value(spec, "base_loss.name") == "distillm2"
    rates = {"GPT-2": 1e-4, "Qwen1.5": 5e-5 if paired else 1e-4, "OPT": 5e-4}
    label = f"{', '.join(f'{name} {rate:g}' for name, rate in rates.items())} with LoRA"
    yield _Rule("student.hub", tuple(_STUDENTS), "GPT-2 120M, Qwen1.5 0.5B, OPT 1.3B")
    if family == "OPT":  # the other tokenizers have no such tokens
        yield _Rule("data.add_special_tokens", (False,), "false (authors' code)")
    yield _Rule("training.learning_rate", (rates[family],) if family else (), "" if family else label)
    if spec.get("alignment"):
        factor = {"OPT": 3.0, None: None}.get(family, 2.0)
        weights = (2.0, 3.0) if factor is None else (factor,)
        yield _Rule("alignment.terms.0.weight", weights, "2; OPT 3" * (factor is None))
        tenth = (0.2, 0.3) if factor is None else (round(factor / 10, 1),)
        yield _Rule("alignment.terms.1.weight", tenth, "0.2; OPT 0.3" * (factor is None))


def _of_base_loss(spec: Mapping[str, Any]) -> Iterator[_Rule]:
    name = _value(spec, "base_loss.name")
    paired = name == "distillm2"
    yield _Rule("training.batch_size", (8,) if paired else (16,))
    yield _Rule("training.warmup_ratio", (0.1,) if paired else (0.0,), "" if paired else "none named")
    if name == "distillm":
        yield _Rule("base_loss.params.divergence", ("reverse",))
    if name in {"distillm", "distillm2"}:
        yield _Rule("base_loss.params.skew", (0.1,))
    if name == "distillm":
        yield _Rule("base_loss.params.batches.policy", ("adaptive",))
    if paired:
        yield _Rule("base_loss.params.curriculum", (False,), "false (authors' code; DistiLLM-2's paper has one)")
        yield _Rule("base_loss.params.gradual_beta", (None, 0.5), "off, or 0.5 where it is on (authors' code)")
    if name == "fdd":
        yield _Rule("base_loss.params.temperature", (2.0,) if spec.get("alignment") else (5.0,))


def _with_sorted_terms(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """A spec whose alignment terms are in one order: a sum has none."""
    if not (alignment := spec.get("alignment")):
        return spec
    terms = sorted(alignment["terms"], key=lambda term: (*_TERMS, term["name"]).index(term["name"]))
    return {**spec, "alignment": {**alignment, "terms": terms}}


def _counted(report: Report, family: str | None) -> Iterator[Setting]:
    """Settings that are no single field: key layers, sizes of the data sets."""
    if train := report.data.get("train"):
        here = f"{train.used:,} rows used, {train.left_out:,} left out, {train.cut_prompts:,} with a cut prompt"
        yield Setting("training set", here, "Dolly-15k, 11,435 rows used", _SAME if train.used == 11435 else "differs")
    if alignment := report.spec.get("alignment"):
        names = tuple(term["name"] for term in alignment["terms"])
        here, paper = ", ".join(names), ", ".join(_TERMS)
        yield Setting("alignment terms", here, paper, _SAME if names == _TERMS else "differs")
    if report.layer_pairs:
        yield _layers(report, family)
    if report.evaluation is not None:
        sets = {entry.set: entry.prompts for entry in report.evaluation.sets}
        paper = ", ".join(f"{name} {count:,}" for name, count in _SETS.items())
        here = ", ".join(f"{name} {count:,}" for name, count in sets.items())
        yield Setting("evaluation sets", here, paper, _SAME if sets == _SETS else "differs")


def _layers(report: Report, family: str | None) -> Setting:
    pairs = [(pair.student, pair.teacher) for pair in report.layer_pairs]
    here = ", ".join(f"{pair.student}→{pair.teacher} {pair.granularity}" for pair in report.layer_pairs)
    if family is None:
        return Setting("key layers", here, "by pair of models", _NO_CASE)
    layers = _LAYERS[family][_value(report.spec, "base_loss.name") == "fdd"]
    granularities = ["words", *["phrases"] * (len(layers) - 1)]
    same = pairs == list(layers) and [pair.granularity for pair in report.layer_pairs] == granularities
    paper = ", ".join(
        f"{student}→{teacher} {name}" for (student, teacher), name in zip(layers, granularities, strict=True)
    )
    return Setting("key layers", here, paper, _SAME if same else "differs")


_SAME: Verdict = "as in the paper"
_NO_CASE: Verdict = "the paper has no such case"
_ORDER: tuple[Verdict, ...] = ("differs", _NO_CASE, _SAME)


def _setting(rule: _Rule, value: Any) -> Setting | None:
    if value is _ABSENT:
        return None
    verdict: Verdict = _NO_CASE if not rule.values else _SAME if value in rule.values else "differs"
    return Setting(rule.name, _shown(value), rule.label or " or ".join(map(_shown, rule.values)), verdict)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value(spec: Any, name: str) -> Any:
    """The value of a dotted field, or ``_ABSENT``."""
    for part in name.split("."):
        if isinstance(spec, list) and part.isdigit() and int(part) < len(spec):
            spec = spec[int(part)]
        elif isinstance(spec, Mapping) and part in spec:
            spec = spec[part]
        else:
            return _ABSENT
    return spec


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
