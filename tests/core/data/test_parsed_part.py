"""What is parsed: nothing that is left out, nothing far behind the limit, nothing while a fault is known."""

from __future__ import annotations

import json

import pytest
from transformers import PreTrainedTokenizerFast

from mta_framework import InputError, PluginParams, SpanExtractor
from mta_framework.data.parsed_part import parsed_part
from mta_framework.data.prepare import prepare
from mta_framework.data.prompts import Sample
from mta_framework.errors import Fault
from mta_framework.models.turn_end import settle_turn_end
from mta_framework.registry import discover
from mta_framework.runs.plugin_binding import bind
from mta_framework.runs.preparation import prepare_run
from mta_framework.runs.summary import reported_data
from mta_framework.spec.data import DataSection

LONG, CONTEXT = 20_000, 20_000
PAIR = {"student": 4, "teacher": 4, "granularity": "words"}


class Recorder(SpanExtractor):
    """The words of a text between single spaces; remembers what it was asked."""

    NAME = "recorder"
    VERSION = "1"

    def __init__(self):
        super().__init__(PluginParams())
        self.asked = []

    @property
    def granularities(self):
        return ("words",)

    def extract(self, texts):
        self.asked += texts
        return [{"words": [(0, len(text.split(" ")[0]))] if text and text[0] != " " else []} for text in texts]


@pytest.fixture
def tokenizer(tokenizer_folder):
    return PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)


def sample(prompt, response, boundaries=()):
    return Sample(prompt, response, (response,), boundaries=boundaries)


def section(tmp_path, rows, **settings):
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return DataSection(train={"path": str(tmp_path / "rows.jsonl")}, **settings)


def test_a_text_of_usual_length_is_parsed_whole(tokenizer):
    one = sample("x" * (LONG // 2), "y" * (LONG // 2), (LONG // 2,))
    assert parsed_part(one, [tokenizer], 8, 4) == (one.text, one.boundaries)


def test_nothing_is_parsed_of_a_long_prompt_that_some_model_has_no_room_for(tokenizer):
    one = sample("z" * (LONG + 1), "y", (LONG + 1,))
    count = len(tokenizer(one.prompt)["input_ids"])
    assert parsed_part(one, [tokenizer], 10**6, count - 1) == ("", ())
    assert parsed_part(one, [tokenizer], 10**6, count) == (one.text, one.boundaries)


def test_a_long_response_is_parsed_up_to_its_last_used_token_and_some_context(tokenizer):
    one = sample("repair ", "lamp " * 50_000, (7,))
    part, boundaries = parsed_part(one, [tokenizer], 16, 8)
    used = tokenizer(one.response, return_offsets_mapping=True)["offset_mapping"][15][1]
    assert part == one.text[: 7 + used + CONTEXT]
    assert boundaries == (7,)
    assert parsed_part(one, [tokenizer], 10**6, 8) == (one.text, one.boundaries)


def test_rows_that_are_left_out_are_never_parsed_and_change_nothing_for_the_others(tmp_path, tokenizer):
    rows = [{"prompt": f"{index} ", "completion": "the lamp"} for index in range(3)]
    huge = {"prompt": "open the door " * 10_000, "completion": "yes"}
    alone, among = Recorder(), Recorder()
    limits = {"max_length": 64, "max_prompt_length": 32}
    expected = prepare(
        section(tmp_path, rows, **limits), tokenizer, settle_turn_end(tokenizer, ()), alone, tmp_path / "a"
    )
    prepared = prepare(
        section(tmp_path, [rows[0], huge, *rows[1:]], **limits),
        tokenizer,
        settle_turn_end(tokenizer, ()),
        among,
        tmp_path / "b",
    )
    assert max(map(len, among.asked)) < 100
    assert prepared.train.too_long == 1
    assert [example.input_ids.tolist() for example in prepared.train.examples] == [
        example.input_ids.tolist() for example in expected.train.examples
    ]
    assert [example.index for example in prepared.train.examples] == [0, 2, 3]
    assert [example.spans["words"].tolist() for example in prepared.train.examples] == [
        example.spans["words"].tolist() for example in expected.train.examples
    ]


def test_a_fault_of_the_validation_rows_comes_before_the_training_texts_are_parsed(tmp_path, tokenizer):
    (tmp_path / "validation.jsonl").write_text("{}\n")
    faulty = section(
        tmp_path, [{"prompt": "a", "completion": "b"}], validation={"path": str(tmp_path / "validation.jsonl")}
    )
    extractor = Recorder()
    with pytest.raises(InputError, match=r"data\.validation: .*validation\.jsonl:1"):
        prepare(faulty, tokenizer, settle_turn_end(tokenizer, ()), extractor, tmp_path)
    assert extractor.asked == []


def test_faults_of_the_machine_and_of_the_rows_come_together_before_any_text_is_parsed(
    spec_dict, write_spec, monkeypatch, tmp_path
):
    (tmp_path / "bad.jsonl").write_text('{"instruction": "a", "output": 5}\n')
    spec_dict["data"]["validation"] = {"path": str(tmp_path / "bad.jsonl")}
    spec_dict["alignment"]["spans"] = {"name": "words"}
    spec_dict["alignment"]["layers"] = {"name": "explicit", "params": {"pairs": [PAIR]}}
    spec_dict["evaluation"]["engine"] = "vllm"
    fault = Fault("evaluation.engine", "cannot run here", "another engine", "Choose it.")
    monkeypatch.setattr("mta_framework.runs.model_checks.engine_fault", lambda *_: fault)
    monkeypatch.setattr("mta_framework.spans.cache.SpanCache.spans", lambda *_: pytest.fail("texts are parsed"))
    with pytest.raises(InputError) as refusal:
        prepare_run(bind(write_spec(spec_dict), discover()))
    assert [fault.where.split(": ")[0] for fault in refusal.value.faults] == ["evaluation.engine", "data.validation"]
    del spec_dict["data"]["validation"]
    with pytest.raises(InputError) as refusal:
        prepare_run(bind(write_spec(spec_dict), discover()))
    assert [fault.where for fault in refusal.value.faults] == ["evaluation.engine"]


def test_unused_keys_are_reported_once_for_each_set(spec_dict, write_spec, tmp_path, tokenizer_folder, caplog):
    row = {"instruction": "a", "output": "b", "context": "c"}
    path = tmp_path / "more.jsonl"
    path.write_text(f"{json.dumps(row)}\n" * 8 + f"{json.dumps(row | {'id': 5})}\n")
    spec_dict |= {"teacher": None, "alignment": None, "base_loss": {"name": "sft"}}
    spec_dict["student"]["tokenizer"] = str(tokenizer_folder)
    spec_dict["data"] = {"train": {"path": str(path)}}
    spec_dict["evaluation"] |= {"sets": {"more": {"path": str(path), "limit": 2}}, "models": ["student"]}
    inputs = prepare_run(bind(write_spec(spec_dict), discover()))
    assert caplog.messages == [
        "data.train: keys of its rows are not used (got context in 9 rows, id in 1 row)",
        "evaluation.sets.more: keys of its rows are not used (got context in 2 rows)",
    ]
    assert reported_data(inputs)["train"].unused == {"context": 9, "id": 1}


def test_texts_whose_long_prompts_are_cut_are_parsed_up_to_their_last_used_token(tokenizer):
    one = sample("repair " * 10_000, "lamp")
    assert parsed_part(one, [tokenizer], 16, 8) == ("", ())
    assert parsed_part(one, [tokenizer], 16, None) == (one.text, ())


def test_rows_with_long_prompts_are_trained_on_their_first_tokens_where_asked(tmp_path, tokenizer):
    rows = [{"prompt": "repair ", "completion": "the lamp"}, {"prompt": "open the door " * 9, "completion": "yes"}]
    data = section(tmp_path, rows, max_length=64, max_prompt_length=8, long_prompts="first_tokens")
    prepared = prepare(data, tokenizer, settle_turn_end(tokenizer, ()), Recorder(), tmp_path / "cache")
    assert (len(prepared.train.examples), prepared.train.too_long, prepared.train.cut_prompts) == (2, 0, 1)
    whole = tokenizer(rows[1]["prompt"])["input_ids"]
    assert prepared.train.examples[1].prompt_ids.tolist() == whole[:8]
    assert tokenizer.decode(prepared.train.examples[1].input_ids[8:].tolist()).startswith("yes")
