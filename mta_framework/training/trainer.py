"""``transformers.Trainer``, thin: loss terms over counts of the global batch, and checkpoints that appear whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from mta_framework.data.batches import GroupedSampler
from mta_framework.errors import RunError, as_plugin_error
from mta_framework.interfaces import BatchPolicy
from mta_framework.timers import BACKWARD, BASE_LOSS, DATA, GENERATION, Stopwatch
from mta_framework.training import checkpoints
from mta_framework.training.distiller import CROSS_ENTROPY, Distiller, contribution
from mta_framework.training.loader import Collator, micro_batches, training_loader, validation_batches
from mta_framework.training.loss_meter import LossMeter
from mta_framework.training.progress_bar import ProgressBar
from mta_framework.training.rollouts import TrainingRollouts
from mta_framework.types import SHARE_BY_STUDENT, Batch, Example, Progress


@dataclass(frozen=True)
class TrainingData:
    """Examples, their order, how they become tensors, and who replaces them by responses (None: nobody)."""

    train: Sequence[Example]
    validation: Sequence[Example]
    sampler: GroupedSampler
    collator: Collator
    policy: BatchPolicy | None = None
    rollouts: TrainingRollouts | None = None


class DistillationTrainer(Trainer):
    """Trains a ``Distiller``.

    Args:
        distiller: What is trained.
        arguments: Settings.
        data: What it is trained and validated on.
        projection_learning_rate: Peak learning rate of the alignment's projections.
        keep_checkpoints: How many of the latest checkpoints stay.
        callbacks: More of transformers' callbacks (trackers).
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
        self._meter = LossMeter()
        self.stopwatch = distiller.stopwatch = Stopwatch(arguments.device)
        if data.rollouts is not None:
            data.rollouts.stopwatch = self.stopwatch
        self._by_student = 0.0
        self._logged_at = 0
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

    def get_train_dataloader(self) -> DataLoader[list[Example]]:
        """Global batches in rounds: ``get_batch_samples`` takes this process's share, so accelerate must not cut."""
        return training_loader(self._data.train, self._data.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn next."""
        self._data.sampler.set_epoch(epoch)

    def get_batch_samples(
        self, epoch_iterator: Iterator[list[Example]], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Any]:
        """This process's micro-batches of one step, and the counts of the global batch that they are a part of."""
        self.stopwatch.begin_step()
        with self.stopwatch.part(DATA):
            rounds = [some for _, some in zip(range(num_batches), epoch_iterator, strict=False)]
            batch = self._chosen([example for some in rounds for example in some])
            shares = micro_batches(batch, len(rounds), self.args.process_index, self.args.world_size)
            batches = [self._data.collator(share) for share in shares]
            return batches, self._global_counts(batches)

    def _chosen(self, batch: list[Example]) -> list[Example]:
        policy, rollouts = self._data.policy, self._data.rollouts
        if policy is None or rollouts is None:
            return batch
        rollouts.step = self.state.global_step
        with as_plugin_error(checkpoints.owner(self.distiller, policy)), self.stopwatch.part(GENERATION):
            chosen = policy.draw(batch, rollouts, self._progress())
        if not chosen or len(chosen) % len(batch):
            told = f"batch policy {type(policy).__name__} must choose as many texts as it is given, or a multiple"
            raise RunError(f"{told} (got {len(chosen)} for {len(batch)})")
        self._by_student += sum(example.by_student for example in chosen) / len(chosen)
        return sorted(chosen, key=lambda example: len(example.input_ids))

    def _global_counts(self, batches: Sequence[Batch]) -> dict[str, int]:
        totals: Counter[str] = Counter()
        for batch in batches:
            totals.update(batch.counts)
        units = sorted(totals)
        summed = self._sum_over_processes(torch.tensor([totals[unit] for unit in units], dtype=torch.float64))
        return {unit: int(count) for unit, count in zip(units, summed.tolist(), strict=True)}

    def _sum_over_processes(self, values: Tensor) -> Tensor:
        if self.args.world_size == 1:
            return values
        reduced = self.accelerator.reduce(values.to(self.args.device), reduction="sum")
        assert isinstance(reduced, Tensor)
        return reduced

    def _prepare_inputs(self, inputs: Any) -> Any:
        with self.stopwatch.part(DATA):
            return inputs.to(self.args.device)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not estimated: transformers' rule knows one model, and here are two."""
        return 0

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Forward and backward pass of a micro-batch; the parts within book all but the latter."""
        with self.stopwatch.part(BACKWARD):
            return super().training_step(*args, **kwargs)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This micro-batch's share of the loss of the global batch.

        Gradients are averaged over processes afterwards, hence the factor.
        """
        with self.stopwatch.part(BASE_LOSS):
            terms = model(inputs, self._progress())
            self._meter.update(terms, num_items_in_batch)
            return contribution(terms, num_items_in_batch) * self.args.world_size

    def _progress(self) -> Progress:
        return Progress(self.state.global_step, self.state.max_steps, float(self.state.epoch or 0.0))

    def close_step(self) -> None:
        """Called between the backward pass of a step and its update.

        Raises:
            RunError: The loss or the gradient is NaN or infinite.
        """
        where = f"training step {self.state.global_step + 1}"
        values = self._closed(self._meter, where)
        with as_plugin_error(checkpoints.owner(self.distiller)):
            self.distiller.base_loss.observe(values)
        if self.args.fp16:  # its gradient scaler meets infinities on purpose, and skips such steps
            return
        gradients = [parameter.grad for parameter in self.distiller.parameters() if parameter.grad is not None]
        if not torch.isfinite(nn.utils.get_total_norm(gradients)):
            raise RunError(f"{where}: the gradient is not finite. The run stops; its last checkpoint is kept.")

    def _closed(self, meter: LossMeter, where: str) -> dict[str, float]:
        try:
            return meter.reduce(where, self._sum_over_processes)
        except RunError as error:
            # Summed over the processes, so all of them come here.
            causes = [cause for cause in gather_object([self.distiller.fault()]) if cause is not None]
            raise RunError(" ".join([str(error), *causes[:1]])) from None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the loss terms to what is logged."""
        if "loss" in logs:
            logs = {**logs, **self._meter.pop()}
            if self._data.policy is not None:
                steps = max(self.state.global_step - self._logged_at, 1)
                logs[SHARE_BY_STUDENT] = self._by_student / steps
                self._by_student, self._logged_at = 0.0, self.state.global_step
        super().log(logs, start_time)

    def catch_up(self) -> None:
        """Validate before the first step, where the batch policy lives on it, or where the last one is missing."""
        step, policy = self.state.global_step, self._data.policy
        wanted = step > 0 or (policy is not None and policy.NEEDS_VALIDATION)
        done = any(f"eval_{CROSS_ENTROPY}" in entry and entry["step"] == step for entry in self.state.log_history)
        due = step % self._data.sampler.steps_per_epoch == 0 or step == self.state.max_steps
        if self._data.validation and wanted and not done and due:
            self.evaluate()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Loss and terms over the whole validation set, as ``eval_loss``, ``eval_kl`` and so on."""
        ranks = self.args.process_index, self.args.world_size
        size, meter = self.args.per_device_train_batch_size, LossMeter()
        batches = validation_batches(self._data.validation, size, self._data.collator, *ranks)
        counts = self._global_counts(batches)
        self.distiller.eval()
        with torch.no_grad(), self.accelerator.autocast():
            for batch in batches:
                meter.update(self.distiller.validate(batch.to(self.args.device), self._progress()), counts)
        self.distiller.train()
        values = self._closed(meter, f"validation after step {self.state.global_step}")
        if self._data.policy is not None:
            with as_plugin_error(checkpoints.owner(self.distiller, self._data.policy)):
                self._data.policy.observe_validation(values[CROSS_ENTROPY])
        metrics = {f"eval_{name}": value for name, value in meter.pop().items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW; no decay on biases and norms; the projections have a learning rate of their own."""
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.distiller))  # type: ignore[arg-type]
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in self.distiller.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault((name.startswith("alignment."), name in decayed), []).append(parameter)
            cls, settings = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = cls([self._group(*kind, groups[kind]) for kind in sorted(groups)], **settings)
        return self.optimizer

    def _group(self, projection: bool, decays: bool, parameters: list[nn.Parameter]) -> dict[str, Any]:
        rate = self._projection_learning_rate if projection else self.args.learning_rate
        return {"params": parameters, "lr": rate, "weight_decay": self.args.weight_decay if decays else 0.0}

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._folder or self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write to the side, then rename: a checkpoint that is there is whole."""
        folder = Path(str(self.args.output_dir))
        self._folder = folder / "partial"
        try:
            super()._save_checkpoint(model, trial)
        except BaseException:
            checkpoints.discard_partial(folder)  # it may be what fills the disk
            raise
        finally:
            self._folder = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.publish(folder, self.state.global_step, self._keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        assert output_dir is not None
        if self.args.should_save:
            checkpoints.save(self.distiller, self._data.policy, Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        checkpoints.load(self.distiller, self._data.policy, Path(resume_from_checkpoint))
        self._logged_at = checkpoints.state_of(Path(resume_from_checkpoint)).global_step

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with checkpoints.reading(Path(checkpoint)) if checkpoint else nullcontext():
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with checkpoints.reading(Path(checkpoint)) if checkpoint else nullcontext():
            super()._load_rng_state(checkpoint)


class StepHooks(TrainerCallback):
    """Sets the sampler's epoch, catches up on validation, looks for NaN before weights are touched, and ends steps."""

    def __init__(self, trainer: DistillationTrainer):
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Validate where a policy waits for it, or where a run was killed between an epoch's last step and that."""
        self._trainer.catch_up()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The state's epoch is a fraction; a run that resumes within an epoch draws that epoch's order."""
        self._trainer.set_epoch(int(state.epoch or 0))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All micro-batches of the step are through their backward pass."""
        self._trainer.close_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Logging, validation and checkpoints come after it."""
        self._trainer.stopwatch.end_step()
