"""Stands in for Weights & Biases: the functions that transformers calls. A run stays open until it is finished."""

from __future__ import annotations

from notes import Settings, note

run = None
config = Settings()


class Run:
    def __init__(self, name):
        self.name = name
        self.summary = {}

    def _label(self, code):
        pass


def init(project, name):
    global run
    run = Run(name)
    note("wandb", name, "begin")


def log(values):
    note("wandb", run.name, "log", values)


def finish():
    global run
    note("wandb", run.name, "end")
    run = None


def define_metric(*names, **options):
    pass
