"""The engines of training: what they are asked, what they give, and where they do not run."""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from mta_framework.errors import InputError, RunError
from mta_framework.generation.engine import Engine, SavedModel
from mta_framework.generation.engines import engine_fault, make_engine
from mta_framework.generation.generate import generate
from mta_framework.generation.sampling_settings import Generation, Sampling, prompt_seeds

ENDS = [40]
PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6], []]
SEEDS = prompt_seeds(1, 3)
LONGEST = 16
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
    engine = make_engine("transformers", {"student": model, "teacher": llama}, tokenizer, ENDS, tmp_path, LONGEST)
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
    make_engine("transformers", {"student": llama}, tokenizer, ENDS, tmp_path, LONGEST).generate(
        "student", PROMPTS, sampled(1.0), SEEDS
    )
    assert "prompt" not in capsys.readouterr().err


class StandIn:
    """In the place of vLLM: loads what was exported, answers greedily, and notes what it was asked for, in order.

    Tests with vLLM itself are in ``tests/vllm_engine``. Here are those of what vLLM does not have on a CPU (memory that
    is given back), of what is passed to it, and of failures at every point.
    """

    def __init__(self):
        self.started, self.calls, self.params, self.running = [], [], [], 0
        self.module = ModuleType("vllm")
        self.module.LLM = self.start
        self.sampling_params = ModuleType("vllm.sampling_params")
        self.sampling_params.RequestOutputKind = SimpleNamespace(FINAL_ONLY="final only")
        self.sampling_params.SamplingParams = SimpleNamespace
        self.llm_engine = SimpleNamespace(
            engine_core=SimpleNamespace(shutdown=self.stop),
            add_request=self.add_request,
            has_unfinished_requests=lambda: bool(self.requests),
            step=self.step,
        )
        self.requests = {}

    def start(self, **options):
        self.running += 1
        self.started.append(options)
        self.load()
        return self

    def load(self):
        options = self.started[-1]
        self.model = AutoModelForCausalLM.from_pretrained(options["model"], dtype=getattr(torch, options["dtype"]))

    def stop(self, timeout):
        self.running -= 1

    def sleep(self, level):
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags):
        self.calls.append(f"wake up {' '.join(tags)}")

    def reset_prefix_cache(self):
        self.calls.append("forget prompts")

    def collective_rpc(self, method):
        self.calls.append(method)
        self.load()

    def add_request(self, request_id, prompt, params):
        self.requests[request_id] = (prompt["prompt_token_ids"], params)
        self.params.append(params)

    def step(self):
        """Finishes the latest request: the order is not that of the prompts."""
        request_id, request = self.requests.popitem()
        return [SimpleNamespace(request_id=request_id, finished=True, outputs=[self.output(*request)])]

    @torch.no_grad()
    def output(self, prompt, params):
        assert params.ignore_eos
        assert not params.detokenize
        assert params.output_kind == "final only"
        ids, reason = list(prompt), "length"
        for _ in range(params.max_tokens):
            logits = self.model.eval()(torch.tensor([ids])).logits[0, -1]
            for token_id, bias in (params.logit_bias or {}).items():
                logits[token_id] += bias
            ids.append(int(logits.argmax()))
            if ids[-1] in params.stop_token_ids:
                reason = "stop"
                break
        return SimpleNamespace(token_ids=tuple(ids[len(prompt) :]), finish_reason=reason)


@pytest.fixture
def vllm(monkeypatch):
    """A stand-in that counts what is running."""
    stand_in = StandIn()
    stand_in.module.__spec__ = importlib.util.spec_from_loader("vllm", loader=None)
    monkeypatch.setitem(sys.modules, "vllm", stand_in.module)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", stand_in.sampling_params)
    return stand_in


@pytest.fixture
def gpu(monkeypatch):
    """A GPU, as far as the engine asks for one."""
    memory = SimpleNamespace(is_available=lambda: True, empty_cache=lambda: None, mem_get_info=lambda: (30, 100))
    monkeypatch.setattr(
        "mta_framework.generation.vllm_process.torch", SimpleNamespace(cuda=memory, float32=torch.float32)
    )


@pytest.fixture
def engine(vllm, llama, tokenizer, tmp_path):
    """The engine vllm with a student and a teacher of the same weights."""
    return make_engine("vllm", {"student": llama, "teacher": llama}, tokenizer, ENDS, tmp_path / "engine", LONGEST)


def turned(model):
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(-1.0)


RESPONSE = ["sleep 0", "forget prompts", "wake up scheduling"]


def test_vllm_is_started_once_and_given_new_weights(vllm, engine, llama, tokenizer):
    for version in range(3):
        expected = generate(llama, tokenizer, ENDS, PROMPTS, sampled(0.0), SEEDS, None)
        assert engine.generate("student", PROMPTS, sampled(0.0), SEEDS, version=version) == expected
        assert engine.generate("student", PROMPTS, sampled(0.0), SEEDS, version=version) == expected
        turned(llama)
    assert vllm.calls == [*RESPONSE * 2, *["reload_weights", *RESPONSE * 2] * 2]
    assert len(vllm.started) == vllm.running == 1
    engine.close()
    assert vllm.running == 0


def test_exports_are_gone_after_close_and_made_anew_by_the_next_call(vllm, engine, tmp_path):
    first = engine.generate("student", PROMPTS, sampled(0.0), SEEDS)
    assert (tmp_path / "engine" / "student").is_dir()
    engine.close()
    assert not list(tmp_path.iterdir())
    assert engine.generate("student", PROMPTS, sampled(0.0), SEEDS) == first
    (tmp_path / "engine" / "notes.txt").touch()
    engine.close()
    assert [path.name for path in (tmp_path / "engine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("adapters", [False, True])
def test_vllm_reads_the_head_of_a_tied_student_with_its_other_weights(vllm, llama, tokenizer, tmp_path, adapters):
    """Its builds for CPUs keep a tied head as it was at the start."""
    tied = LlamaForCausalLM(LlamaConfig(**llama.config.to_dict() | {"tie_word_embeddings": True}))
    student = get_peft_model(tied, LoraConfig(r=2, target_modules=["q_proj"])) if adapters else tied
    engine = make_engine("vllm", {"student": student}, tokenizer, ENDS, tmp_path / "engine", LONGEST)
    for version in range(2):
        turned(tied)
        engine.generate("student", PROMPTS, sampled(0.0), SEEDS, version=version)
        weights = load_file(tmp_path / "engine" / "student" / "model.safetensors")
        assert torch.equal(weights["lm_head.weight"], tied.get_input_embeddings().weight)
        assert torch.equal(weights["model.embed_tokens.weight"], tied.get_input_embeddings().weight)
    assert not AutoConfig.from_pretrained(tmp_path / "engine" / "student").tie_word_embeddings
    assert tied.config.tie_word_embeddings
    assert tied.lm_head.weight is tied.get_input_embeddings().weight


def test_a_family_whose_head_vllm_always_ties_is_exported_as_it_is(vllm, tokenizer, tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "head_dim": 8, "vocab_size": 43}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    gemma = Gemma2ForCausalLM(Gemma2Config(**sizes, **heads, bos_token_id=None, eos_token_id=None))
    engine = make_engine("vllm", {"student": gemma}, tokenizer, ENDS, tmp_path / "engine", LONGEST)
    engine.generate("student", PROMPTS, sampled(0.0), SEEDS)
    assert AutoConfig.from_pretrained(tmp_path / "engine" / "student").tie_word_embeddings
    assert "lm_head.weight" not in load_file(tmp_path / "engine" / "student" / "model.safetensors")


def test_a_teacher_is_exported_once(vllm, engine, tmp_path):
    for version in range(3):
        engine.generate("teacher", PROMPTS, sampled(0.0), SEEDS, version=version)
    assert "reload_weights" not in vllm.calls
    assert [path.name for path in (tmp_path / "engine").iterdir()] == ["teacher"]


def test_on_a_gpu_vllm_has_memory_only_while_it_responds(vllm, gpu, engine):
    for _ in range(2):
        engine.generate("teacher", PROMPTS, sampled(0.0), SEEDS)
    woken = ["wake up weights", "reload_weights", "wake up kv_cache"]
    assert vllm.calls == [*RESPONSE, "sleep 2", *woken, *RESPONSE, "sleep 2"]
    [options] = vllm.started
    assert options["enable_sleep_mode"]
    assert options["gpu_memory_utilization"] == pytest.approx(0.27)


def test_vllm_gets_one_seed_per_prompt_and_the_room_that_is_needed(vllm, engine):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        engine.generate("student", PROMPTS, sampled(0.8, top_p=0.5), SEEDS)
    assert [params.seed for params in vllm.params] == SEEDS
    assert {(params.temperature, params.top_p, params.max_tokens) for params in vllm.params} == {(0.8, 0.5, 6)}
    [options] = vllm.started
    assert options["dtype"] == "bfloat16"
    assert options["max_model_len"] == LONGEST
    # Keys and values of 2 layers, 2 heads of width 8, 2 bytes each; a block of 128 tokens for one row, and one more.
    assert options["kv_cache_memory_bytes"] == 2 * 2 * 2 * 8 * 2 * 256
    assert options["skip_tokenizer_init"]
    assert options["generation_config"] == "vllm"


@pytest.mark.parametrize("saved", [False, True])
def test_vllm_never_chooses_ids_that_are_no_tokens(vllm, llama, tokenizer, tmp_path, saved):
    llama.resize_token_embeddings(48, mean_resizing=False)
    llama.lm_head.weight.data[43:] = 3 * llama.lm_head.weight.data[:5]
    llama.save_pretrained(tmp_path / "model")
    models = {"student": SavedModel(tmp_path / "model", "float32") if saved else llama}
    engine = make_engine("vllm", models, tokenizer, [40, 42], tmp_path / "engine", LONGEST)
    expected = generate(llama, tokenizer, [40, 42], PROMPTS, sampled(0.0), SEEDS, None)
    assert engine.generate("student", PROMPTS, sampled(0.0), SEEDS) == expected
    assert {tuple(params.logit_bias) for params in vllm.params} == {(43, 44, 45, 46, 47)}
    assert vllm.started[0]["model"] == str(tmp_path / ("model" if saved else "engine/student"))
    assert (tmp_path / "engine").exists() != saved
    engine.close()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


FAILURE = r"^generation: vLLM .* the model student \(got OSError: the worker is gone\)\. .* The same command goes on"


@pytest.mark.parametrize("failing", ["start", "add_request", "step", "collective_rpc", "sleep"])
def test_vllm_that_fails_is_a_sentence_and_started_anew_by_the_next_call(
    vllm, gpu, engine, llama, tokenizer, monkeypatch, failing
):
    whole = vllm.llm_engine if failing in ("add_request", "step") else vllm
    if failing != "start":
        engine.generate("student", PROMPTS, sampled(0.0), SEEDS)
    with monkeypatch.context() as broken:
        broken.setattr(vllm.module if failing == "start" else whole, "LLM" if failing == "start" else failing, die)
        with pytest.raises(RunError, match=FAILURE):
            engine.generate("student", PROMPTS, sampled(0.0), SEEDS)
    assert vllm.running == 0
    vllm.requests.clear()
    expected = generate(llama, tokenizer, ENDS, PROMPTS, sampled(0.0), SEEDS, None)
    assert engine.generate("student", PROMPTS, sampled(0.0), SEEDS) == expected


def die(*arguments, **named):
    raise OSError("the worker\n is gone")


def test_vllm_is_stopped_where_a_response_cannot_be_kept(vllm, engine):
    with pytest.raises(ZeroDivisionError):
        engine.generate("student", PROMPTS, sampled(0.0), SEEDS, on_finished=lambda *_: 1 / 0)
    assert vllm.running == 0


def test_an_error_is_reported_as_it_is_where_vllm_does_not_end_either(vllm, engine, monkeypatch):
    monkeypatch.setattr(vllm.llm_engine.engine_core, "shutdown", die)
    with pytest.raises(ZeroDivisionError):
        engine.generate("student", PROMPTS, sampled(0.0), SEEDS, on_finished=lambda *_: 1 / 0)
    engine.generate("student", PROMPTS, sampled(0.0), SEEDS)
    monkeypatch.setattr(vllm, "collective_rpc", die)
    with pytest.raises(RunError, match=r"vLLM did not take its weights"):
        engine.generate("student", PROMPTS, sampled(0.0), SEEDS, version=1)


def test_variables_that_vllm_sets_are_not_inherited_by_other_processes(vllm, engine, monkeypatch):
    seen = {}

    def start(**options):
        seen.update(os.environ)
        os.environ["LD_PRELOAD"] = "libtcmalloc.so"
        os.environ["VLLM_LOGGING_LEVEL"] = "INFO"
        del os.environ["OMP_PROC_BIND"]
        return vllm.start(**options)

    monkeypatch.setattr(vllm.module, "LLM", start)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    before = dict(os.environ)
    engine.generate("student", PROMPTS, sampled(0.0), SEEDS)
    assert (seen["VLLM_LOGGING_LEVEL"], seen["VLLM_NO_USAGE_STATS"]) == ("DEBUG", "1")
    assert dict(os.environ) == before


def test_response_of_vllm_without_its_last_token_counts_as_finished(vllm, engine, monkeypatch):
    output = SimpleNamespace(token_ids=(3, 4), finish_reason="stop")
    monkeypatch.setattr(vllm, "output", lambda *arguments: output)
    assert engine.generate("student", [[5]], sampled(0.0), [1]) == [Generation((3, 4), "w3 w4", True)]


def test_prompts_without_room_for_a_response_are_refused_as_by_transformers(vllm, llama, tokenizer, tmp_path):
    messages = []
    for name in ("transformers", "vllm"):
        engine = make_engine(name, {"student": llama}, tokenizer, ENDS, tmp_path, 100)
        with pytest.raises(InputError) as caught:
            engine.generate("student", [[3] * 59], sampled(0.0), [1])
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert not vllm.started


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
    make_engine("transformers", {"student": llama}, tokenizer, ENDS, tmp_path, LONGEST)
    assert "mta_framework.generation.vllm_engine" not in sys.modules
    assert not vllm.started


@pytest.mark.parametrize("name", ["transformers", "vllm"])
def test_every_response_is_reported_once_with_its_index(vllm, llama, tokenizer, tmp_path, name):
    engine, calls = make_engine(name, {"student": llama}, tokenizer, ENDS, tmp_path, LONGEST), []
    generations = engine.generate(
        "student", PROMPTS, sampled(0.0), SEEDS, on_finished=lambda *arguments: calls.append(arguments)
    )
    assert sorted(index for index, _ in calls) == [0, 1, 2]
    assert [generation for _, generation in sorted(calls, key=lambda call: call[0])] == generations


@pytest.mark.parametrize("label", [None, "student, dolly"])
def test_vllm_shows_progress_where_there_is_a_label(vllm, engine, capsys, label):
    engine.generate("student", PROMPTS, sampled(0.0), SEEDS, progress_label=label)
    assert ("student, dolly: 100%" in capsys.readouterr().err) == (label is not None)
