"""A thin ``transformers.Trainer``: losses over counts of the global batch, and checkpoints that appear whole.

One training step, in the order in which transformers' loop runs it; the methods below stand in the same order::

    get_batch_samples        draw the global batch; the batch policy keeps its texts or replaces them by responses;
                             collate this process's micro-batches; sum their counts by unit over the processes
    for each micro-batch:
        _prepare_inputs      move it to the device
        compute_loss         Distiller.forward: teacher, student, base loss, alignment -> loss terms, which are metered;
                             the loss is the sum over terms of ``weight * sum / count in the global batch``
        training_step        calls both, then the backward pass; the last one averages gradients over the processes
    _clip_grad_norm          (max_grad_norm) clip the norm of the gradient, and keep what it was
    before_optimizer_step    sum the terms over processes, check them and the gradient, let the base loss observe them
    (transformers)           optimiser step, learning rate step, gradients to zero, step + 1
    StepHooks.on_step_end    stop the stopwatch
    log, evaluate, _save_checkpoint, each if it is due; a checkpoint includes what the next log entry averages over
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from mta_framework.data.batches import micro_batches, training_loader, validation_micro_batches
from mta_framework.errors import RunError, as_plugin_error
from mta_framework.models.sharding import whole
from mta_framework.timers import BACKWARD, BASE_LOSS, DATA, GENERATION, Stopwatch
from mta_framework.training import checkpoints
from mta_framework.training.checkpoint_shards import is_sharded_checkpoint, load_optimizer_shards
from mta_framework.training.distiller import Distiller, LossMeter, contribution, plugin_label
from mta_framework.training.eight_bit import keep_embeddings_in_32_bit
from mta_framework.training.global_counts import GlobalCounts
from mta_framework.training.progress_bar import ProgressBar
from mta_framework.training.training_data import TrainingData
from mta_framework.training.training_meter import TrainingMeter
from mta_framework.training.training_warnings import training_warnings
from mta_framework.types import Batch, Example, MixedBatch, Progress
from mta_framework.types.log_entries import CROSS_ENTROPY, TRAINING_SECONDS

_log = logging.getLogger(__name__)

_TRAIN_LOSS = "train_loss"
"""The mean loss of all steps, which transformers logs when training ends."""


class DistillationTrainer(Trainer):
    """Trains a ``Distiller``.

    Args:
        distiller: Module to train.
        arguments: Arguments of ``transformers.Trainer``.
        data: Examples, order, collator and batch policy.
        projection_learning_rate: Peak learning rate of the alignment's projections.
        keep_checkpoints: Number of latest checkpoints to keep.
        callbacks: Further callbacks of transformers (trackers).
    """

    def __init__(
        self,
        distiller: Distiller,
        arguments: TrainingArguments,
        data: TrainingData,
        projection_learning_rate: float,
        keep_checkpoints: int,
        callbacks: Sequence[TrainerCallback] = (),
    ):
        self.distiller = distiller
        self._data = data
        self.meter = TrainingMeter()
        distiller.health = self.meter.health
        self.stopwatch = distiller.stopwatch = Stopwatch(arguments.device)
        if data.rollouts is not None:
            data.rollouts.stopwatch = self.stopwatch
        self._log_state: dict[str, Any] = {}
        self._projection_learning_rate = projection_learning_rate
        self._keep_checkpoints = keep_checkpoints
        self._folder: Path | None = None
        super().__init__(
            model=distiller,
            args=arguments,
            train_dataset=data.train,  # type: ignore[arg-type]
            eval_dataset=data.validation,  # type: ignore[arg-type]
            callbacks=[StepHooks(self), *callbacks],
        )
        self.remove_callback(ProgressCallback)
        self.progress = ProgressBar()
        if not arguments.disable_tqdm:
            self.add_callback(self.progress)
        # compute_loss divides by global counts; this keeps the loop from dividing by the number of micro-batches too.
        self.model_accepts_loss_kwargs = True

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimiser: no weight decay of biases and norms, and the projections' own learning rate."""
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.distiller))  # type: ignore[arg-type]
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in self.distiller.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault((name.startswith("alignment."), name in decayed), []).append(parameter)
            cls, settings = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = cls([self._group(*kind, groups[kind]) for kind in sorted(groups)], **settings)
            if settings.get("optim_bits") == 8:
                keep_embeddings_in_32_bit(self.distiller)
        return self.optimizer

    def _group(self, projection: bool, decays: bool, parameters: list[nn.Parameter]) -> dict[str, Any]:
        rate = self._projection_learning_rate if projection else self.args.learning_rate
        return {"params": parameters, "lr": rate, "weight_decay": self.args.weight_decay if decays else 0.0}

    def get_train_dataloader(self) -> DataLoader[list[Example]]:
        """Load the examples of all processes: ``get_batch_samples`` picks this process's, not accelerate."""
        return training_loader(self._data.train, self._data.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the loader draws next."""
        self._data.sampler.set_epoch(epoch)

    def get_batch_samples(
        self, epoch_iterator: Iterator[list[Example]], num_batches: int, device: torch.device
    ) -> tuple[list[Batch | MixedBatch], Any]:
        """Draw a global batch; return this process's micro-batches of it, and its ``GlobalCounts``."""
        self.stopwatch.begin_step()
        with self.stopwatch.part(DATA):
            draws = [examples for _, examples in zip(range(num_batches), epoch_iterator, strict=False)]
            batch = self._apply_policy([example for examples in draws for example in examples])
            parts = micro_batches(batch, len(draws), self.args.process_index, self.args.world_size)
            batches: list[Batch | MixedBatch] = [self._data.collator(part) for part in parts]
            return batches, GlobalCounts.of(batches, self._sum_over_processes)

    def _apply_policy(self, batch: list[Example]) -> list[Example]:
        policy, rollouts = self._data.policy, self._data.rollouts
        if policy is None or rollouts is None:
            return batch
        rollouts.step = self.state.global_step
        with as_plugin_error(plugin_label(self.distiller, policy)), self.stopwatch.part(GENERATION):
            chosen = policy.draw(batch, rollouts, self._progress())
        if not chosen or len(chosen) % len(batch):
            label = f"batch policy {type(policy).__name__}"
            sizes = f"got {len(chosen)} for {len(batch)}"
            raise RunError(f"{label} must choose as many texts as it is given, or a multiple ({sizes})")
        responses = [example for example in chosen if example.by_student]
        self.meter.add_share_by_student(len(responses) / len(chosen))
        self.meter.health.begin_step(responses, rollouts.has_ended, self.args.device)
        return sorted(chosen, key=lambda example: (example.teacher_name, len(example.input_ids)))

    def _sum_over_processes(self, values: Tensor) -> Tensor:
        if self.args.world_size == 1:
            return values
        reduced = self.accelerator.reduce(values.to(self.args.device), reduction="sum")
        assert isinstance(reduced, Tensor)
        return reduced

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run forward and backward pass of one micro-batch; the time of inner parts is not the backward pass's."""
        with self.stopwatch.part(BACKWARD):
            return super().training_step(*args, **kwargs)

    def _prepare_inputs(self, inputs: Any) -> Any:
        with self.stopwatch.part(DATA):
            return inputs.to(self.args.device, non_blocking=self.args.device.type == "cuda")

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute this micro-batch's share of the loss of the global batch.

        It is multiplied by the number of processes, since their gradients are averaged.
        """
        with self.stopwatch.part(BASE_LOSS):
            terms = model(inputs, self._progress())
            self.meter.terms.update(terms, num_items_in_batch)
            return contribution(terms, num_items_in_batch.all_texts) * self.args.world_size

    def _progress(self) -> Progress:
        return Progress(self.state.global_step, self.state.max_steps, float(self.state.epoch or 0.0))

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: transformers' estimate is for one model, and here are two."""
        return 0

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip, and keep the norm before it: an infinite one makes all gradients 0."""
        self._gradient_norm: Tensor = whole(super()._clip_grad_norm(model))
        return self._gradient_norm

    def before_optimizer_step(self) -> None:
        """Check loss and gradient after the step's last backward pass, before the optimiser uses the gradient.

        Raises:
            RunError: The loss or the gradient is NaN or infinite, or a projection has no gradient.
        """
        self.distiller.require_gradients()
        where = f"training step {self.state.global_step + 1}"
        values = self._reduce(self.meter.terms, where)
        self.meter.health.end_step(self._sum_over_processes)
        with as_plugin_error(plugin_label(self.distiller)):
            self.distiller.base_loss.observe(values)
        # The gradient scaler of fp16 meets infinities on purpose, and skips such steps.
        if not self.args.fp16 and not torch.isfinite(self._gradient_norm):
            raise RunError(f"{where}: the gradient is not finite. The run stops; its last checkpoint is kept.")

    def _reduce(self, meter: LossMeter, where: str) -> dict[str, float]:
        try:
            return meter.reduce(where, self._sum_over_processes)
        except RunError as error:
            # The values are summed over processes, so all processes come here.
            causes = [cause for cause in gather_object([self.distiller.fault()]) if cause is not None]
            raise RunError(" ".join([str(error), *causes[:1]])) from None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with loss terms and health of student responses since the last entry; warn of what is wrong."""
        if _TRAIN_LOSS in logs:
            logs = {**logs, **self._summary()}
        if "loss" in logs:
            logs = {**logs, **self.meter.pop(self.state.global_step, self._data.policy is not None)}
        known = self.warnings()
        super().log(logs, start_time)
        if self.args.should_save:
            for message in self.warnings():
                if message not in known:
                    _log.warning("%s", message)

    def warnings(self) -> list[str]:
        """What is wrong by the log so far, in sentences."""
        alignment = self.distiller.alignment
        return training_warnings(self.state.log_history, () if alignment is None else alignment.names)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Compute loss and terms over the whole validation set and log them as ``eval_loss``, ``eval_kl`` and so on."""
        meter, counts = LossMeter(), self._validation_counts
        self.distiller.eval()
        with torch.no_grad():
            self._validate(self._validation_parts, counts, meter)
        self.distiller.train()
        values = self._reduce(meter, f"validation after step {self.state.global_step}")
        if self._data.policy is not None:
            with as_plugin_error(plugin_label(self.distiller, self._data.policy)):
                self._data.policy.observe_validation(values[CROSS_ENTROPY])
        metrics = {f"eval_{name}": value for name, value in meter.pop().items()}
        if (answers := self._data.answers) is not None:
            with self.accelerator.autocast():
                metrics[f"eval_{answers.metric}"] = answers.compute(self.state.global_step)
        seconds = self._sum_over_processes(torch.tensor([self.stopwatch.processor_seconds()], dtype=torch.float64))
        self.log({**metrics, TRAINING_SECONDS: round(seconds.item(), 4)})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @cached_property
    def _validation_parts(self) -> list[list[Example]]:
        ranks = self.args.process_index, self.args.world_size
        return validation_micro_batches(self._data.validation, self.args.per_device_train_batch_size, *ranks)

    @cached_property
    def _validation_counts(self) -> GlobalCounts:
        collate = self._data.collator.with_teacher_records(None)
        return GlobalCounts.of((collate(part) for part in self._validation_parts), self._sum_over_processes)

    def _validate(self, parts: Sequence[Sequence[Example]], counts: GlobalCounts, meter: LossMeter) -> None:
        """Collate one micro-batch after the other: the records of a teacher are read when they are needed."""
        for part in parts:
            batch: Any = self._data.collator(part).to(self.args.device)
            with self.accelerator.autocast():  # which would convert records, too
                meter.update(self.distiller.validate(batch, self._progress()), counts)

    def validate_if_due(self) -> None:
        """Validate before the first step if the batch policy needs it, or after a resume if the last one is missing."""
        step, policy = self.state.global_step, self._data.policy
        wanted = step > 0 or (policy is not None and policy.NEEDS_VALIDATION)
        done = any(f"eval_{CROSS_ENTROPY}" in entry and entry["step"] == step for entry in self.state.log_history)
        interval = self.args.eval_steps or self._data.sampler.steps_per_epoch
        due = step % interval == 0 or step == self.state.max_steps
        if self._data.validation and wanted and not done and due:
            self.evaluate()

    def log_summary(self) -> None:
        """Log the entry that ends a training, for one whose steps are all in its last checkpoint."""
        self.log({"total_flos": self.state.total_flos, _TRAIN_LOSS: 0.0})

    def _summary(self) -> dict[str, float]:
        """Mean loss and speed of the whole training; transformers would give those since the last resume."""
        steps, arguments = self.state.global_step, self.args
        texts = steps * arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        return {**self.meter.speed(steps, texts), _TRAIN_LOSS: self._total_loss_scalar / max(steps, 1)}

    def _measured(self) -> dict[str, Any]:
        """The state of the log for a checkpoint: the meter's, and transformers' sums of the loss."""
        pending = self._sum_over_processes(self._tr_loss.detach()) / self.args.world_size
        logged = {"total": self._total_loss_scalar, "at": self._globalstep_last_logged}
        return {"meter": self.meter.state(), "loss": {"pending": pending.item(), **logged}}

    def restore_log(self) -> None:
        """Continue the log where the checkpoint left it; transformers has set its part back to zero by now."""
        if not self._log_state:
            return
        self.meter.restore(self._log_state["meter"])
        loss = self._log_state["loss"]
        self._tr_loss = torch.tensor(loss["pending"], dtype=torch.float32, device=self.args.device)
        self._total_loss_scalar, self._globalstep_last_logged = loss["total"], loss["at"]

    def restore(self, checkpoint: Path) -> None:
        """Restore everything but optimiser, schedule and random generators, where no step is left to take."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = checkpoints.trainer_state(checkpoint)
        self.restore_log()
        self._total_loss_scalar += self._tr_loss.item()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Save a checkpoint of every best validation so far, and of the one at which training stops early."""
        is_best = super()._determine_best_metric(metrics, trial)
        self.control.should_save |= is_best or (self.args.load_best_model_at_end and self.control.should_training_stop)
        return is_best

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._folder or self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write the checkpoint to another folder, then rename it: a checkpoint that exists is whole."""
        folder = Path(str(self.args.output_dir))
        self._log_state = self._measured()  # all processes take part
        self._folder = folder / "partial"
        try:
            super()._save_checkpoint(model, trial)
            self._forget_unpublished_path(self._folder)
        except BaseException:
            checkpoints.discard_partial(folder)  # it may be what fills the disk
            raise
        finally:
            self._folder = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.publish(folder, self.state.global_step, self._keep_checkpoints, self.state.best_global_step)
        self.accelerator.wait_for_everyone()

    def _forget_unpublished_path(self, folder: Path) -> None:
        """Leave the best step alone to tell the best checkpoint: transformers notes a path, and here that moves."""
        if self.state.best_model_checkpoint is not None:
            self.state.best_model_checkpoint = None
            if self.args.should_save:
                state = checkpoints.path_of(folder, self.state.global_step) / checkpoints.TRAINER_STATE
                self.state.save_to_json(str(state))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        assert output_dir is not None
        if self.args.should_save:
            checkpoints.save(self.distiller, self._data.policy, self._log_state, Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._log_state = checkpoints.load(self.distiller, self._data.policy, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with checkpoints.explain_unreadable(Path(checkpoint)) if checkpoint else nullcontext():
            super()._load_optimizer_and_scheduler(checkpoint)
            if checkpoint and is_sharded_checkpoint(Path(checkpoint)):
                assert self.optimizer is not None
                load_optimizer_shards(self.distiller, self.optimizer, Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with checkpoints.explain_unreadable(Path(checkpoint)) if checkpoint else nullcontext():
            super()._load_rng_state(checkpoint)


class StepHooks(TrainerCallback):
    """Calls the trainer at the points of transformers' loop that have no method to override.

    Args:
        trainer: Trainer to call.
    """

    def __init__(self, trainer: DistillationTrainer):
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Validate if a policy needs it, or if a run was killed between an epoch's last step and its validation."""
        # The state of a checkpoint has the intervals that the run began with; the spec may have others now.
        state.compute_steps(args, state.max_steps)
        self._trainer.restore_log()
        self._trainer.validate_if_due()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the epoch. ``state.epoch`` is a fraction: a run that resumes within an epoch draws that epoch's order."""
        self._trainer.set_epoch(int(state.epoch or 0))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check loss and gradient: all micro-batches of the step are through their backward pass."""
        self._trainer.before_optimizer_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the stopwatch: logging, validation and checkpoints, which follow, are not part of the step."""
        self._trainer.stopwatch.end_step()
