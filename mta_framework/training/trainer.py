"""``transformers.Trainer``, thin: loss terms over counts of the global batch, and checkpoints that appear whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from mta_framework.data.batches import GroupedSampler
from mta_framework.errors import RunError
from mta_framework.training import checkpoints
from mta_framework.training.callbacks import ProgressBar, StepGuard
from mta_framework.training.distiller import Distiller, contribution
from mta_framework.training.ledger import Ledger
from mta_framework.training.loader import Collator, training_loader, validation_batches
from mta_framework.types import Batch, Example, Progress


@dataclass(frozen=True)
class TrainingData:
    """Examples, their cut into micro-batches, and how these become tensors."""

    train: Sequence[Example]
    validation: Sequence[Example]
    sampler: GroupedSampler
    collator: Collator


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
        self._ledger = Ledger()
        self._projection_learning_rate = projection_learning_rate
        self._keep_checkpoints = keep_checkpoints
        self._folder: Path | None = None
        super().__init__(
            model=distiller,
            args=arguments,
            train_dataset=data.train,  # type: ignore[arg-type]
            eval_dataset=data.validation,  # type: ignore[arg-type]
            callbacks=[StepGuard(self), *callbacks],
        )
        self.remove_callback(ProgressCallback)
        if not arguments.disable_tqdm:
            self.add_callback(ProgressBar())
        # compute_loss divides by global counts; this keeps the loop from dividing by the number of micro-batches too.
        self.model_accepts_loss_kwargs = True

    def get_train_dataloader(self) -> DataLoader[Batch]:
        """The sampler already gives each process its own micro-batches, so accelerate must not cut again."""
        return training_loader(self._data.train, self._data.sampler, self._data.collator)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn next."""
        self._data.sampler.set_epoch(epoch)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Any]:
        """All micro-batches of one step, and the counts of the global batch that they are a part of."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        return batches, self._global_counts(batches)

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
        return inputs.to(self.args.device)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not estimated: transformers' rule knows one model, and here are two."""
        return 0

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This micro-batch's share of the loss of the global batch.

        Gradients are averaged over processes afterwards, hence the factor.
        """
        terms = model(inputs, self._progress())
        self._ledger.add(terms, num_items_in_batch)
        return contribution(terms, num_items_in_batch) * self.args.world_size

    def _progress(self) -> Progress:
        return Progress(self.state.global_step, self.state.max_steps, float(self.state.epoch or 0.0))

    def close_step(self) -> None:
        """Called between the backward pass of a step and its update.

        Raises:
            RunError: The loss or the gradient is NaN or infinite.
        """
        where = f"training step {self.state.global_step + 1}"
        self._ledger.close_step(where, self._sum_over_processes)
        if self.args.fp16:  # its gradient scaler meets infinities on purpose, and skips such steps
            return
        gradients = [parameter.grad for parameter in self.distiller.parameters() if parameter.grad is not None]
        if not torch.isfinite(nn.utils.get_total_norm(gradients)):
            raise RunError(f"{where}: the gradient is not finite. The run stops; its last checkpoint is kept.")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the loss terms to what is logged."""
        if "loss" in logs:
            logs = {**logs, **self._ledger.drain()}
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Loss and terms over the whole validation set, as ``eval_loss``, ``eval_kl`` and so on."""
        ranks = self.args.process_index, self.args.world_size
        size, ledger = self.args.per_device_train_batch_size, Ledger()
        batches = validation_batches(self._data.validation, size, self._data.collator, *ranks)
        counts = self._global_counts(batches)
        self.distiller.eval()
        with torch.no_grad():
            for batch in batches:
                ledger.add(self.distiller(batch.to(self.args.device), self._progress()), counts)
        self.distiller.train()
        ledger.close_step(f"validation after step {self.state.global_step}", self._sum_over_processes)
        metrics = {f"eval_{name}": value for name, value in ledger.drain().items()}
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
        finally:
            self._folder = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.publish(folder, self.state.global_step, self._keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        assert output_dir is not None
        if self.args.should_save:
            checkpoints.save(self.distiller, Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        checkpoints.load(self.distiller, Path(resume_from_checkpoint))
