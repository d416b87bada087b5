"""Translates the training section of a spec to ``transformers.TrainingArguments``."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainingArguments

from mta_framework.distributed import processes
from mta_framework.spec.training import TrainingSection

CHECKPOINTS = "checkpoints"
"""Name of the folder of checkpoints in a run's folder."""

SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""transformers' name of each schedule of a spec."""


def micro_batch_size(section: TrainingSection, world_size: int) -> int:
    """Texts per forward pass of a process; by default its whole share of the batch."""
    return section.micro_batch_size or max(section.batch_size // world_size, 1)


def training_arguments(
    section: TrainingSection,
    seed: int,
    folder: Path,
    *,
    validates: bool,
    higher_is_better: bool,
    unused_parameters: bool,
) -> TrainingArguments:
    """Make the trainer's arguments.

    Args:
        section: Training section of a checked spec.
        seed: Seed of the global random generators (dropout).
        folder: Folder of the run; its name is the run's name in trackers, and checkpoints are written to it.
        validates: Whether there is a validation set.
        higher_is_better: Whether a higher value of ``metric_for_best_model`` is better.
        unused_parameters: Whether the loss may leave trained parameters without gradient.
    """
    state = processes()
    micro = micro_batch_size(section, state.num_processes)
    arguments = TrainingArguments(
        output_dir=str(folder / CHECKPOINTS),
        run_name=folder.name,
        seed=seed,
        num_train_epochs=section.epochs or 1,
        max_steps=section.max_steps or -1,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=section.batch_size // (micro * state.num_processes),
        optim=section.optimizer,
        learning_rate=section.learning_rate,
        weight_decay=section.weight_decay,
        warmup_steps=section.warmup_ratio,
        lr_scheduler_type=SCHEDULES[section.schedule],
        max_grad_norm=section.max_grad_norm,
        use_cpu=state.device.type == "cpu",
        bf16=section.precision == "bf16",
        fp16=section.precision == "fp16",
        eval_strategy=("steps" if section.eval_steps else "epoch") if validates else "no",
        eval_steps=section.eval_steps,
        save_strategy="steps" if section.save_steps else "epoch",
        save_steps=section.save_steps or 500,
        load_best_model_at_end=section.load_best_model_at_end,
        metric_for_best_model=section.metric_for_best_model if section.load_best_model_at_end else None,
        greater_is_better=higher_is_better if section.load_best_model_at_end else None,
        restore_callback_states_from_checkpoint=section.early_stopping_patience is not None,
        logging_steps=section.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=[tracker for tracker in section.trackers if tracker != "tensorboard"],
        ddp_find_unused_parameters=unused_parameters,
        remove_unused_columns=False,
    )
    # One process trains on one device: without this, several visible GPUs would mean torch.nn.DataParallel.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
