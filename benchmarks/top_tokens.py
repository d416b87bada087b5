"""How far losses over the teacher's k likeliest tokens and one class for all others are from whole distributions.

    python benchmarks/top_tokens.py --data train.jsonl

Trains two tiny Llamas on texts of JSON Lines, a teacher and a smaller student for fewer steps, and compares divergences
and their gradients with respect to the student's logits. It takes some minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from mta_framework.chunked_loss import class_log_probs, forward_kl, reverse_kl

VOCABULARY, LENGTH, BATCH = 4000, 64, 16
SIZES = (1, 5, 20, 50, 100, 500)


def token_rows(path: Path) -> Tensor:
    """The texts as one sequence of tokens, cut into rows."""
    lines = path.read_text(encoding="utf-8").splitlines()[:4000]
    texts = ["\n".join(str(value) for value in json.loads(line).values()) for line in lines]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    )
    ids = [index for encoding in tokenizer.encode_batch(texts) for index in encoding.ids]
    return torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH)


def trained(rows: Tensor, width: int, layers: int, steps: int) -> LlamaForCausalLM:
    """A Llama after some steps of AdamW on random rows."""
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": layers}
    config = LlamaConfig(vocab_size=VOCABULARY, num_attention_heads=4, tie_word_embeddings=True, **sizes)
    model = LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (BATCH,))]
        model(input_ids=batch, labels=batch).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


def main() -> None:
    """Print one row for each k."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines with texts.")
    parser.add_argument("--steps", type=int, default=400, help="Steps of the teacher; the student has a quarter.")
    arguments = parser.parse_args()
    rows = token_rows(arguments.data)
    held_out, train = rows[:24], rows[24:]
    teacher, student = trained(train, 128, 3, arguments.steps), trained(train, 64, 2, arguments.steps // 4)
    with torch.no_grad():
        student_NV, teacher_NV = (model(held_out).logits.flatten(0, 1) for model in (student, teacher))
    student_NV.requires_grad_()
    whole = {name: _measured(loss(student_NV, teacher_NV), student_NV) for name, loss in LOSSES.items()}
    print("k covered " + " ".join(f"{name} cosine norm" for name in LOSSES))
    for k in SIZES:
        top = teacher_NV.log_softmax(-1).topk(k)
        cells = [f"{top.values.exp().sum(-1).mean():.3f}"]
        for name, loss in LOSSES.items():
            classes = class_log_probs(student_NV, top.indices, top.values, VOCABULARY)
            value, gradient_NV = _measured(loss(*classes), student_NV)
            exact, exact_NV = whole[name]
            cosine = torch.cosine_similarity(gradient_NV.flatten(), exact_NV.flatten(), dim=0)
            cells.append(f"{value / exact:.3f} {cosine:.3f} {gradient_NV.norm() / exact_NV.norm():.3f}")
        print(k, *cells)
    print("whole " + " ".join(f"{name} {value:.3f}" for name, (value, _) in whole.items()))


LOSSES = {"forward": forward_kl, "reverse": reverse_kl}


def _measured(values_N: Tensor, student_NV: Tensor) -> tuple[float, Tensor]:
    """The mean of a loss, and its gradient."""
    (gradient_NV,) = torch.autograd.grad(values_N.mean(), student_NV)
    return values_N.mean().item(), gradient_NV


if __name__ == "__main__":
    main()
