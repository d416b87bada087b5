"""What ends a response: settled from the chat template, the tokenizer and the generation settings."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from mta_framework.models.turn_end import settle_turn_end, stored_end_ids

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eom|>"]


def tokenizer(template=None, eos="<|endoftext|>", special=SPECIAL, added=()):
    """The special tokens have the ids 0, 1, ...; then come the words and the tokens that are added."""
    words = {token: index for index, token in enumerate([*special, "a", "b", "[unknown]"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="[unknown]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, additional_special_tokens=list(special))
    whole.add_tokens(list(added))
    whole.chat_template = template
    return whole


def test_the_template_s_end_is_trained_and_the_tokenizer_s_stopped_at_as_well():
    end = settle_turn_end(tokenizer(CHATML), ())
    assert (end.plain_id, end.chat_id, end.stop_ids, end.chat_problem) == (0, 2, (0, 2), "")


def test_without_a_template_the_tokenizer_s_end_is_the_only_one():
    end = settle_turn_end(tokenizer(), ())
    assert (end.plain_id, end.chat_id, end.stop_ids) == (0, None, (0,))
    assert end.chat_problem == "the tokenizer has no chat template"


def test_stored_ends_count_only_where_they_are_special_tokens():
    assert settle_turn_end(tokenizer(CHATML), (3, 4, 99)).stop_ids == (0, 2, 3)


@pytest.mark.parametrize(("named", "ids"), [(None, ()), (7, (7,)), ([7, 2], (7, 2))])
def test_generation_settings_name_no_end_or_one_or_several(named, ids):
    assert stored_end_ids(GenerationConfig(eos_token_id=named)) == ids
    assert stored_end_ids(None) == ()


@pytest.mark.parametrize("ending", ["", " ", "\n\n"])
def test_a_template_that_writes_nothing_after_an_answer_leaves_its_end_to_the_tokenizer(ending):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}" + ending + "{% endfor %}"
    assert settle_turn_end(tokenizer(template), ()).chat_id == 0


def test_nothing_after_the_first_end_of_a_turn_belongs_to_the_answer():
    # Phi-3 ends each turn, and then the conversation.
    template = CHATML + "{{ eos_token }}"
    assert settle_turn_end(tokenizer(template), (0, 2)).chat_id == 2
    assert settle_turn_end(tokenizer(template), ()).chat_id == 2


def test_a_token_that_only_the_last_answer_ends_with_counts_where_there_is_no_other():
    # gpt-oss ends the last answer with another token than those before.
    template = CHATML.replace("<|im_end|>", "{{ '<|im_end|>' if loop.last else '<|eom|>' }}")
    assert settle_turn_end(tokenizer(template), ()).chat_id == 2


def test_a_token_that_only_closes_the_answer_is_passed_over_for_the_end_of_the_turn():
    # Command A writes one token after an answer and another after the turn.
    template = CHATML.replace("<|im_end|>", "<|eom|><|im_end|>")
    assert settle_turn_end(tokenizer(template, eos="<|im_end|>"), ()).chat_id == 2
    assert settle_turn_end(tokenizer(template), ()).chat_id == 3


def test_a_template_may_write_an_answer_in_another_way():
    template = CHATML.replace("m.content", "m.content | upper | tojson")
    assert settle_turn_end(tokenizer(template), ()).chat_id == 2


def test_an_end_may_be_added_without_being_called_special():
    template = CHATML.replace("<|im_end|>", "<turn_end>")
    end = settle_turn_end(tokenizer(template, added=["<turn_end>"]), ())
    assert end.chat_id == 7
    assert end.stop_ids == (0, 7)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (
            CHATML.replace("<|im_end|>", " ### end"),
            "the chat template ends an answer with '### end', which is no single token of the tokenizer",
        ),
        (
            "{{ raise_exception('not so') }}",
            "the chat template refuses a question with its answer (not so)",
        ),
        ("{{ messages[0].content }}", "the chat template leaves out the answer"),
    ],
)
def test_what_cannot_be_settled_is_said(template, problem):
    end = settle_turn_end(tokenizer(template), ())
    assert (end.chat_id, end.stop_ids, end.chat_problem) == (None, (0,), problem)
