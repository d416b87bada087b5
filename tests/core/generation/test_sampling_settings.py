"""Seeds of prompts, and what a response is cut to."""

from __future__ import annotations

from mta_framework.generation.sampling_settings import Generation, prompt_seeds


def test_seeds_are_the_same_with_every_version():
    # printf '10/0' | sha256sum, its first 16 digits, halved
    assert prompt_seeds(10, 2) == [0xEED93F34C98CFE45 // 2, 0xA0AE6AFE297E8E13 // 2]


def test_seeds_differ_by_prompt_and_purpose_and_do_not_change_with_their_number():
    seeds = prompt_seeds(10, 500)
    assert prompt_seeds(10, 20) == seeds[:20]
    assert len({*seeds, *prompt_seeds(11, 500), *prompt_seeds("10/student", 500)}) == 1500
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_response_is_cut_at_the_first_of_its_ends(tokenizer):
    assert Generation.from_ids([3, 4, 42, 5, 40, 6], [40, 42], tokenizer) == Generation((3, 4), "w3 w4", True)
    assert Generation.from_ids([3, 4], [40], tokenizer) == Generation((3, 4), "w3 w4", False)
    assert Generation.from_ids([40, 3], [40], tokenizer) == Generation((), "", True)
