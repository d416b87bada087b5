"""Python processes that start warm: forked from a server that has already imported torch and the framework.

``WarmPython`` takes the command line of ``python`` (``-c CODE``, ``-m MODULE`` or a file, then arguments) and behaves
like ``subprocess`` in everything that the tests look at: environment, output, signals, exit code, children. A test
that asks what an import loads, or what a launcher does, needs a new interpreter and takes ``subprocess``.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.forkserver import _forkserver
from pathlib import Path

PRELOADED = (
    "torch",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "peft",
    "datasets",
    "spacy",
    "matplotlib.figure",
    "mta_framework.runs.pipeline",
    "mta_framework.reporting.report_files",
    "mta_plugins.hooks",
    "mta_plugins.span_extractors.spacy_phrases",
)
"""What the server imports. A name that is gone costs time and nothing else."""


class WarmProcess:
    """A running process, with as much of ``subprocess.Popen`` as the tests use."""

    def __init__(self, process: multiprocessing.process.BaseProcess, outputs: Sequence[Connection]) -> None:
        self._process = process
        self._content = [bytearray() for _ in outputs]
        self._readers = [
            threading.Thread(target=_read, args=pair, daemon=True) for pair in zip(outputs, self._content, strict=True)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Process id, for signals."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, negative after a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code if it has ended."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code."""
        wait([self._process.sentinel], timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end and return what it wrote to standard output and standard error."""
        self.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        out, error = (bytes(content).decode("utf-8", "replace") for content in self._content)
        return out, error

    def send_signal(self, signal_code: int) -> None:
        """Send a signal to it, not to its children."""
        if self.poll() is None:
            os.kill(self.pid, signal_code)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class WarmPython:
    """Starts Python processes; use the fixture ``warm_python``."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))
        self._started: list[WarmProcess] = []
        if _forkserver.get_inherited_fds() is not None:
            # This process was started warm itself. It knows the server, but not that it need not start another.
            _forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
        # The server would import from its working directory first, and miss the installed packages.
        with contextlib.chdir("/"):
            _forkserver.ensure_running()

    def start(
        self,
        arguments: Sequence[object],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        group: int | None = None,
        log: Path | None = None,
    ) -> WarmProcess:
        """Start ``python ARGUMENTS`` and return while it runs.

        Args:
            arguments: Command line after ``python``.
            env: Environment; None: that of this process.
            cwd: Working directory; None: that of this process.
            group: Process group to join; 0: a new one, which has the id of the process.
            log: File to which the output is appended; None: the output is captured.
        """
        pipes = [self._context.Pipe(duplex=False) for _ in range(0 if log else 2)]
        readers, writers = [reader for reader, _ in pipes], [writer for _, writer in pipes]
        given = (
            [str(argument) for argument in arguments],
            dict(os.environ if env is None else env),
            str(cwd or Path.cwd()),
            writers or log,
            group,
        )
        process = self._context.Process(target=_become, args=given)
        process.start()
        for writer in writers:
            writer.close()
        self._started.append(WarmProcess(process, readers))
        return self._started[-1]

    def run(
        self,
        arguments: Sequence[object],
        check: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python ARGUMENTS`` to its end; ``check`` demands the exit code 0."""
        process = self.start(arguments, env, cwd)
        out, error = process.communicate()
        assert process.returncode is not None
        assert not check or process.returncode == 0, error[-3000:]
        return subprocess.CompletedProcess(list(arguments), process.returncode, out, error)

    def launch(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> WarmProcess:
        """Start ``mta ARGUMENTS`` in the group of this process, as sweeps launch their runs."""
        log.parent.mkdir(parents=True, exist_ok=True)
        return self.start(["-m", "mta_framework", *arguments], environment, group=os.getpgrp(), log=log)

    def start_ranks(self, arguments: Sequence[Sequence[object]]) -> list[WarmProcess]:
        """Start one rank of a gloo group on the CPU for each list of arguments."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"WORLD_SIZE": str(len(arguments)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        return [
            self.start(command, {**os.environ, **common, **CPU, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank, command in enumerate(arguments)
        ]

    def run_on_two_ranks(self, arguments: Sequence[object]) -> str:
        """Run ``python ARGUMENTS`` on two gloo ranks to their end; returns the output of both, rank 0 first."""
        ranks = self.start_ranks([arguments] * 2)
        texts = [rank.communicate() for rank in ranks]
        for rank, (_, error) in zip(ranks, texts, strict=True):
            assert rank.returncode == 0, error[-3000:]
        return "".join(out for out, _ in texts)

    def close(self) -> None:
        """Kill what still runs."""
        for process in self._started:
            process.kill()


CPU = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
"""Environment of a rank that has no accelerator."""


def _read(source: Connection, into: bytearray) -> None:
    with source:
        while block := os.read(source.fileno(), 65536):
            into += block


def _become(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
    output: Sequence[Connection] | Path,
    group: int | None,
) -> None:
    """Make the forked process what a new interpreter would be, then run the program."""
    if group is not None:
        os.setpgid(0, group)
    # Where tests run in the background, Ctrl-C is ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if isinstance(output, Path):
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        descriptors = [file, file]
    else:
        descriptors = [pipe.fileno() for pipe in output]
    for target, descriptor in enumerate(descriptors, 1):
        os.dup2(descriptor, target)
    for descriptor in {*descriptors}:
        os.close(descriptor)
    with contextlib.suppress(KeyError, ImportError):
        threads = int(environment["OMP_NUM_THREADS"])
        import torch

        torch.set_num_threads(threads)
    _execute(list(arguments))


def _execute(arguments: list[str]) -> None:
    kind, *rest = arguments
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(kind).parent))
        # Unlike runpy.run_path, this leaves the module in place for what is pickled or looked up later.
        module = types.ModuleType("__main__")
        module.__file__ = kind
        sys.modules["__main__"] = module
        exec(compile(Path(kind).read_text(encoding="utf-8"), kind, "exec"), vars(module))
