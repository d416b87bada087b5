"""The engines of training: what they are asked, what they give, and where they do not run."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from mta_framework.errors import RunError
from mta_framework.generation import vllm_engine
from mta_framework.generation.engine import Engine, SavedModel
from mta_framework.generation.engines import engine_fault, make_engine
from mta_framework.generation.generate import generate
from mta_framework.generation.sampling_settings import Generation, Sampling, prompt_seeds

ENDS = [40]
PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6], []]
SEEDS = prompt_seeds(1, 3)


FIELD = "evaluation.engine"


def sampled(temperature, top_p=1.0):
    return Sampling(temperature, top_p, max_new_tokens=6, batch_tokens=24)


class Lossy(Engine):
    """Gives as many responses as it was told to."""

    name = "lossy"

    def __init__(self, count):
        self.count = count

    def _generate(self, by, prompt_ids, sampling, seeds, version, progress_label, done):
        return [Generation((), "", True)] * self.count


@pytest.mark.parametrize("count", [0, 2, 4])
def test_engine_that_gives_more_or_fewer_responses_than_prompts_stops_the_run(count):
    with pytest.raises(RunError, match=rf"lossy .* student .* 3 prompts \(got {count}\)"):
        Lossy(count).generate("student", PROMPTS, sampled(1.0), SEEDS)


def test_engine_is_not_asked_without_prompts():
    assert Lossy(5).generate("student", [], sampled(1.0), []) == []


def test_transformers_engine_generates_with_the_model_as_it_is_now(model, llama, tokenizer, tmp_path):
    engine = make_engine("transformers", {"student": model, "teacher": llama}, tokenizer, ENDS, tmp_path)
    sampling = sampled(0.9)
    for version in range(2):
        expected = generate(model, tokenizer, ENDS, PROMPTS, sampling, SEEDS, None)
        assert engine.generate("student", PROMPTS, sampled(0.9), SEEDS, version=version) == expected
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(-1.0)
    expected = generate(llama, tokenizer, ENDS, PROMPTS, sampling, SEEDS, None)
    assert engine.generate("teacher", PROMPTS, sampled(0.9), SEEDS) == expected
    assert not list(tmp_path.iterdir())


def test_transformers_engine_shows_no_progress(llama, tokenizer, tmp_path, capsys):
    make_engine("transformers", {"student": llama}, tokenizer, ENDS, tmp_path).generate(
        "student", PROMPTS, sampled(1.0), SEEDS
    )
    assert "prompt" not in capsys.readouterr().err


class StandIn:
    """In the place of vLLM: loads what was exported, and answers as it is documented to."""

    def __init__(self):
        self.started, self.running, self.asked = [], 0, []
        self.module = ModuleType("vllm")
        self.module.LLM, self.module.SamplingParams = self.start, SimpleNamespace

    def start(self, **options):
        assert self.running == 0
        self.running += 1
        self.started.append(options)
        model = AutoModelForCausalLM.from_pretrained(options["model"], dtype=getattr(torch, options["dtype"]))
        core = SimpleNamespace(shutdown=self.stop)
        return SimpleNamespace(
            generate=lambda *arguments, **named: self.generate(model.eval(), *arguments, **named),
            llm_engine=SimpleNamespace(engine_core=core),
        )

    def stop(self):
        self.running -= 1

    def generate(self, model, prompts, asked, use_tqdm):
        self.progress = use_tqdm
        self.asked = list(zip(prompts, asked, strict=True))
        return [self.output(model, prompt["prompt_token_ids"], params) for prompt, params in self.asked]

    def output(self, model, prompt, params):
        assert params.ignore_eos
        assert not params.detokenize
        ids, reason = list(prompt), "length"
        with torch.no_grad():
            for _ in range(params.max_tokens):
                logits = model(torch.tensor([ids])).logits[0, -1]
                for token_id, bias in (params.logit_bias or {}).items():
                    logits[token_id] += bias
                ids.append(int(logits.argmax()))
                if ids[-1] in params.stop_token_ids:
                    reason = "stop"
                    break
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(ids[len(prompt) :]), finish_reason=reason)])


@pytest.fixture
def vllm(monkeypatch):
    """A stand-in that counts what is running."""
    stand_in = StandIn()
    stand_in.module.__spec__ = importlib.util.spec_from_loader("vllm", loader=None)
    monkeypatch.setitem(sys.modules, "vllm", stand_in.module)
    return stand_in


def test_vllm_engine_gives_what_the_live_model_gives(vllm, model, tokenizer, tmp_path):
    engine = make_engine("vllm", {"student": model}, tokenizer, ENDS, tmp_path / "engine")
    expected = generate(model, tokenizer, ENDS, PROMPTS, sampled(0.0), SEEDS, None)
    assert engine.generate("student", PROMPTS, sampled(0.0), SEEDS) == expected
    assert vllm.running == 0
    assert next(model.children()).training


def test_vllm_engine_is_reported_of_ids_that_are_no_tokens(vllm, llama, tokenizer, tmp_path):
    llama.resize_token_embeddings(48, mean_resizing=False)
    llama.lm_head.weight.data[43:] = 3 * llama.lm_head.weight.data[:5]
    engine = make_engine("vllm", {"student": llama}, tokenizer, ENDS, tmp_path / "engine")
    expected = generate(llama, tokenizer, ENDS, PROMPTS, sampled(0.0), SEEDS, None)
    assert engine.generate("student", PROMPTS, sampled(0.0), SEEDS) == expected
    assert {tuple(params.logit_bias) for _, params in vllm.asked} == {(43, 44, 45, 46, 47)}


def test_vllm_engine_ends_responses_where_transformers_does(vllm, llama, tokenizer, tmp_path):
    [free] = generate(llama, tokenizer, ENDS, PROMPTS[:1], sampled(0.0), SEEDS[:1], None)
    changed = tokenizer.__class__.from_pretrained(_saved(tokenizer, tmp_path / "tokenizer"))
    changed.eos_token = tokenizer.convert_ids_to_tokens(free.ids[1])
    engine = make_engine("vllm", {"student": llama}, changed, [changed.eos_token_id], tmp_path)
    [ended] = engine.generate("student", PROMPTS[:1], sampled(0.0), SEEDS[:1])
    assert ended.finished
    assert ended.ids == free.ids[: free.ids.index(free.ids[1])]


def _saved(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    return folder


def test_vllm_engine_asks_with_one_seed_per_prompt_and_for_the_room_that_is_needed(vllm, llama, tokenizer, tmp_path):
    engine = make_engine("vllm", {"student": llama}, tokenizer, ENDS, tmp_path)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        engine.generate("student", PROMPTS, sampled(0.8), SEEDS)
    assert [prompt["prompt_token_ids"] for prompt, _ in vllm.asked] == [*PROMPTS[:2], [40]]
    assert [params.seed for _, params in vllm.asked] == SEEDS
    assert {params.temperature for _, params in vllm.asked} == {0.8}
    [options] = vllm.started
    assert options["dtype"] == "bfloat16"
    assert options["max_model_len"] == 5 + 6
    assert options["max_num_seqs"] == 2
    assert options["skip_tokenizer_init"]
    assert options["generation_config"] == "vllm"
    assert 0 < options["gpu_memory_utilization"] < 1


def test_vllm_engine_exports_the_student_when_it_has_changed_and_the_teacher_once(
    vllm, model, llama, tokenizer, tmp_path, monkeypatch
):
    exported = []
    save = vllm_engine.save_student
    monkeypatch.setattr(
        vllm_engine, "save_student", lambda *arguments: exported.append(arguments[3].name) or save(*arguments)
    )
    engine = make_engine("vllm", {"student": model, "teacher": llama}, tokenizer, ENDS, tmp_path)
    first = engine.generate("student", PROMPTS, sampled(0.0), SEEDS)
    assert engine.generate("student", PROMPTS, sampled(0.0), SEEDS) == first
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(-1.0)
    assert engine.generate("student", PROMPTS, sampled(0.0), SEEDS, version=1) != first
    for version in range(3):
        engine.generate("teacher", PROMPTS, sampled(0.0), SEEDS, version=version)
    assert exported == ["student", "student", "teacher"]
    assert list((tmp_path / "student").glob("*.safetensors"))


def test_vllm_is_stopped_when_it_fails(vllm, llama, tokenizer, tmp_path, monkeypatch):
    engine = make_engine("vllm", {"student": llama}, tokenizer, ENDS, tmp_path)
    monkeypatch.setattr(vllm, "output", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.generate("student", PROMPTS, sampled(0.0), SEEDS)
    assert vllm.running == 0


def test_response_of_vllm_without_its_last_token_counts_as_finished(vllm, llama, tokenizer, tmp_path, monkeypatch):
    engine = make_engine("vllm", {"student": llama}, tokenizer, ENDS, tmp_path)
    output = SimpleNamespace(token_ids=(3, 4), finish_reason="stop")
    monkeypatch.setattr(vllm, "output", lambda *arguments: SimpleNamespace(outputs=[output]))
    assert engine.generate("student", [[5]], sampled(0.0), [1]) == [Generation((3, 4), "w3 w4", True)]


def test_missing_vllm_is_a_fault_that_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    fault = engine_fault("vllm", FIELD)
    assert str(fault).startswith("evaluation.engine: vllm is not installed (got 'vllm')")
    assert str(fault).endswith("install vllm.")
    assert engine_fault("transformers", FIELD) is None


def test_vllm_with_several_processes_is_a_fault(vllm, monkeypatch):
    several = SimpleNamespace(num_processes=2)
    monkeypatch.setattr("mta_framework.generation.engines.processes", lambda: several)
    assert "this run has 2" in str(engine_fault("vllm", FIELD))


def test_vllm_is_imported_only_where_it_is_chosen(vllm, llama, tokenizer, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "mta_framework.generation.vllm_engine")
    make_engine("transformers", {"student": llama}, tokenizer, ENDS, tmp_path)
    assert "mta_framework.generation.vllm_engine" not in sys.modules
    assert not vllm.started


@pytest.mark.parametrize("name", ["transformers", "vllm"])
def test_every_response_is_reported_once_with_its_index(vllm, llama, tokenizer, tmp_path, name):
    engine, calls = make_engine(name, {"student": llama}, tokenizer, ENDS, tmp_path), []
    generations = engine.generate(
        "student", PROMPTS, sampled(0.0), SEEDS, on_finished=lambda *arguments: calls.append(arguments)
    )
    assert sorted(index for index, _ in calls) == [0, 1, 2]
    assert [generation for _, generation in sorted(calls, key=lambda call: call[0])] == generations


@pytest.mark.parametrize("label", [None, "student, dolly"])
def test_vllm_shows_progress_where_there_is_a_label(vllm, llama, tokenizer, tmp_path, label):
    engine = make_engine("vllm", {"student": llama}, tokenizer, ENDS, tmp_path)
    engine.generate("student", PROMPTS, sampled(0.0), SEEDS, progress_label=label)
    assert vllm.progress == (label is not None)


def test_vllm_loads_a_folder_as_it_is(vllm, llama, tokenizer, tmp_path):
    llama.resize_token_embeddings(48, mean_resizing=False)
    llama.save_pretrained(tmp_path / "model")
    expected = generate(llama, tokenizer, [40, 42], PROMPTS, sampled(0.0), SEEDS, None)
    saved = {"student": SavedModel(tmp_path / "model", "float32")}
    engine = make_engine("vllm", saved, tokenizer, [40, 42], tmp_path / "engine")
    assert engine.generate("student", PROMPTS, sampled(0.0, top_p=0.5), SEEDS) == expected
    assert vllm.started[0]["model"] == str(tmp_path / "model")
    [(_, params), *_] = vllm.asked
    assert (params.stop_token_ids, params.top_p, tuple(params.logit_bias)) == ([40, 42], 0.5, (43, 44, 45, 46, 47))
    assert not (tmp_path / "engine").exists()


def test_vllm_writes_as_many_responses_at_once_as_the_tokens_allow(vllm, llama, tokenizer, tmp_path):
    engine = make_engine("vllm", {"student": llama}, tokenizer, ENDS, tmp_path)
    engine.generate("student", PROMPTS, Sampling(0.0, 1.0, 6, batch_tokens=1), SEEDS)
    engine.generate("student", PROMPTS, Sampling(0.0, 1.0, 6, batch_tokens=33), SEEDS)
    assert [options["max_num_seqs"] for options in vllm.started] == [1, 3]
