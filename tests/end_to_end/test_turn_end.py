"""A student whose end token is not its teacher's: one end is trained, all are stopped at, exported and reported."""

from __future__ import annotations

import json

import pytest
from chat_templates import CHATML
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from mta_framework import InputError
from mta_framework.cli.plan import plan_lines
from mta_framework.data.response_encoding import ResponseEncoder
from mta_framework.generation import transformers_engine
from mta_framework.generation.generate import generate
from mta_framework.models.run_models import RunModels
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind, bind_evaluation
from mta_framework.runs.preparation import prepare_run
from mta_framework.spec.evaluate_request import EvaluateRequest, read_request

pytestmark = pytest.mark.usefixtures("no_page")

TEXTS = ["user assistant capital of France Paris", "Spain Madrid"]
ENDOFTEXT, IM_END = 0, 2


def save(folder, eos, stored=None, template=CHATML):
    """A tiny model of random weights with the ids 0 <|endoftext|>, 1 <|im_start|>, 2 <|im_end|>."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, pad_token="<|endoftext|>")
    tokenizer.chat_template = template
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": 0}
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), num_key_value_heads=2, **shape, **ids)
    model = AutoModelForCausalLM.from_config(config)
    if stored is not None:
        model.generation_config.eos_token_id = stored
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def spec(tmp_path, write_spec):
    """A base student that ends with <|endoftext|>, an instruct teacher that ends with <|im_end|>."""
    save(tmp_path / "teacher", "<|im_end|>")
    save(tmp_path / "student", "<|endoftext|>")
    turns = [{"role": "user", "content": "capital of France"}, {"role": "assistant", "content": "Paris"}]
    (tmp_path / "chat.jsonl").write_text(f"{json.dumps({'messages': turns})}\n" * 4)
    return {
        "name": "run",
        "teacher": {"path": str(tmp_path / "teacher")},
        "student": {"path": str(tmp_path / "student")},
        "data": {"train": {"path": str(tmp_path / "chat.jsonl")}},
        "base_loss": {"name": "kl"},
        "training": {"max_steps": 1, "batch_size": 4},
        "evaluation": {
            "sets": {"test": {"path": str(tmp_path / "chat.jsonl"), "limit": 1}},
            "models": ["student", "teacher", "initial_student"],
            "seeds": [1],
            "max_new_tokens": 4,
        },
        "output_dir": str(tmp_path / "runs"),
    }


@pytest.fixture
def stops(monkeypatch):
    """The tokens that each call of the generation stops at."""
    seen = []

    def spy(model, tokenizer, stop_ids, *rest, **named):
        seen.append(list(stop_ids))
        return generate(model, tokenizer, stop_ids, *rest, **named)

    monkeypatch.setattr(transformers_engine, "generate", spy)
    return seen


def stored_ends(folder):
    return json.loads((folder / "generation_config.json").read_text())["eos_token_id"]


SENTENCE = "A response ends at `<|im_end|>` (also: `<|endoftext|>`)."


def test_all_models_stop_at_the_same_tokens_and_so_does_the_exported_student(spec, write_spec, stops, tmp_path):
    path = write_spec(spec)
    assert SENTENCE in list(plan_lines(pipeline.plan(bind(path, discover()))))
    report = pipeline.run(bind(path, discover()))
    assert stops == [[ENDOFTEXT, IM_END]] * 3
    assert report.response_ends == ("<|im_end|>", "<|endoftext|>")
    assert SENTENCE in (tmp_path / "runs" / "run" / "report.md").read_text()
    exported = tmp_path / "runs" / "run" / "student"
    assert stored_ends(exported) == [ENDOFTEXT, IM_END]
    stops.clear()
    output, data = str(tmp_path / "evaluated"), [f"test={tmp_path / 'chat.jsonl'}"]
    request = EvaluateRequest(
        str(exported), data, "1", template="chat", output=output, overrides=["evaluation.max_new_tokens=4"]
    )
    pipeline.evaluate(bind_evaluation(read_request(request), discover()))
    assert SENTENCE in (tmp_path / "evaluated" / "report.md").read_text()
    assert stops == [[ENDOFTEXT, IM_END]]


def test_training_responses_end_once_with_the_end_of_the_template(spec, write_spec):
    inputs = prepare_run(bind(write_spec(spec), discover()))
    tokenizer = inputs.run_models.tokenizer
    for example in inputs.data.train.examples:
        supervised = example.input_ids[example.prompt_length :].tolist()
        assert tokenizer.decode(supervised) == "Paris<|im_end|>"


@pytest.mark.slow
def test_responses_of_the_student_end_like_those_of_the_data(spec, write_spec, monkeypatch):
    ends = []
    original = ResponseEncoder.__init__

    def spy(encoder, tokenizer, end_id, *rest):
        ends.append(end_id)
        original(encoder, tokenizer, end_id, *rest)

    monkeypatch.setattr(ResponseEncoder, "__init__", spy)
    generation = {"max_new_tokens": 4}
    changes = {
        "base_loss": {"name": "jsd", "params": {"batches": {"policy": "on_policy", "fraction": 1.0}}},
        "training": {**spec["training"], "generation": generation},
        "evaluation": None,
    }
    pipeline.run(bind(write_spec({**spec, **changes}), discover()))
    assert ends == [IM_END]


def test_a_new_student_stops_at_all_the_ends_of_a_teacher_that_has_several(spec, write_spec, tmp_path):
    save(tmp_path / "teacher", "<|endoftext|>", stored=[ENDOFTEXT, IM_END])
    config = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    rows = '{"prompt": "capital of France", "completion": "Paris"}\n' * 4
    (tmp_path / "rows.jsonl").write_text(rows)
    student = {"config": {**config, "num_attention_heads": 2, "num_key_value_heads": 2}}
    data = {"train": {"path": str(tmp_path / "rows.jsonl")}}
    bound = bind(write_spec({**spec, "student": student, "data": data, "evaluation": None}), discover())
    inputs = prepare_run(bound)
    assert inputs.run_models.turn_end.stop_ids == (ENDOFTEXT, IM_END)
    assert inputs.data.train.examples[0].input_ids[-1] == ENDOFTEXT  # rows without a conversation: the tokenizer's


@pytest.mark.slow
def test_the_ends_are_known_alike_before_and_after_the_teacher_s_own_run(spec, write_spec, tmp_path):
    path = write_spec({**spec, "evaluation": None})
    later = {**spec, "name": "later", "teacher": {"run": str(path)}, "evaluation": None}
    bound = bind(write_spec(later, "later.json"), discover())
    before = prepare_run(bound).run_models.turn_end
    pipeline.run(bind(path, discover()))
    after = RunModels(bound.spec, tmp_path / "runs" / "run" / "student").turn_end
    assert before == after
    assert after.stop_ids == (ENDOFTEXT, IM_END)


def test_an_end_that_is_no_token_of_the_student_is_refused_before_anything_is_trained(spec, write_spec, tmp_path):
    save(tmp_path / "student", "<|endoftext|>", template=CHATML.replace("<|im_end|>", "</turn>"))
    with pytest.raises(InputError) as refusal:
        pipeline.plan(bind(write_spec(spec), discover()))
    assert str(refusal.value.faults[0]) == (
        "data.template: the chat template ends an answer with '</turn>', which is no single token of the tokenizer; "
        "expected one token that ends an answer. Add it to the tokenizer as a special token, or use a chat template "
        "that ends answers with such a token."
    )
