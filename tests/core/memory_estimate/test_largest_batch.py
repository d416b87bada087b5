"""The micro-batch that takes most memory."""

from __future__ import annotations

from mta_framework.batch_policies import OnPolicyBatches, PairedBatches
from mta_framework.data.batches import GroupedSampler, micro_batches
from mta_framework.memory_estimate.largest_batch import largest_micro_batch, longest_responses
from mta_framework.testing import random_example

SPANS = {"words": [(5, 6), (7, 9)]}


def test_it_is_the_widest_of_all_steps_and_processes():
    examples = [random_example(length, 2, seed=length) for length in range(4, 44)]
    sampler = GroupedSampler([len(example.input_ids) for example in examples], 8, 2, 2, seed=3)
    widths = []
    for epoch in range(2):
        for drawn in sampler.global_batches(epoch)[: 7 - 5 * epoch]:
            batch = [examples[index] for index in drawn]
            parts = [part for rank in range(2) for part in micro_batches(batch, 2, rank, 2)]
            widths += [max(len(example.input_ids) for example in part) for part in parts]
    largest = largest_micro_batch(examples, sampler, micro_batch_size=2, steps=7)
    assert len(largest) == 2
    assert max(len(example.input_ids) for example in largest) == max(widths)


def test_responses_of_a_policy_are_as_long_as_they_may_be():
    prompts = [random_example(10, 4, seed=1, spans=SPANS), random_example(6, 4, seed=2, spans=SPANS)]
    policy = OnPolicyBatches(lambda_=1.0).create() if "lambda_" in OnPolicyBatches.model_fields else None
    policy = policy or OnPolicyBatches().create()
    texts = longest_responses(prompts, policy, max_new_tokens=20, most=22)
    assert [len(text.input_ids) for text in texts] == [22, 22]  # not 24: no text is longer than that
    assert all(text.by_student for text in texts)
    assert all(len(text.log_probs) == 18 for text in texts)
    # The response of 6 tokens stands there three times, and so do its spans.
    assert texts[0].spans["words"].tolist() == [[5, 6], [7, 9], [11, 12], [13, 15], [17, 18], [19, 21]]


def test_a_policy_of_pairs_makes_two_texts_of_each_prompt():
    prompts = [random_example(10, 4, seed=1)]
    texts = longest_responses(prompts, PairedBatches().create(), max_new_tokens=3, most=100)
    assert [text.by_student for text in texts] == [True, False]
    assert [len(text.input_ids) for text in texts] == [10, 10]  # the response of the data is longer already
