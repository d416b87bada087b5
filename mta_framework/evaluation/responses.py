"""Generates the responses of one model to one set, each kept on disk until the predictions of the set are complete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mta_framework.distributed import gather, processes, run_on_main, shard
from mta_framework.evaluation.response_journal import Journal, TextResponse
from mta_framework.generation.engine import Engine
from mta_framework.generation.sampling_settings import Generation, Sampling, prompt_seeds


def respond(
    engine: Callable[[], Engine],
    model: str,
    prompt_ids: Sequence[Sequence[int]],
    sampling: Sampling,
    keys: Mapping[int, str],
    journal: Journal,
    label: str,
) -> dict[int, list[TextResponse]]:
    """Respond to every prompt under every seed; the processes share the prompts.

    Args:
        engine: Makes the engine; not called on a process that has none to write.
        model: Name of the model.
        prompt_ids: Token ids without padding.
        sampling: How responses are drawn.
        keys: Seed -> digest of everything that its responses depend on.
        journal: Keeps each response as soon as it is generated, and has those of earlier attempts.
        label: What the progress bar says.

    Returns:
        Seed -> responses in the order of the prompts; the same on every process.
    """
    known, indices = run_on_main(journal.read), range(len(prompt_ids))
    lacking = [(index, [seed for seed in keys if (keys[seed], index) not in known]) for index in indices]
    tasks = [(index, seeds) for index, seeds in lacking if seeds]
    draws = {seed: prompt_seeds(seed, len(prompt_ids)) for seed in keys}

    def generated(share: Sequence[tuple[int, Sequence[int]]]) -> list[list[TextResponse]]:
        """For each of this process's prompts its responses, in the order of its seeds."""
        if not share:  # nothing that the model would have to be loaded for
            return []
        rows = [(index, seed) for index, seeds in share for seed in seeds]
        prompts, seeds = [prompt_ids[index] for index, _ in rows], [draws[seed][index] for index, seed in rows]
        with journal.writer(processes().process_index) as add:

            def done(row: int, generation: Generation) -> None:
                index, seed = rows[row]
                add((keys[seed], index), _response(generation))

            made = engine().generate(model, prompts, sampling, seeds, progress_label=label, on_finished=done)
        responses = map(_response, made)
        return [[next(responses) for _ in seeds] for _, seeds in share]

    # A prompt's seeds stay on one process, which then reads the prompt once for all of them.
    made = gather(generated(shard(tasks)), len(tasks))
    for (index, seeds), responses in zip(tasks, made, strict=True):
        known |= {(keys[seed], index): response for seed, response in zip(seeds, responses, strict=True)}
    return {seed: [known[key, index] for index in indices] for seed, key in keys.items()}


def _response(generation: Generation) -> TextResponse:
    return TextResponse(generation.text, generation.finished, len(generation.ids))
