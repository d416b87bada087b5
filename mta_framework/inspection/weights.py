"""How the teacher weighs the tokens of a text, granularity by granularity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mta_framework.alignment.checked_importance import CheckedImportance
from mta_framework.errors import RunError
from mta_framework.interfaces import ImportanceEstimator
from mta_framework.models.states import StateReader
from mta_framework.spans.cross_tokenizer import TokenisedText
from mta_framework.types import LayerPair


@torch.inference_mode()
def character_weights(
    texts: Sequence[tuple[str, TokenisedText]],
    teacher: nn.Module,
    importance: ImportanceEstimator,
    pairs: Sequence[LayerPair],
) -> Iterator[Mapping[str, list[float]]]:
    """The importance of each character's token.

    Args:
        texts: With the teacher's tokens.
        teacher: Runs on each text for itself.
        importance: Weighs.
        pairs: The key layers.

    Yields:
        For each text, granularity -> a weight for each character: the mean over the key layers of this granularity of
        weights that sum to 1, relative to the weightiest token. Characters that no token stands for have 0.

    Raises:
        RunError: The estimator fails or gives unsound weights.
    """
    guard = CheckedImportance(importance)
    reader = StateReader(teacher, {pair.teacher for pair in pairs})
    device = next(teacher.parameters()).device
    for text, tokenised in texts:
        ids_BT = torch.from_numpy(tokenised.ids.astype(np.int64))[None].to(device)
        mask_BT = torch.ones_like(ids_BT)
        states = reader.read(ids_BT, mask_BT)
        found: dict[str, Tensor] = {}
        for pair in pairs:
            weight_BT = guard.weigh(states, pair.teacher, mask_BT, "teacher").float()
            found[pair.granularity] = found.get(pair.granularity, 0) + weight_BT[0] / weight_BT.sum().clamp_min(1e-30)
        if fault := guard.fault():
            raise RunError(fault)
        yield {name: _by_character(text, tokenised, weight_T.cpu().tolist()) for name, weight_T in found.items()}
    reader.close()


def _by_character(text: str, tokenised: TokenisedText, weights: Sequence[float]) -> list[float]:
    found = [0.0] * len(text)
    for (start, end), special, weight in zip(tokenised.offsets.tolist(), tokenised.special, weights, strict=False):
        if not special:
            found[start:end] = [weight] * (end - start)
    heaviest = max(found, default=0.0)
    return [weight / heaviest for weight in found] if heaviest > 0 else found
