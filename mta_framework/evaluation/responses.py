"""Responses of one model to one set under all seeds; what was generated before the last interruption is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mta_framework.distributed import gather, processes, run_on_main, shard
from mta_framework.evaluation.journal import Journal, Response
from mta_framework.generation.engine import Engine
from mta_framework.generation.sampling import Generation, Sampling, prompt_seeds

Wanted = tuple[int, Sequence[int]]
"""A prompt by its number, and the seeds under which it has no response yet."""


class Responder:
    """Generates with one model.

    Args:
        engine: Gives what writes; not called where nothing is left to do.
        by: Name of the model.
        sampling: How responses are drawn.
        label: What the progress bar says.
    """

    def __init__(self, engine: Callable[[], Engine], by: str, sampling: Sampling, label: str):
        self._engine = engine
        self._by = by
        self._sampling = sampling
        self._label = label

    def respond(
        self, prompt_ids: Sequence[Sequence[int]], keys: Mapping[int, str], journal: Journal
    ) -> dict[int, list[Response]]:
        """Respond to every prompt under every seed; prompts are shared among the processes.

        Args:
            prompt_ids: Token ids without padding.
            keys: Seed -> digest of all that its responses depend on.
            journal: Where responses go at once, and where those of an earlier attempt are.

        Returns:
            Seed -> responses in the order of the prompts; the same on every process.
        """
        known, numbers = run_on_main(journal.read), range(len(prompt_ids))
        lacking = [(number, [seed for seed in keys if (keys[seed], number) not in known]) for number in numbers]
        wanted = [(number, seeds) for number, seeds in lacking if seeds]
        # A prompt's seeds stay on one process, which then reads the prompt once for all of them.
        found = gather(self._generated(prompt_ids, shard(wanted), keys, journal) if wanted else [], len(wanted))
        for (number, seeds), responses in zip(wanted, found, strict=True):
            known |= {(keys[seed], number): response for seed, response in zip(seeds, responses, strict=True)}
        return {seed: [known[key, number] for number in numbers] for seed, key in keys.items()}

    def _generated(
        self, prompt_ids: Sequence[Sequence[int]], own: Sequence[Wanted], keys: Mapping[int, str], journal: Journal
    ) -> list[list[Response]]:
        """For each of this process's prompts its responses, in the order of its seeds."""
        drawn = {seed: prompt_seeds(seed, len(prompt_ids)) for seed in keys}
        rows = [(number, seed) for number, seeds in own for seed in seeds]
        prompts, seeds = [prompt_ids[number] for number, _ in rows], [drawn[seed][number] for number, seed in rows]
        with journal.writer(processes().process_index) as writer:

            def done(row: int, generation: Generation) -> None:
                number, seed = rows[row]
                writer.add((keys[seed], number), _response(generation))

            generations = self._engine().generate(
                self._by, prompts, self._sampling, seeds, progress_label=self._label, done=done
            )
        made = iter(map(_response, generations))
        return [[next(made) for _ in seeds] for _, seeds in own]


def _response(generation: Generation) -> Response:
    return Response(generation.text, generation.finished, len(generation.ids))
