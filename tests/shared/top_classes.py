"""The losses over a teacher's likeliest tokens, computed independently."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import PreTrainedModel

from mta_framework.data.batches import collate
from mta_framework.models.run_models import RunModels
from mta_framework.registry import discover
from mta_framework.runs.plugin_binding import bind
from mta_framework.runs.preparation import prepare_run


def expected_losses(path: Path, teacher: PreTrainedModel, k: int) -> list[float]:
    """Forward KL and reverse KL of the first step over k + 1 classes, in float64, by both models whole."""
    bound = bind(path, discover())
    inputs = prepare_run(bound)
    student = RunModels(bound.spec).first_student().double().eval()
    indices = inputs.sampler.global_batches(0)[0]
    batch = collate([inputs.data.train.examples[index] for index in indices], 0, ())
    with torch.no_grad():
        q_NV, p_NV = (
            model(batch.input_ids_BT, attention_mask=batch.attention_mask_BT).logits.flatten(0, 1)[batch.position_N]
            for model in (student, copy.deepcopy(teacher).double())
        )
    q_NV, p_NV = q_NV.softmax(-1), p_NV.softmax(-1)
    ids = p_NV.topk(k).indices
    q, p = (torch.cat([whole.gather(-1, ids), 1 - whole.gather(-1, ids).sum(-1, True)], -1) for whole in (q_NV, p_NV))
    return [(a * (a / b).log()).sum(-1).mean().item() for a, b in ((p, q), (q, p))]
