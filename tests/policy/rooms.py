"""The rooms of the core, a package or a single module each, from the ground up, and what each imports."""

from __future__ import annotations

ROOMS: dict[str, frozenset[str]] = {
    room: frozenset(names.split())
    for room, names in {
        "errors": "",
        "types": "",
        "tables": "",
        "timers": "",
        "distributed": "errors",
        "storage": "errors",
        "interfaces": "types",
        "hookspecs": "interfaces",
        "registry": "errors hookspecs interfaces",
        "spec": "errors",
        "endpoints": "errors",
        "chat": "endpoints storage",
        "batch_policies": "errors interfaces types",
        "chunked_loss": "errors types",
        "divergence_loss": "chunked_loss interfaces types",
        "spans": "errors interfaces storage types",
        "models": "errors spec storage timers types",
        "data": "errors interfaces models spans spec storage timers types",
        "alignment": "errors interfaces models types",
        "generation": "chunked_loss distributed errors models spec",
        "teacher_cache": "alignment distributed errors interfaces models spec storage types",
        "teacher_server": "endpoints errors models teacher_cache types",
        "training": (
            "alignment chunked_loss data distributed errors generation interfaces models spans spec storage timers "
            "types"
        ),
        "memory_estimate": ("alignment data errors interfaces models spec teacher_cache timers training types"),
        "evaluation": "chunked_loss data distributed errors generation interfaces models spec storage tables types",
        "comparison": "errors evaluation interfaces registry spec tables types",
        "reporting": "comparison errors evaluation storage tables types",
        "runs": (
            "alignment data distributed endpoints errors evaluation generation interfaces memory_estimate models "
            "registry reporting spans spec storage teacher_cache teacher_server timers training types"
        ),
        "inspection": "alignment data errors interfaces models reporting runs spans tables types",
        "sweeps": "comparison distributed errors evaluation registry reporting runs spec",
        "testing": "alignment data errors interfaces registry spans training types",
        "cli": (
            "comparison distributed errors evaluation inspection memory_estimate registry reporting runs spec storage "
            "sweeps tables teacher_cache"
        ),
    }.items()
}
"""Room -> the rooms that it imports, all of which stand above it in this list.

``mta_framework/__init__.py`` lends its names from ``errors``, ``hookspecs``, ``interfaces`` and ``types``, and
``__main__.py`` starts ``cli``. ``docs/explanation/architecture.md`` shows this table.
"""

PUBLIC = frozenset(
    {
        "alignment.pairwise_cosines",
        "batch_policies",
        "chat",
        "chunked_loss",
        "divergence_loss",
        "spans.phrases",
        "spans.segments",
        "spans.words_by_script",
    }
)
"""Packages and modules that plugins may import, besides the public names of ``mta_framework``."""
