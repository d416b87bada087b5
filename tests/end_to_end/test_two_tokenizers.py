"""Runs whose teacher has another tokenizer than the student."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer

from mta_framework import InputError
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind


@pytest.mark.slow
@pytest.mark.usefixtures("trained_teacher")
@pytest.mark.parametrize("base_loss", ["alm", "uld", "sft"])
def test_run_with_alignment_ends_with_scores_of_both(base_loss, two_tokenizers, write_spec, tmp_path):
    report = pipeline.run(bind(write_spec({**two_tokenizers, "base_loss": {"name": base_loss}}), discover()))
    logged = [entry for entry in report.log if base_loss in entry]
    assert len(logged) == 4
    assert logged[-1]["hid"] < logged[0]["hid"]
    assert all(entry["dsa"] > 0 for entry in logged)
    for entry in report.geometry:
        assert len(entry.labels) == len(entry.teacher) == len(entry.after) > 1
        assert None not in (entry.agreement_before, entry.agreement_after)
    assert {score.model for score in report.evaluation.scores} == {"student", "teacher", "initial_student"}
    exported = AutoTokenizer.from_pretrained(tmp_path / "runs" / "student" / "student")
    assert exported.tokenize("the lamp")[0].startswith("▁")


def test_losses_on_tokens_are_refused_with_those_that_do_without(two_tokenizers, write_spec):
    with pytest.raises(InputError) as refusal:
        pipeline.plan(bind(write_spec(two_tokenizers), discover()))
    (fault,) = refusal.value.faults
    assert str(fault).startswith("student.tokenizer: differs from the teacher's in ")
    assert str(fault).endswith(
        "expected one token for each id that both have, as base loss 'kl' compares tokens. "
        "Take models of one family, or a base loss that does without: alm, none, sft, uld."
    )


def test_chat_template_and_layers_of_the_teacher_are_refused(two_tokenizers, write_spec):
    layers = {"teacher_layers": [1, 4], "tokenizer": two_tokenizers["student"]["tokenizer"]}
    changes = {"base_loss": {"name": "uld"}, "student": layers, "data": {**two_tokenizers["data"], "template": "chat"}}
    with pytest.raises(InputError) as refusal:
        pipeline.plan(bind(write_spec({**two_tokenizers, **changes}), discover()))
    message = "\n".join(map(str, refusal.value.faults))
    assert "student.tokenizer: is not that of the teacher" in message
    assert "data.template: would give teacher and student different texts" in message


@pytest.mark.slow
@pytest.mark.usefixtures("trained_teacher")
@pytest.mark.parametrize("base_loss", ["alm", "uld"])
def test_every_cut_gives_the_loss_and_gradient_of_the_whole_batch(
    base_loss, two_tokenizers, write_spec, tmp_path, one_step
):
    training = {**two_tokenizers["training"], "max_steps": 1}
    terms = [{"name": name, "weight": 1.0} for name in ("dsa", "hid", "span_logits")]
    terms += [{"name": "hidden_mse", "weight": 1.0, "params": {"positions": "spans"}}]
    changes = {"base_loss": {"name": base_loss}, "training": training, "evaluation": None}
    path = write_spec({**two_tokenizers, **changes, "alignment": {**two_tokenizers["alignment"], "terms": terms}})
    losses, gradients = one_step(path, tmp_path / "1x8", 8)
    for size in (4, 1):
        cut_losses, cut_gradients = one_step(path, tmp_path / f"cut-{size}", size)
        assert cut_losses == pytest.approx(losses, rel=1e-5)
        for name, expected in gradients.items():
            tolerance = 1e-5 * expected.abs().max().item() + 1e-8
            torch.testing.assert_close(cut_gradients[name], expected, rtol=1e-4, atol=tolerance, msg=name)
