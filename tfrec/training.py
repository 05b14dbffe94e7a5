"""The training loop."""

from __future__ import annotations

import contextlib
import math
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import tensorflow as tf
import tf_keras as keras
from rich.console import Console

from tfrec.checkpoints import Checkpoints, Position, writing
from tfrec.data import broken_file, training_batches
from tfrec.description import description
from tfrec.evaluation import evaluator
from tfrec.labels import check_labels
from tfrec.models.base import loss_name
from tfrec.models.retrieval.base import RetrievalModel
from tfrec.optimizers import composite, create_slots
from tfrec.positives import learn_items
from tfrec.progress import Line
from tfrec.runs import Run
from tfrec.strategies import agreement, coordinator, dealt, distributed, is_chief
from tfrec.strict import NotFiniteError, UserError
from tfrec.validation import Validation, shown

SHOWN_STEPS = 20
_NOT_FINITE = re.compile(r"(the (?:loss|input \S+|gradient of \S+)) : Tensor had")


class Interrupted(Exception):  # noqa: N818 - it is no error
    """A signal ended the training after a checkpoint.

    Args:
        number: of the signal.
        step: of the checkpoint.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"interrupted after step {step}; the same command goes on from there")
        self.number = number


class Trainer:
    """Trains the model of a run, and keeps the weights of its best validation.

    A run that was ended, however, goes on from its newest checkpoint: weights, optimizers, dropout
    masks, early stopping and the place in the data are what they would have been.

    Args:
        run: a run directory, new or with checkpoints.
        console: where progress is shown.
        strategy: devices and machines; the batch size is that of all together.
        watch: is told the step and the score of every validation.
    """

    def __init__(
        self,
        run: Run,
        console: Console,
        strategy: tf.distribute.Strategy | None = None,
        watch: Callable[[int, float], None] | None = None,
    ) -> None:
        self.watch = watch
        self.run, self.config, self.console = run, run.config, console
        self.strategy = strategy or tf.distribute.get_strategy()
        config = self.config
        if config.jit and self.strategy.num_replicas_in_sync > 1:
            raise UserError("jit works on one device only: leave out --jit, or take --strategy one")
        keras.utils.set_random_seed(config.seed)
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        self.rows = run.features.counts["train"]
        self.positive: str | None = None  # label that examples have to have, if any
        with self.strategy.scope():
            self.model = run.build_model()
            if config.jit and not self.model.xla:
                raise UserError(f"XLA lacks operations of model {config.model.id}: leave out --jit")
            if isinstance(self.model, RetrievalModel):
                self.rows = learn_items(self.model, config, run.features)
                self.positive = next((label.name for label in run.features.labels), None)
                self.warnings = []
            else:
                self.warnings = check_labels(config, run.features)
            self.steps_per_epoch = math.ceil(self.rows / config.batch_size)
            if config.task_weights:
                self.model.weigh_tasks(config.task_weights)
            self.groups = self.model.groups()
            self.rate_scale = tf.Variable(1.0, trainable=False, name="rate_scale")
            self.optimizer = composite(
                self.groups,
                dict(config.optimizers),
                self.steps_per_epoch * config.epochs,
                self.rate_scale if config.plateau else None,
            )
            self.model.compile(
                self.optimizer,
                config.item_loss if isinstance(self.model, RetrievalModel) else config.loss,
                config.clip_norm,
                config.embedding_l2,
                config.jit,
            )
            create_slots(self.optimizer, self.groups)
        self.position = Position()
        chief = is_chief(self.strategy)
        self.last = Checkpoints(
            run.checkpoints / "last",
            chief=chief,
            model=self.model,
            optimizer=self.optimizer,
            position=self.position.variable,
            rate_scale=self.rate_scale,
        )
        layers = [layer for layer in self.model.layers if layer is not self.model.task_weights]
        self.best = Checkpoints(run.checkpoints / "best", 2, chief, layers=layers)
        self.coordinator = self.model._cluster_coordinator = coordinator(self.strategy)
        self.evaluator = (
            evaluator(config, run.features, "validation", limited=True)
            if "validation" in run.features.counts
            else None
        )
        self.signal = 0
        self._agreed = agreement(self.strategy)
        self._dealt: Any = None

    @property
    def step(self) -> int:
        """Steps done."""
        return self.position.epoch * self.steps_per_epoch + self.position.step_in_epoch

    @property
    def history(self) -> list[Validation]:
        """Validations so far."""
        return [Validation(**values) for values in self.position.history]

    def describe(self) -> str:
        """The model, its parameters, what they take of memory, and what it is measured on."""
        title = f"model {self.config.model.id} on {self.run.features.name}"
        parts = [title, description(self.groups, self.config.optimizers, self.optimizer)]
        if self.evaluator:
            parts.append(f"measured on {self.evaluator.about()}")
        return "\n".join([*parts, *(f"warning: {text}" for text in self.warnings)])

    def resume(self) -> int | None:
        """Goes to the newest checkpoint that can be read; None where there is none.

        Raises:
            UserError: there are checkpoints and none can be read.
        """
        step = self.last.restore_newest(
            lambda text: self.console.print(f"warning: {text}", highlight=False, soft_wrap=True)
        )
        if step is not None:
            self.position.load()
            self.best.drop_after(step)  # of validations that are still to come
        return step

    def fit(self) -> Validation | None:
        """Trains until the epochs are done or patience is at its end.

        Returns:
            The best validation, or None without a validation split; its weights, or the last
            ones, are in the run's `best` checkpoint.

        Raises:
            UserError: a file of the data set is damaged, the loss, a gradient or a weight is not
                finite, or a checkpoint cannot be written.
            Interrupted: SIGTERM or SIGINT came; a checkpoint is written.
        """
        self.logs = str(self.run.directory / "logs")
        with writing(self.logs):
            self.writer = (
                tf.summary.create_file_writer(self.logs)
                if is_chief(self.strategy)
                else tf.summary.create_noop_writer()
            )
        total = self.steps_per_epoch * self.config.epochs
        with Line(self.console, total) as self.line, self._signals():
            while self.position.epoch < self.config.epochs and not self._patience_is_over():
                self._epoch()
        best = self._best()
        if best is None:
            self.best.save(self.step)
        return best

    def _epoch(self) -> None:
        """What is left of a pass over the data."""
        config, position = self.config, self.position
        iterator = self._iterator()
        train = self.model.make_train_function()
        parts = config.validations_per_epoch
        due = {math.ceil(self.steps_per_epoch * (i + 1) / parts) for i in range(parts)}
        started = time.perf_counter()
        while position.step_in_epoch < self.steps_per_epoch:
            self._step(train, iterator)
            done = position.step_in_epoch
            last_of_epoch = done == self.steps_per_epoch
            if done % SHOWN_STEPS == 0:
                self._show(self._loss(), self._rate(started))
            pause = done in due or self.step % config.checkpoint_steps == 0
            number = self._signal_to_all(pause or done % SHOWN_STEPS == 0)
            if pause or number:
                loss = self._loss()
                self._check_weights()
                position.seconds += time.perf_counter() - started
                if done in due:
                    self._validate(loss)
                if last_of_epoch:
                    position.epoch, position.step_in_epoch = position.epoch + 1, 0
                position.store()
                self.last.save(self.step)
                if done in due:
                    self._write_summaries(self.history[-1])
                started = time.perf_counter()
                if self.watch and done in due:
                    self.watch(self.step, self.score(self.history[-1]))
                if number:
                    raise Interrupted(number, self.step)
                if last_of_epoch or self._patience_is_over():
                    return

    def _iterator(self) -> Any:
        """Over the rest of the pass; where workers take steps as they can, over all to come."""
        position = self.position

        def batches(passes: int, *workers: Any) -> tf.data.Dataset:
            return training_batches(
                self.config.data,
                self.run.features,
                self.config.batch_size,
                self.config.seed,
                range(position.epoch, position.epoch + passes),
                position.step_in_epoch,
                self.positive,
                *workers,
            )

        if self.coordinator is None:
            return iter(distributed(self.strategy, batches(1)))
        if self._dealt is None:
            passes = self.config.epochs - position.epoch
            # A worker may take more than its share of the steps.
            self._dealt = iter(dealt(self.coordinator, lambda *w: batches(passes, *w).repeat()))
        return self._dealt

    def _step(self, train: Any, iterator: Any) -> None:
        position = self.position
        with self._failures():
            train(iterator)
        rows = self.rows - position.step_in_epoch * self.config.batch_size
        position.examples += min(self.config.batch_size, rows)
        position.step_in_epoch += 1

    def _loss(self) -> float:
        """Mean since the last validation, once all steps that were handed out are done."""
        if self.coordinator:
            with self._failures():
                self.coordinator.join()
        return float(self.model.loss_tracker.result())

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turns what may fail in a step into a clear line."""
        try:
            yield
        except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
            raise broken_file(self.config.data, error) from None
        except tf.errors.InvalidArgumentError as error:
            found = _NOT_FINITE.search(str(error))
            if not found:
                raise broken_file(self.config.data, error) from None
            self._check_weights()
            raise self._not_finite(self.step + 1, found.group(1)) from None

    def _check_weights(self) -> None:
        """Before they are kept: the step that broke them was no error yet."""
        for variable in self.model.trainable_variables:
            with tf.device(variable.device):  # which may be another machine
                norm = tf.nn.l2_loss(variable)
            if not math.isfinite(norm):
                raise self._not_finite(self.step, f"the weight {variable.name}")

    @staticmethod
    def _not_finite(step: int, what: str) -> NotFiniteError:
        return NotFiniteError(
            f"step {step}: {what} is not finite; the last good checkpoint stays. Look at the data, "
            "or begin anew in another --output with a lower learning rate or with clip_norm"
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Notes SIGTERM and SIGINT, for the step to end first."""

        def note(number: int, _frame: Any) -> None:
            self.signal = number

        in_main = threading.current_thread() is threading.main_thread()  # others may not
        numbers = (signal.SIGTERM, signal.SIGINT) if in_main else ()
        before = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signal_to_all(self, ask: bool) -> int:
        """The signal that ends the training after this step; 0 for none.

        Machines that take their steps together have to end at the same one.

        Args:
            ask: whether they ask one another after this step.
        """
        if self._agreed is None:
            return self.signal
        return self._agreed(self.signal) if ask else 0

    def _rate(self, started: float) -> float:
        return self.position.examples / (self.position.seconds + time.perf_counter() - started)

    def _show(self, loss: float, rate: float) -> None:
        best = self._best()
        text = f"epoch {self.position.epoch + 1}  loss {loss:.4f}  {rate:,.0f} examples/s"
        self.line.show(self.step, text + (f"  best {shown(best.metrics)}" if best else ""))

    def _validate(self, loss: float) -> None:
        told = [t for t in self.model.part_trackers if tf.convert_to_tensor(t.count) > 0]
        losses = {tracker.name: float(tracker.result()) for tracker in told}
        if self.model.task_weights:
            means = [losses.get(loss_name(label), 0.0) for label in self.run.features.labels]
            self.model.task_weights.after_validation(means)
        self.model.reset_metrics()
        metrics = self.evaluator.evaluate(self.model) if self.evaluator else {}
        gates = self.evaluator.gates(self.model) if self.evaluator else {}
        epoch = self.step / self.steps_per_epoch
        newest = Validation(self.step, round(epoch, 3), loss, metrics, losses, gates)
        self.position.history.append(asdict(newest))
        if metrics and self._best() == newest:
            self.best.save(self.step)
        self._lower_rates()
        text = f"{newest.text()}  {self.examples_per_second:,.0f} examples/s"
        self.console.print(text, highlight=False, soft_wrap=True)

    def _lower_rates(self) -> None:
        """Multiplies the learning rates by the plateau's factor when validation has stalled."""
        plateau = self.config.plateau
        stalled = self._since_best()
        if plateau and stalled and stalled % plateau.patience == 0:
            scale = max(float(self.rate_scale) * plateau.factor, plateau.minimum)
            self.rate_scale.assign(scale)

    def _write_summaries(self, newest: Validation) -> None:
        with writing(self.logs), self.writer.as_default(newest.step):
            for name, value in newest.scalars().items():
                tf.summary.scalar(name, value)
            tf.summary.scalar("train/rate_scale", self.rate_scale)
            if self.model.task_weights:
                factors = self.model.task_weights.factors()
                for label, factor in zip(self.run.features.labels, factors, strict=True):
                    tf.summary.scalar(f"train/{label.name}_weight", factor)
            self.writer.flush()

    def score(self, validation: Validation) -> float:
        """What validations are compared by: higher is better."""
        return validation.score(self.evaluator.monitored) if self.evaluator else -math.inf

    def judged_by(self, validation: Validation) -> str:
        """What its score is, in words."""
        return validation.judged_by(self.evaluator.monitored) if self.evaluator else ""

    def _best(self) -> Validation | None:
        measured = [v for v in self.history if v.metrics]
        return max(measured, key=self.score, default=None)  # the first of equal ones

    def _since_best(self) -> int:
        """Validations since the best one."""
        best = self._best()
        return 0 if best is None else len(self.history) - 1 - self.history.index(best)

    def _patience_is_over(self) -> bool:
        return self._since_best() >= self.config.patience

    @property
    def examples_per_second(self) -> float:
        """Over the training steps, without validation."""
        return self.position.examples / self.position.seconds if self.position.seconds else 0.0
