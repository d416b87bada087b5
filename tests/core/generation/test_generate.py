"""Generation in batches: what is decoded, when it ends, and what it leaves behind."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import GenerationConfig

from mta_framework.errors import InputError
from mta_framework.generation.generate import generate
from mta_framework.generation.sampling_settings import Sampling, prompt_seeds

ENDS = [40]
PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 35], [8], [9, 7, 9, 3], [2, 3]]
GREEDY = Sampling(temperature=0, top_p=1.0, max_new_tokens=8, batch_tokens=32)
SAMPLED = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=8, batch_tokens=32)


def greedy_by_hand(model, prompt, length, end=40):
    """No batch, no padding, no cache."""
    model.eval()
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(length):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == end:
                return ids[len(prompt) : -1]
    return ids[len(prompt) :]


def test_padded_batches_decode_as_each_prompt_alone_in_the_order_given(model, tokenizer):
    expected = [greedy_by_hand(copy.deepcopy(model), prompt, 8) for prompt in PROMPTS]
    generations = generate(model, tokenizer, ENDS, PROMPTS, GREEDY, prompt_seeds(0, 5), "test")
    assert [list(generation.ids) for generation in generations] == expected
    assert len({tuple(ids) for ids in expected}) > 1


def test_response_ends_at_the_end_token_which_is_not_part_of_it(model, tokenizer):
    prompt = PROMPTS[1]
    free = greedy_by_hand(copy.deepcopy(model), prompt, 8)
    length = next(index for index in range(1, len(free)) if free[index] not in free[:index])
    end = free[length]
    changed = copy.deepcopy(tokenizer)
    changed.eos_token = tokenizer.convert_ids_to_tokens(end)
    [generation] = generate(model, changed, [changed.eos_token_id], [prompt], GREEDY, [0], "test")
    assert list(generation.ids) == free[:length]
    assert generation.finished
    assert generation.text == " ".join(f"w{token_id}" for token_id in free[:length] if token_id < 40)


def test_response_that_runs_out_of_tokens_is_not_finished(llama, tokenizer):
    [generation] = generate(llama, tokenizer, ENDS, [[5]], GREEDY, [0], "test")
    assert len(generation.ids) == 8
    assert not generation.finished


def test_text_has_no_special_tokens(llama, tokenizer):
    with torch.no_grad():
        llama.lm_head.weight[:] = 0
        llama.lm_head.weight[42] = llama.model.norm.weight
        llama.model.embed_tokens.weight[:] = 1
        [generation] = generate(llama, tokenizer, ENDS, [[5]], GREEDY, [0], "test")
    assert generation.ids in {(42,) * 8, (0,) * 8}
    assert "<turn>" not in generation.text


def test_same_seed_gives_the_same_responses_and_another_seed_others(model, tokenizer):
    first, again, changed = (
        generate(model, tokenizer, ENDS, PROMPTS, SAMPLED, prompt_seeds(seed, 5), "test") for seed in (10, 10, 20)
    )
    assert first == again
    assert first != changed


def test_nothing_is_left_behind(model, tokenizer):
    stored = model.generation_config
    frozen = next(model.children())
    frozen.eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    generate(model, tokenizer, ENDS, PROMPTS, SAMPLED, prompt_seeds(10, 5), "test")
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert model.generation_config is stored
    assert True in modes
    assert False in modes


def test_nothing_is_left_behind_by_a_failure(llama, tokenizer):
    stored, state = llama.generation_config, torch.get_rng_state()
    llama.train()
    with pytest.raises(IndexError):
        generate(llama, tokenizer, ENDS, [[5], [1000]], SAMPLED, [1, 2], "test")
    assert llama.generation_config is stored
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in llama.modules())


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_stored_generation_settings_do_not_count(llama, tokenizer, sampling):
    expected = generate(llama, tokenizer, ENDS, PROMPTS, sampling, prompt_seeds(10, 5), "test")
    likely = list(expected[0].ids[:2])
    llama.generation_config = GenerationConfig(
        do_sample=True,
        top_k=1,
        temperature=0.1,
        repetition_penalty=3.0,
        suppress_tokens=likely,
        min_new_tokens=3,
        max_length=4,
        num_beams=2,
    )
    assert generate(llama, tokenizer, ENDS, PROMPTS, sampling, prompt_seeds(10, 5), "test") == expected


def next_token_distribution(model, prompt, temperature):
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -1].double()
    return torch.softmax(logits / temperature, dim=-1)


def fits(counts, expected):
    """Pearson's chi-square test at 0.1 % (quantile by Wilson and Hilferty); the ten rarest tokens are one class."""
    order = expected.argsort()
    observed, predicted = (
        torch.cat([values[order[:10]].sum()[None], values[order[10:]]]) for values in (counts, expected)
    )
    predicted = predicted * counts.sum()
    assert predicted.min() >= 5
    freedom = len(observed) - 1
    limit = freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3
    return float(((observed - predicted) ** 2 / predicted).sum()) < limit


@pytest.mark.parametrize("temperature", [0.7, 1.6])
def test_sampling_follows_the_whole_distribution_at_its_temperature(llama, tokenizer, temperature):
    with torch.no_grad():
        llama.lm_head.weight *= 0.3
    draws = 12000
    expected = next_token_distribution(llama, [3, 1], temperature)
    sampling = Sampling(temperature, 1.0, max_new_tokens=1, batch_tokens=3000)
    generations = generate(llama, tokenizer, ENDS, [[3, 1]] * draws, sampling, prompt_seeds(1, draws), "test")
    drawn = torch.tensor([generation.ids[0] if generation.ids else 40 for generation in generations])
    counts = torch.bincount(drawn, minlength=43).double()
    assert fits(counts, expected)
    assert not fits(counts, next_token_distribution(llama, [3, 1], temperature * 1.5))


def test_nucleus_leaves_out_the_tail(llama, tokenizer):
    expected = next_token_distribution(llama, [3, 1], 1.0)
    ordered, tokens = expected.sort(descending=True)
    size = int((ordered.cumsum(0) < 0.6).sum()) + 1
    sampling = Sampling(1.0, 0.6, max_new_tokens=1, batch_tokens=1500)
    generations = generate(llama, tokenizer, ENDS, [[3, 1]] * 500, sampling, prompt_seeds(1, 500), "test")
    assert {generation.ids[0] for generation in generations} == set(tokens[:size].tolist())


def test_no_prompts_give_no_generations(llama, tokenizer):
    assert generate(llama, tokenizer, ENDS, [], GREEDY, [], "test") == []


def test_empty_prompt_starts_from_a_special_token(llama, tokenizer):
    [empty, _] = generate(llama, tokenizer, ENDS, [[], [3, 4]], GREEDY, [0, 1], "test")
    assert list(empty.ids) == greedy_by_hand(llama, [40], 8)


def test_prompt_without_room_for_a_response_is_refused_with_both_lengths(llama, tokenizer):
    with pytest.raises(InputError, match=r"a prompt of 60 tokens and a response of 8 .* 64 positions"):
        generate(llama, tokenizer, ENDS, [[1], [2] * 60], GREEDY, [0, 1], "test")


def test_prompt_that_just_fits_is_answered(model, tokenizer):
    [generation] = generate(model, tokenizer, ENDS, [[2] * 56], GREEDY, [0], "test")
    assert list(generation.ids) == greedy_by_hand(model, [2] * 56, 8)


def test_adapters_count(llama, tokenizer):
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(copy.deepcopy(llama), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=1.0)
    adapted = generate(wrapped, tokenizer, ENDS, PROMPTS, GREEDY, prompt_seeds(0, 5), "test")
    merged = copy.deepcopy(wrapped).merge_and_unload()
    assert [list(generation.ids) for generation in adapted] == [greedy_by_hand(merged, ids, 8) for ids in PROMPTS]
    assert adapted != generate(llama, tokenizer, ENDS, PROMPTS, GREEDY, prompt_seeds(0, 5), "test")


def test_autocast_of_the_caller_is_obeyed(llama, tokenizer):
    seen = []
    llama.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        generate(llama, tokenizer, ENDS, [[3, 1]], SAMPLED, [0], "test")
    assert set(seen) == {torch.bfloat16}


def test_progress_is_shown_on_standard_error(llama, tokenizer, capsys):
    generate(llama, tokenizer, ENDS, PROMPTS, GREEDY, prompt_seeds(0, 5), "student, dolly, seed 10")
    shown = capsys.readouterr()
    assert "student, dolly, seed 10" in shown.err
    assert "5/5" in shown.err
    assert not shown.out


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_responses_are_made_of_the_tokenizers_tokens(llama, tokenizer, temperature):
    prompts, sampling = [[1, 2, 3], [4]], Sampling(temperature, 1.0, 12, 30)
    expected = generate(llama, tokenizer, ENDS, prompts, sampling, [1, 2], None)
    llama.resize_token_embeddings(64, mean_resizing=False)
    llama.lm_head.weight.data[43:] = 3 * llama.lm_head.weight.data[:21]
    # Padding of the vocabulary changes nothing, however probable the model finds it.
    assert generate(llama, tokenizer, ENDS, prompts, sampling, [1, 2], None) == expected
