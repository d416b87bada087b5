"""On an accelerator, texts that are padded on the right need no mask of their padding."""

from __future__ import annotations

import pytest
import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask

from mta_framework.models.attention_masks import padded_on_the_right

ACCELERATOR = torch.device("cuda")
IDS_BT = torch.tensor([[7, 3, 9, 4, 8, 2], [5, 6, 1, 0, 0, 0]])
MASK_BT = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "mistral", "gemma3", "bloom", "mixtral"])
def test_states_of_tokens_are_those_with_a_mask(tiny, family):
    decoder = tiny(family).base_model
    inputs = {"input_ids": IDS_BT, "attention_mask": MASK_BT, "use_cache": False}
    with torch.no_grad():
        expected_BTD = decoder(**inputs).last_hidden_state
        with padded_on_the_right(ACCELERATOR):
            states_BTD = decoder(**inputs).last_hidden_state
    tokens = MASK_BT.bool()
    # Two kernels sum the same float32 numbers in another order.
    torch.testing.assert_close(states_BTD[tokens], expected_BTD[tokens], rtol=1e-4, atol=1e-5)


def test_a_plainly_causal_decoder_gets_no_mask_and_a_window_does():
    sizes = {"batch_size": 2, "q_length": 6, "kv_length": 6, "q_offset": 0, "kv_offset": 0}
    with padded_on_the_right(ACCELERATOR):
        make = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]
        assert make(**sizes, attention_mask=MASK_BT.bool()) is None
        assert make(**sizes, attention_mask=MASK_BT.bool(), local_size=3) is not None
        assert make(**sizes, attention_mask=MASK_BT.bool(), allow_is_causal_skip=False) is not None


def test_the_masks_of_transformers_are_back_afterwards_even_after_an_error():
    with pytest.raises(ValueError, match="in between"), padded_on_the_right(ACCELERATOR):
        raise ValueError("in between")
    assert ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is sdpa_mask


def test_on_a_cpu_masks_stay_as_they_are():
    with padded_on_the_right(torch.device("cpu")):
        assert ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is sdpa_mask
