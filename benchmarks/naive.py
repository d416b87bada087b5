"""A naive implementation of the training step, as a baseline: dense and padded, with parsing inside the step.

It computes whole logits of both models at every position of a batch padded to the maximal length, keeps all hidden
states, runs spaCy inside the step, pads span lists to the longest, and forms one similarity matrix over all spans of
the batch. The method is the same; only the implementation differs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mta_framework.interfaces import SpanExtractor
from mta_framework.types import LayerPair


def token_spans(
    extractor: SpanExtractor, texts: Sequence[str], offsets_BT2: Tensor, granularity: str
) -> list[list[list[int]]]:
    """Parse texts, and list the indices of the tokens inside each of their spans."""
    token_lists = []
    for text, spans, offsets_T2 in zip(texts, extractor.extract(texts), offsets_BT2.tolist(), strict=True):
        of_text = []
        for start, end in spans[granularity]:
            inside = [
                i
                for i, (s, e) in enumerate(offsets_T2)
                if e > s and (s >= start or (s == start - 1 and text[s].isspace() and e > s + 1)) and e <= end
            ]
            of_text.append(inside)
        token_lists.append([inside for inside in of_text if inside])
    return token_lists


def kl(student_BTV: Tensor, teacher_BTV: Tensor, supervised_BT: Tensor) -> Tensor:
    """Compute KL(teacher || student) in nats, as the mean over supervised positions."""
    log_q_BTV = F.log_softmax(student_BTV, dim=-1, dtype=torch.float32)
    log_p_BTV = F.log_softmax(teacher_BTV, dim=-1, dtype=torch.float32)
    divergence_BT = (log_p_BTV.exp() * (log_p_BTV - log_q_BTV)).sum(-1)
    return (divergence_BT * supervised_BT).sum() / supervised_BT.sum()


def importance(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Compute the mean attention that each token gets from the other tokens of its text."""
    normal_BTD = hidden_BTD / (hidden_BTD.std(-1, keepdim=True) + 1e-5)
    scores_BTT = normal_BTD @ normal_BTD.transpose(1, 2) / hidden_BTD.shape[-1] ** 0.5
    hidden = (mask_BT == 0)[:, None] | torch.eye(mask_BT.shape[1], dtype=torch.bool, device=mask_BT.device)
    attention_BTT = scores_BTT.masked_fill(hidden, -1e9).softmax(-1) * mask_BT[:, :, None]
    return attention_BTT.sum(1) / mask_BT.sum(1, keepdim=True) * mask_BT


def alignment(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    projections: nn.ModuleList,
    pairs: Sequence[LayerPair],
    spans: dict[str, list[list[list[int]]]],
    mask_BT: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute DSA and Hid, each as the mean over key layers, normalised once over the batch."""
    terms = [
        _layer(student[pair.student], teacher[pair.teacher], projection, spans[pair.granularity], mask_BT)
        for pair, projection in zip(pairs, projections, strict=True)
    ]
    dsa, hid = zip(*terms, strict=True)
    return torch.stack(dsa).mean(), torch.stack(hid).mean()


def _layer(
    student_BTD: Tensor, teacher_BTD: Tensor, projection: nn.Module, spans: list[list[list[int]]], mask_BT: Tensor
) -> tuple[Tensor, Tensor]:
    longest = max(len(of_text) for of_text in spans)
    member_BST = torch.zeros(len(spans), longest, mask_BT.shape[1], device=mask_BT.device)
    for text, of_text in enumerate(spans):
        for span, tokens in enumerate(of_text):
            member_BST[text, span, tokens] = 1.0
    with torch.no_grad():
        student_weight_BT, weight_BT = importance(student_BTD, mask_BT), importance(teacher_BTD, mask_BT)
        weight_BT = weight_BT / (member_BST * weight_BT[:, None]).sum((1, 2)).clamp_min(1e-12)[:, None]
        span_weight_BS = (member_BST * weight_BT[:, None]).sum(-1)
    student_SD = _pooled(student_BTD, member_BST * student_weight_BT[:, None])
    teacher_SD = _pooled(teacher_BTD, member_BST * weight_BT[:, None])
    weight_S = span_weight_BS.flatten()
    text_S = torch.arange(len(spans), device=weight_S.device).repeat_interleave(longest)
    pair_SS = weight_S[:, None] * weight_S * (text_S[:, None] == text_S)
    pair_SS = pair_SS.fill_diagonal_(0)
    difference_SS = student_SD @ student_SD.T - teacher_SD @ teacher_SD.T
    dsa = (pair_SS * difference_SS**2).sum() / pair_SS.sum().clamp_min(1e-12)
    cosine_BT = F.cosine_similarity(projection(student_BTD), teacher_BTD.float(), dim=-1)
    token_weight_BT = member_BST.sum(1) * weight_BT
    return dsa, (token_weight_BT * (1 - cosine_BT)).sum() / token_weight_BT.sum()


def _pooled(hidden_BTD: Tensor, weight_BST: Tensor) -> Tensor:
    total_BS1 = weight_BST.sum(-1, keepdim=True).clamp_min(1e-12)
    return F.normalize((weight_BST @ hidden_BTD.float() / total_BS1).flatten(0, 1), dim=-1)
