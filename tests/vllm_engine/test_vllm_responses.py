"""Responses of vLLM itself: greedy ones are those of transformers, and sampled ones are drawn from the softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy.stats import chisquare
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm_worker import end_worker

from mta_framework.errors import RunError
from mta_framework.generation.engines import make_engine
from mta_framework.generation.generate import generate
from mta_framework.generation.sampling_settings import Sampling, prompt_seeds
from mta_framework.spec.section import expected_temperature

ENDS = [40, 42]
ONE_TOKEN, EMPTY, AT_THE_LIMIT = [7], [], [5, 6] * 29
PROMPTS = [[3, 1, 4], ONE_TOKEN, EMPTY, AT_THE_LIMIT, [1, 5, 9, 2, 6], [3, 1, 4]]
SEEDS = prompt_seeds(1, len(PROMPTS))
# The first call decides how much memory vLLM takes for its cache.
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=6, batch_tokens=20_000)


@pytest.fixture(scope="module")
def tokenizer():
    """Ids 0 to 39 are words; 40 is the end token, 41 padding, 42 ends a turn."""
    vocabulary = {f"w{index}": index for index in range(40)} | {"<end>": 40, "<pad>": 41, "<turn>": 42}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": "<end>", "pad_token": "<pad>", "additional_special_tokens": ["<turn>"]}
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)


@pytest.fixture(scope="module")
def student(llama_config):
    """With adapters, in training mode; ids beyond the tokenizer's are the likeliest."""
    torch.manual_seed(4)
    model = LlamaForCausalLM(llama_config)
    model.lm_head.weight.data[43:] *= 3
    model.model.norm.weight.data.fill_(0.3)  # or one token would have all probability
    return get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.5)).train()


@pytest.fixture(scope="module")
def engine(student, tokenizer, tmp_path_factory):
    engine = make_engine("vllm", {"student": student}, tokenizer, ENDS, tmp_path_factory.mktemp("engine"), 64)
    yield engine
    engine.close()


def expected(student, tokenizer):
    return generate(student, tokenizer, ENDS, PROMPTS, GREEDY, SEEDS, None)


def train(student):
    """Change the adapters, as a step does."""
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)


def test_greedy_responses_follow_the_weights_of_a_student_with_adapters(engine, student, tokenizer):
    first = engine.generate("student", PROMPTS, GREEDY, SEEDS)
    assert first == expected(student, tokenizer)
    assert all(max(response.ids, default=0) < 43 for response in first)
    assert len(first[PROMPTS.index(AT_THE_LIMIT)].ids) == 6
    [process] = engine._running.values()
    for version in (1, 2):
        train(student)
        assert engine.generate("student", PROMPTS, GREEDY, SEEDS, version=version) == expected(student, tokenizer)
    assert list(engine._running.values()) == [process]
    assert expected(student, tokenizer) != first


@pytest.mark.parametrize("tied", [False, True])
def test_greedy_responses_follow_the_weights_of_the_head(llama_config, tokenizer, tmp_path, tied):
    torch.manual_seed(5)
    sizes = {"vocab_size": 256, "tie_word_embeddings": tied}
    model = LlamaForCausalLM(LlamaConfig(**llama_config.to_dict() | sizes)).eval()
    engine, answers = make_engine("vllm", {"student": model}, tokenizer, ENDS, tmp_path / "engine", 64), []
    for version in range(3):
        model.lm_head.weight.data.normal_(std=0.3)
        answers.append(engine.generate("student", PROMPTS, GREEDY, SEEDS, version=version))
        assert answers[-1] == expected(model, tokenizer)
        assert answers[-1] not in answers[:-1]
    engine.close()


def test_both_ends_of_a_turn_end_a_response_and_are_left_out(engine, student):
    sampling = Sampling(1.0, 1.0, 40, 20_000)
    responses = engine.generate("student", [[3, 1, 4]] * 60, sampling, prompt_seeds(2, 60), version=2)
    assert {response.finished for response in responses} == {True, False}
    assert not {token_id for response in responses for token_id in response.ids} & set(ENDS)
    assert all(response.finished == (len(response.ids) < 40) for response in responses)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (2.0, 1.0), (1.5, 0.8)])
def test_first_tokens_are_drawn_from_the_softmax(engine, student, temperature, top_p):
    """By chi-square, with the probabilities in float64; both ends and what is expected seldom count as one outcome."""
    draws, prompt = 2000, [3, 1, 4]
    sampling = Sampling(temperature, top_p, 1, 20_000)
    responses = engine.generate("student", [prompt] * draws, sampling, prompt_seeds(3, draws), version=2)
    with torch.no_grad():
        logits = student.eval()(torch.tensor([prompt])).logits[0, -1, :43].double().numpy()
    student.train()
    weights = np.exp((logits - logits.max()) / temperature)
    descending = np.argsort(-weights)
    outside = np.cumsum(weights[descending]) - weights[descending] >= top_p * weights.sum()
    weights[descending[outside]] = 0
    expected = weights / weights.sum() * draws
    counts = np.bincount([response.ids[0] if response.ids else ENDS[0] for response in responses], minlength=43)
    assert set(np.flatnonzero((counts > 0) & (weights == 0))) <= {ENDS[0]}
    rest = expected < 5
    rest[ENDS] = True
    assert (~rest).sum() >= 5
    merged = ([*values[~rest], values[rest].sum()] for values in (counts, expected))
    assert chisquare(*merged).pvalue > 1e-3


def test_a_response_depends_on_its_call_alone(engine):
    """Not on what vLLM has cached of earlier prompts, nor on when requests reach it."""
    sampling = Sampling(1.0, 1.0, 6, 20_000)
    first = engine.generate("student", PROMPTS, sampling, SEEDS, version=2)
    engine.generate("student", [[3, 1, 4, 1], *PROMPTS[::-1]], sampling, [0, *SEEDS], version=2)
    assert engine.generate("student", PROMPTS, sampling, SEEDS, version=2) == first
    assert engine.generate("student", PROMPTS, sampling, SEEDS[::-1], version=2) != first


@pytest.mark.parametrize("temperature", [0.0, 0.009, 0.01, 2.0, 2.001])
def test_a_spec_may_ask_for_the_temperatures_that_vllm_samples_at(temperature):
    try:
        is_offered = SamplingParams(temperature=temperature).temperature == temperature
    except VLLMValidationError:
        is_offered = False
    assert (expected_temperature("vllm", temperature) is None) == is_offered


def test_a_temperature_that_vllm_refuses_is_a_sentence(engine):
    with pytest.raises(RunError, match=r"temperature must be in \[0, 2\], got 3"):
        engine.generate("student", PROMPTS, Sampling(3.0, 1.0, 1, 20_000), SEEDS, version=2)


def test_a_worker_that_dies_is_a_sentence_and_the_next_call_starts_anew(engine, student, tokenizer):
    engine.generate("student", PROMPTS, GREEDY, SEEDS, version=2)
    end_worker()
    with pytest.raises(RunError, match=r"^generation: vLLM stopped, with the model student \(got "):
        engine.generate("student", PROMPTS, GREEDY, SEEDS, version=2)
    assert engine.generate("student", PROMPTS, GREEDY, SEEDS, version=2) == expected(student, tokenizer)
