"""Stands in for MLflow: the functions that transformers calls. A run that is active is gone on with."""

from __future__ import annotations

from types import SimpleNamespace

from notes import note

__version__ = "3.0"
utils = SimpleNamespace(validation=SimpleNamespace(MAX_PARAM_VAL_LENGTH=6000, MAX_PARAMS_TAGS_PER_BATCH=100))
_active = []


def is_tracking_uri_set():
    return False


def active_run():
    return _active[-1] if _active else None


def start_run(run_name, nested):
    _active.append(SimpleNamespace(name=run_name, info=SimpleNamespace(run_id=run_name)))
    note("mlflow", run_name, "begin")


def log_params(values, synchronous):
    pass


def log_metrics(metrics, step, synchronous):
    note("mlflow", _active[-1].name, "log", {**metrics, "train/global_step": step})


def end_run():
    note("mlflow", _active.pop().name, "end")
