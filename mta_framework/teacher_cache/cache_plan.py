"""What making a teacher cache takes: sizes on disk, and the time of the teacher's forward passes."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mta_framework.distributed import processes
from mta_framework.errors import RunError
from mta_framework.teacher_cache.filling import TeacherCache
from mta_framework.teacher_cache.kinds import RecordKind
from mta_framework.teacher_cache.teacher_files import HEAD

_PROBE_WIDTH, _PROBE_SECONDS = 1024, 0.1


@dataclass(frozen=True)
class CachePlan:
    """What a teacher cache holds of a run, and what it lacks.

    Args:
        folder: Folder of the teacher in the cache; that of all teachers where this one is not known yet.
        texts: Number of distinct texts that the run reads.
        missing_texts: Number of these of which anything is missing.
        missing_tokens: Number of their tokens.
        sizes: Each kind of records, the bytes of all its records, and the bytes of those that are missing.
        head_bytes: Bytes of the teacher's head, which lies beside the records.
        has_head: Whether that is there already.
        free_bytes: Free space on the disk of ``folder``, in bytes.
        seconds: Estimated time of making what is missing, on one process.
        needed_for: What the live teacher is loaded, or the server asked, for besides, as noun phrases.
        requests: Number of requests that are sent to the server of the teacher, if none fails.
        server: URL of that server; empty without one.
    """

    folder: Path
    texts: int
    missing_texts: int
    missing_tokens: int
    sizes: tuple[tuple[RecordKind, int, int], ...]
    head_bytes: int
    has_head: bool
    free_bytes: int
    seconds: float
    needed_for: tuple[str, ...]
    requests: int = 0
    server: str = ""

    @property
    def num_bytes(self) -> int:
        """Bytes of the records and the head."""
        return sum(size for _, size, _ in self.sizes) + self.head_bytes

    @property
    def missing_bytes(self) -> int:
        """Bytes of what is missing."""
        return sum(missing for _, _, missing in self.sizes) + (0 if self.has_head else self.head_bytes)


def cache_plan(
    cache: TeacherCache, parameters: int, dtype: str, head_bytes: int, needed_for: Sequence[str], server: str = ""
) -> CachePlan:
    """Plan the filling of a cache.

    Args:
        cache: The cache of a run.
        parameters: Number of parameters of the teacher.
        dtype: Dtype of the teacher.
        head_bytes: Bytes of its head.
        needed_for: What the live teacher is loaded, or the server asked, for besides.
        server: URL of the server of the teacher; empty without one.
    """
    missing = cache.missing(verify=False)
    tokens = sum(len((text.teacher or text).input_ids) for text, _ in missing)
    absent = dict.fromkeys(cache.wanted, 0)
    for text, kinds in missing:
        for kind in kinds:
            absent[kind] += kind.num_bytes(text)
    sizes = tuple(
        (kind, sum(kind.num_bytes(text) for text in texts), absent[kind]) for kind, texts in cache.wanted.items()
    )
    seconds = 2 * parameters * tokens / _product_rate(dtype) if missing and not server else 0.0
    requests = sum(any(kind.num_rows(text) for kind in kinds) for text, kinds in missing) if server else 0
    texts = len({(text.teacher or text).input_ids.tobytes() for texts in cache.wanted.values() for text in texts})
    return CachePlan(
        folder=cache.folder,
        texts=texts,
        missing_texts=len(missing),
        missing_tokens=tokens,
        sizes=sizes,
        head_bytes=head_bytes,
        has_head=(cache.folder / HEAD).is_file(),
        free_bytes=free_bytes(cache.folder),
        seconds=seconds,
        needed_for=tuple(needed_for),
        requests=requests,
        server=server,
    )


def require_room(folder: Path, num_bytes: int, field: str = "teacher") -> None:
    """Check that the disk of a folder has room for what is about to be written.

    Args:
        folder: Folder of the teacher, which need not exist.
        num_bytes: Bytes that will be written.
        field: Dotted name of the teacher in the spec.

    Raises:
        RunError: There is less room.
    """
    if num_bytes > (free := free_bytes(folder)):
        sizes = f"{math.ceil(num_bytes / 2**20):,} MiB more, and {free // 2**20:,} MiB are free on its disk"
        raise RunError(f"teacher cache: {folder} needs {sizes}. Make room, or set {field}.cache.path to another disk.")


def free_bytes(folder: Path) -> int:
    """Return the free space on the disk that a folder lies on, or would lie on, in bytes.

    Args:
        folder: The folder, which need not exist.
    """
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


@torch.inference_mode()
def _product_rate(dtype: str) -> float:
    """Floating-point operations per second of a matrix product on the device of this process."""
    device = processes().device
    matrix = torch.ones(_PROBE_WIDTH, _PROBE_WIDTH, dtype=getattr(torch, dtype), device=device)
    products, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < _PROBE_SECONDS:
        float((matrix @ matrix)[0, 0])  # waits for the device
        products += 1
    return 2 * _PROBE_WIDTH**3 * products / (time.perf_counter() - begin)
