"""The weights that the importance estimator gives the characters of a text, by granularity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mta_framework.alignment.importance import CheckedImportance
from mta_framework.errors import RunError
from mta_framework.interfaces import ImportanceEstimator
from mta_framework.models.state_reader import StateReader
from mta_framework.spans.cross_tokenizer import TokenisedText
from mta_framework.types import LayerPair


@torch.inference_mode()
def character_weights(
    texts: Sequence[tuple[str, TokenisedText]],
    teacher: nn.Module,
    importance: ImportanceEstimator,
    pairs: Sequence[LayerPair],
) -> Iterator[Mapping[str, list[float]]]:
    """Weigh the tokens of each text, and give every character the weight of its token.

    Args:
        texts: Texts with their tokens by the teacher's tokenizer.
        teacher: Model that is run on each text by itself.
        importance: Estimator of the weights.
        pairs: Key layers.

    Yields:
        For each text, granularity -> a weight for each character, from 0 to 1: the mean of the normalised weights over
        the key layers of this granularity, relative to the largest one. Characters without a token have weight 0.

    Raises:
        RunError: The estimator fails or returns unsound weights.
    """
    guard = CheckedImportance(importance)
    reader = StateReader(teacher, {pair.teacher for pair in pairs})
    device = next(teacher.parameters()).device
    for text, tokenised in texts:
        ids_BT = torch.from_numpy(tokenised.ids.astype(np.int64))[None].to(device)
        mask_BT = torch.ones_like(ids_BT)
        states = reader.read(ids_BT, mask_BT)
        totals: dict[str, Tensor] = {}
        for pair in pairs:
            weight_BT = guard.weigh(states, pair.teacher, mask_BT, "teacher").float()
            share_T = weight_BT[0] / weight_BT.sum().clamp_min(1e-30)
            totals[pair.granularity] = totals.get(pair.granularity, 0) + share_T
        if fault := guard.fault():
            raise RunError(fault)
        yield {name: _by_character(text, tokenised, weight_T.cpu().tolist()) for name, weight_T in totals.items()}
    reader.close()


def _by_character(text: str, tokenised: TokenisedText, weights: Sequence[float]) -> list[float]:
    by_character = [0.0] * len(text)
    for (start, end), special, weight in zip(tokenised.offsets.tolist(), tokenised.special, weights, strict=False):
        if not special:
            by_character[start:end] = [weight] * (end - start)
    largest = max(by_character, default=0.0)
    return [weight / largest for weight in by_character] if largest > 0 else by_character
