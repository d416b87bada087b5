"""Runs whose teacher has another tokenizer than the student."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mta_framework import InputError, pipeline
from mta_framework.binding import bind
from mta_framework.registry import discover


@pytest.fixture
def pair(spec_dict, rows_file, tmp_path):
    """The usual spec, but with a student whose tokenizer is a unigram model; the teacher's is byte-level."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    texts = [" ".join(json.loads(line).values()) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    tokenizer.train_from_iterator([*texts, "### Instruction: ### Input: ### Response:" * 20], trainer)
    own = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    own.save_pretrained(tmp_path / "unigram")
    student = {**spec_dict["student"], "tokenizer": str(tmp_path / "unigram")}
    data = {**spec_dict["data"], "max_length": 400, "max_prompt_length": 350}
    return {**spec_dict, "student": student, "data": data}


@pytest.mark.slow
@pytest.mark.parametrize("base_loss", ["uld", "sft"])
def test_run_with_alignment_ends_with_scores_of_both(base_loss, pair, write_spec, tmp_path):
    report = pipeline.run(bind(write_spec({**pair, "base_loss": {"name": base_loss}}), discover()))
    logged = [entry for entry in report.log if base_loss in entry]
    assert len(logged) == 4
    assert logged[-1]["hid"] < logged[0]["hid"]
    assert all(entry["dsa"] > 0 for entry in logged)
    assert {score.model for score in report.evaluation.scores} == {"student", "teacher", "initial_student"}
    exported = AutoTokenizer.from_pretrained(tmp_path / "runs" / "student" / "student")
    assert exported.tokenize("the lamp")[0].startswith("▁")


def test_losses_on_tokens_are_refused_with_those_that_do_without(pair, write_spec):
    with pytest.raises(InputError) as refusal:
        pipeline.plan(bind(write_spec(pair), discover()))
    (fault,) = refusal.value.faults
    assert str(fault).startswith("student.tokenizer: differs from the teacher's in ")
    assert str(fault).endswith(
        "base loss 'kl' compares tokens, and needs the same one for each id that both have. "
        "Take models of one family, or a base loss that does without: sft, uld."
    )


def test_chat_template_and_layers_of_the_teacher_are_refused(pair, write_spec):
    layers = {"teacher_layers": [1, 4], "tokenizer": pair["student"]["tokenizer"]}
    changes = {"base_loss": {"name": "uld"}, "student": layers, "data": {**pair["data"], "template": "chat"}}
    with pytest.raises(InputError) as refusal:
        pipeline.plan(bind(write_spec({**pair, **changes}), discover()))
    told = "\n".join(map(str, refusal.value.faults))
    assert "student.tokenizer: is another one than the teacher's" in told
    assert "data.template: would give teacher and student different texts" in told
