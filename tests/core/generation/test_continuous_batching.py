"""One batch that rows leave and enter: the same responses, less work, memory at once or never."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from mta_framework.errors import RunError
from mta_framework.generation.generate import generate
from mta_framework.generation.kv_cache import RowCache, supports_continuous_batching
from mta_framework.generation.sampling_settings import Sampling, prompt_seeds

ENDS = [40]
DRAW = random.Random(8)
PROMPTS = [[DRAW.randrange(40) for _ in range(DRAW.choice([1, 2, 3, 5, 8, 13, 21]))] for _ in range(64)]
SEEDS = prompt_seeds(5, 64)
SIZES = {
    "vocab_size": 43,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 41,
}
GROUPED = SIZES | {"num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 8, "tie_word_embeddings": False}
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES = {
    "gpt2": SIZES,
    "opt": SIZES | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "llama": GROUPED,
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "mistral": GROUPED | {"sliding_window": 4},
    "gemma": GROUPED,
    "gemma2": GROUPED | {"sliding_window": 4, "layer_types": SLIDING},
    "gemma3_text": GROUPED | {"sliding_window": 4, "layer_types": SLIDING},
    "gpt_neox": SIZES | {"intermediate_size": 48},
    "bloom": {name: size for name, size in SIZES.items() if name != "max_position_embeddings"},
}
SUMMING = {
    "mamba": {"vocab_size": 43, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "eos_token_id": None},
    "lfm2": GROUPED | {"layer_types": ["conv", "full_attention", "conv"], "rope_theta": 1e4},
}


def model_of(model_type, fields):
    torch.manual_seed(2)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **fields)).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "A_log" not in name:
            torch.nn.init.normal_(parameter, std=0.4)
    return model


@pytest.fixture(params=list(FAMILIES))
def family(request):
    """A tiny model of each family."""
    return model_of(request.param, FAMILIES[request.param])


def responses(model, tokenizer, rows, temperature=0.9, top_p=1.0, prompts=PROMPTS, seeds=SEEDS, **options):
    longest, new = max(map(len, prompts)), 12
    sampling = Sampling(temperature, top_p, new, batch_tokens=rows * (longest + new))
    return generate(model, tokenizer, [tokenizer.eos_token_id], prompts, sampling, seeds, None, **options)


def alone(model, prompt, end=40):
    """What transformers' own greedy decoding writes, without company."""
    stored, model.generation_config = model.generation_config, GenerationConfig()
    ids = torch.tensor([prompt])
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 41}
    written = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(prompt) :].tolist()
    model.generation_config = stored
    return written[: written.index(end)] if end in written else written


def lasting(model, tokenizer, prompts=PROMPTS):
    """A greedy response to every prompt, with an end token that some responses meet early and others never."""
    free = [alone(model, prompt, end=None) for prompt in prompts]
    met = [[ids.index(token) for ids in free if token in ids] for token in range(40)]
    end = max(range(40), key=lambda token: (len(set(met[token])), token))
    changed = copy.deepcopy(tokenizer)
    changed.eos_token = tokenizer.convert_ids_to_tokens(end)
    return changed, [ids[: ids.index(end)] if end in ids else ids for ids in free]


def test_greedy_responses_are_those_of_transformers_whatever_enters_and_leaves(family, tokenizer):
    assert supports_continuous_batching(family, ["past_key_values"])
    prompts, seeds = PROMPTS[:16], SEEDS[:16]
    ending, expected = lasting(family, tokenizer, prompts)
    assert len({len(ids) for ids in expected}) > 2
    generations = responses(family, ending, 3, temperature=0, prompts=prompts, seeds=seeds)
    assert [list(row.ids) for row in generations] == expected


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_sampled_responses_are_the_same_with_1_3_and_64_rows_in_any_order(llama, tokenizer, top_p):
    together = responses(llama, tokenizer, 64, top_p=top_p)
    assert len({generation.ids for generation in together}) > 30
    for rows in (1, 3):
        assert responses(llama, tokenizer, rows, top_p=top_p) == together
    order = random.Random(1).sample(range(64), 64)
    shuffled = [PROMPTS[row] for row in order], [SEEDS[row] for row in order]
    again = responses(llama, tokenizer, 7, top_p=top_p, prompts=shuffled[0], seeds=shuffled[1])
    assert again == [together[row] for row in order]


def test_sampled_responses_of_every_family_do_not_depend_on_what_enters_and_leaves(family, tokenizer):
    asked = {"prompts": PROMPTS[:16], "seeds": SEEDS[:16]}
    together = responses(family, tokenizer, 16, **asked)
    assert len({generation.ids for generation in together}) > 8
    assert responses(family, tokenizer, 3, **asked) == together


@pytest.mark.parametrize("model_type", list(SUMMING))
def test_models_whose_caches_cannot_be_taken_apart_respond_in_fixed_batches(tokenizer, model_type):
    model, written = model_of(model_type, SUMMING[model_type]), []
    assert not supports_continuous_batching(model, ["past_key_values"])
    expected = [alone(model, prompt) for prompt in PROMPTS[:6]]
    generations = responses(
        model, tokenizer, 2, 0, prompts=PROMPTS[:6], seeds=SEEDS[:6], on_finished=lambda *each: written.append(each)
    )
    assert [list(generation.ids) for generation in generations] == expected
    assert sorted(written) == list(enumerate(generations))
    sampled = [responses(model, tokenizer, rows, 1.0, prompts=PROMPTS[:6], seeds=SEEDS[:6]) for rows in (1, 4)]
    assert sampled[0] == sampled[1]


def widths_read(model, work):
    """(rows, tokens) of every forward pass."""
    shapes = []
    hook = model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: shapes.append(tuple(inputs[0].shape))
    )
    work()
    hook.remove()
    return shapes


def test_rows_with_the_same_prompt_are_read_once_and_written_as_each_alone(llama, tokenizer):
    prompts, seeds = [[3, 1, 4, 1, 5]] * 6 + [[9, 2]], prompt_seeds(1, 7)
    generations = []
    shapes = widths_read(
        llama, lambda: generations.extend(responses(llama, tokenizer, 8, prompts=prompts, seeds=seeds))
    )
    assert shapes[0] == (2, 5)
    assert shapes[1] == (7, 1)
    each = [
        responses(llama, tokenizer, 1, prompts=[prompt], seeds=[seed])[0]
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    assert generations == each
    assert len({generation.ids for generation in generations[:6]}) > 1


def test_no_more_rows_are_held_than_the_tokens_allow_and_the_cache_never_grows(llama, tokenizer, monkeypatch):
    caches = []
    made = RowCache.__init__
    monkeypatch.setattr(
        RowCache, "__init__", lambda cache, *sizes: caches.append((cache, sizes)) or made(cache, *sizes)
    )
    ending, _ = lasting(llama, tokenizer)
    shapes = widths_read(llama, lambda: responses(llama, ending, 4))
    [(cache, sizes)] = caches
    assert sizes == (4, 21 + 12)
    assert max(rows for rows, _ in shapes) == 4
    assert {tuple(layer.keys.shape) for layer in cache.layers} == {(4, 2, 33, 8)}
    shapes = widths_read(
        llama, lambda: generate(llama, ending, [ending.eos_token_id], PROMPTS, Sampling(1.0, 1.0, 12, 1), SEEDS, None)
    )
    assert max(rows for rows, _ in shapes) == 1


def test_finished_responses_make_room_at_once(llama, tokenizer):
    ending, expected = lasting(llama, tokenizer)
    tokens = sum(len(ids) + (len(ids) < 12) for ids in expected)
    shapes = widths_read(llama, lambda: responses(llama, ending, 4, temperature=0))
    # Places that are read: one for each token but the first, and no more than that once waiting rows fill them all.
    assert sum(rows for rows, width in shapes if width == 1) <= tokens


def test_every_response_is_handed_over_once_when_it_is_finished(llama, tokenizer):
    ending, expected = lasting(llama, tokenizer)
    written = []
    generations = responses(llama, ending, 64, temperature=0, on_finished=lambda *each: written.append(each))
    assert sorted(written) == list(enumerate(generations))
    steps = [min(len(expected[index]) + 1, 12) for index, _ in written]
    assert steps == sorted(steps)


def test_what_was_handed_over_before_a_failure_is_the_response(llama, tokenizer):
    ending, _ = lasting(llama, tokenizer)
    expected, written = responses(llama, ending, 4), {}

    def on_finished(index, generation):
        written[index] = generation
        if len(written) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        responses(llama, ending, 4, on_finished=on_finished)
    assert len(written) == 20
    assert all(expected[index] == generation for index, generation in written.items())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_stop_the_run(llama, tokenizer, temperature):
    with torch.no_grad():
        llama.model.norm.weight[:] = torch.nan
    with pytest.raises(RunError, match="NaN or infinite"):
        responses(llama, tokenizer, 4, temperature)


def test_one_token_at_most_needs_no_second_reading(llama, tokenizer):
    shapes = widths_read(
        llama,
        lambda: generate(llama, tokenizer, ENDS, PROMPTS, Sampling(1.0, 1.0, 1, 10_000), SEEDS, None),
    )
    assert len(shapes) == 1


def test_prompts_of_length_0_and_1_go_with_long_ones(family, tokenizer):
    prompts = [[], [7], list(range(30)), [7]]
    generations = responses(family, tokenizer, 3, 0, prompts=prompts, seeds=SEEDS[:4])
    assert [list(row.ids) for row in generations] == [alone(family, prompt or [40]) for prompt in prompts]


def test_rows_that_would_change_each_other_beyond_a_length_are_written_one_by_one(tokenizer):
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0, 3.0, 2.0, 1.0]}
    rotary = {"rope_type": "longrope", "rope_theta": 1e4, **factors}
    fields = {name: size for name, size in GROUPED.items() if name != "head_dim"}
    model = model_of("phi3", fields | {"original_max_position_embeddings": 16, "rope_parameters": rotary})
    together = responses(model, tokenizer, 16, prompts=PROMPTS[:16], seeds=SEEDS[:16])
    for row, generation in enumerate(together):
        assert responses(model, tokenizer, 1, prompts=[PROMPTS[row]], seeds=[SEEDS[row]]) == [generation]
