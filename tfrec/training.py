"""The training loop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras as keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tfrec.data import broken_file, training_batches
from tfrec.evaluation import Evaluator
from tfrec.optimizers import composite, create_slots
from tfrec.runs import Run

SUMMARY_STEPS = 50

# What a better model of a task is judged by, and whether more of it is better.
MONITORED = {"binary": ("auc", 1.0), "regression": ("rmse", -1.0)}


@dataclass(frozen=True)
class Validation:
    """Metrics at one point of the training.

    Attributes:
        step: steps done.
        epoch: passes over the data done, as a fraction.
        loss: mean training loss since the last validation.
        metrics: by task.
    """

    step: int
    epoch: float
    loss: float
    metrics: dict[str, dict[str, float | None]]


class Trainer:
    """Trains the model of a run, and keeps the weights of its best validation.

    Args:
        run: a new run directory.
        console: where progress is shown.
    """

    def __init__(self, run: Run, console: Console) -> None:
        self.run, self.config, self.console = run, run.config, console
        keras.utils.set_random_seed(self.config.seed)
        self.model = run.build_model()
        self.groups = self.model.groups()
        self.optimizer = composite(self.groups, dict(self.config.optimizers))
        self.model.compile(optimizer=self.optimizer)
        create_slots(self.optimizer, self.groups)
        self.rows = run.features.counts["train"]
        self.steps_per_epoch = math.ceil(self.rows / self.config.batch_size)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        folder = run.directory / "checkpoints"
        self.best = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=self.model), str(folder / "best"), max_to_keep=1
        )
        self.last = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=self.model, optimizer=self.optimizer, step=self.step),
            str(folder / "last"),
            max_to_keep=2,
        )
        self.writer = tf.summary.create_file_writer(str(run.directory / "logs"))
        self.history: list[Validation] = []
        self.examples = 0
        self.training_seconds = 0.0

    def describe(self) -> str:
        """Parameters, and memory of tables, of the rest and of the optimizers."""
        lines = [f"model {self.config.model.id} on {self.run.features.name}"]
        total = 0
        for group, variables in self.groups.items():
            if variables:
                count = sum(math.prod(v.shape) for v in variables)
                total += count
                optimizer = getattr(self.config.optimizers, group).name
                lines.append(f"  {group:<10} {count:>13,} parameters  {optimizer}")
        tables = sum(_size(v) for g in ("linear", "embedding") for v in self.groups[g])
        dense = sum(_size(v) for v in self.groups["dense"])
        slots = sum(_size(v) for v in self.optimizer.weights)
        lines.append(f"  {'total':<10} {total:>13,} parameters")
        lines.append(
            f"  memory: tables {_mib(tables)}, other weights {_mib(dense)}, "
            f"optimizers {_mib(slots)}"
        )
        return "\n".join(lines)

    def fit(self) -> Validation | None:
        """Trains until the epochs are done or patience is at its end.

        Returns:
            The best validation, whose weights the model then has; None without a validation
            split, where the last weights stay.

        Raises:
            UserError: a file of the data set is damaged.
        """
        validating = "validation" in self.run.features.counts
        self.evaluator = (
            Evaluator(self.config.data, self.run.features, "validation") if validating else None
        )
        with _Line(self.console, self.steps_per_epoch * self.config.epochs) as self.line:
            for epoch in range(self.config.epochs):
                if not self._epoch(epoch):
                    break
        best = self._best()
        if best is None:
            self.best.save()
        else:
            self.best.checkpoint.restore(self.best.latest_checkpoint).assert_consumed()
        return best

    def _epoch(self, epoch: int) -> bool:
        """One pass over the data; False when patience is at its end."""
        config = self.config
        batches = training_batches(
            config.data, self.run.features, config.batch_size, config.seed, epoch
        )
        iterator = iter(batches)
        train = self.model.make_train_function()
        parts = config.validations_per_epoch
        due = {math.ceil(self.steps_per_epoch * (i + 1) / parts) for i in range(parts)}
        started = time.perf_counter()
        for step in range(1, self.steps_per_epoch + 1):
            try:
                logs = train(iterator)
            except tf.errors.DataLossError as error:
                raise broken_file(config.data, error) from None
            self.step.assign_add(1)
            rows = min(config.batch_size, self.rows - (step - 1) * config.batch_size)
            self.examples += rows
            if step % SUMMARY_STEPS == 0 or step in due:
                loss = float(logs["loss"])
                best = self._best()
                self.line.show(
                    int(self.step),
                    f"epoch {epoch + 1}  loss {loss:.4f}  {self._rate(started):,.0f} examples/s  "
                    + (f"best {_shown(best.metrics)}" if best else ""),
                )
            if step in due:
                self.training_seconds += time.perf_counter() - started
                self._validate(loss)
                started = time.perf_counter()
                if self._patience_is_over():
                    return False
        return True

    def _rate(self, started: float) -> float:
        return self.examples / (self.training_seconds + time.perf_counter() - started)

    def _validate(self, loss: float) -> None:
        step = int(self.step)
        self.model.loss_tracker.reset_state()
        self.last.save(checkpoint_number=step)
        metrics = self.evaluator.evaluate(self.model) if self.evaluator else {}
        epoch = step / self.steps_per_epoch
        self.history.append(Validation(step, round(epoch, 3), loss, metrics))
        if metrics and self._best() is self.history[-1]:
            self.best.save(checkpoint_number=step)
        self._write_summaries()
        rate = self.examples / self.training_seconds
        self.console.print(
            f"epoch {epoch:.2f}  loss {loss:.4f}  {_shown(metrics)}  {rate:,.0f} examples/s",
            highlight=False,
            soft_wrap=True,
        )

    def _write_summaries(self) -> None:
        newest = self.history[-1]
        with self.writer.as_default(newest.step):
            tf.summary.scalar("train/loss", newest.loss)
            for task, values in newest.metrics.items():
                for name, value in values.items():
                    if value is not None:
                        tf.summary.scalar(f"validation/{task}/{name}", value)

    def _score(self, validation: Validation) -> float:
        label = self.run.features.labels[0]
        name, sign = MONITORED[label.task]
        value = validation.metrics.get(label.name, {}).get(name)
        return -math.inf if value is None else sign * value

    def _best(self) -> Validation | None:
        measured = [v for v in self.history if v.metrics]
        return max(measured, key=self._score, default=None)  # the first of equal ones

    def _patience_is_over(self) -> bool:
        best = self._best()
        if best is None:
            return False
        return len(self.history) - 1 - self.history.index(best) >= self.config.patience

    @property
    def examples_per_second(self) -> float:
        """Over the training steps, without validation."""
        return self.examples / self.training_seconds if self.training_seconds else 0.0


class _Line:
    """The live line of progress, where the console is a terminal."""

    def __init__(self, console: Console, steps: int) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("starting", total=steps)

    def __enter__(self) -> _Line:
        self.progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def show(self, step: int, text: str) -> None:
        self.progress.update(self.task, description=text, completed=step)


def _shown(metrics: dict[str, dict[str, float | None]]) -> str:
    return "  ".join(
        f"{task}: "
        + ", ".join(f"{name} {value:.4f}" for name, value in values.items() if value is not None)
        for task, values in metrics.items()
    )


def _size(variable: tf.Variable) -> int:
    return math.prod(variable.shape) * variable.dtype.size


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
