"""What all models have in common."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import ItemLossConfig, LossConfig, TaskWeightsConfig
from tfrec.features import Features, Label
from tfrec.losses import global_mean, task_loss
from tfrec.optimizers import clipped
from tfrec.strict import UserError
from tfrec.task_weights import KINDS, GradNorm, TaskWeights

Inputs = dict[str, tf.Tensor]

# Training settings for some 100,000 examples, where larger steps overfit within an epoch: all but
# those of the first-order weights, which have to be found before. Validations are noisy meanwhile.
SMALL_DATA: dict[str, Any] = {
    "patience": 6,
    "optimizers": {
        "linear": {"learning_rate": 3.0},
        "embedding": {"learning_rate": 1e-4, "l2": 1e-3},
        "dense": {"learning_rate": 1e-4},
    },
}
# The same for models that look at histories, in the same tables as the candidates.
SMALL_HISTORIES: dict[str, Any] = {
    "optimizers": {
        "linear": {"learning_rate": 3.0},
        "embedding": {"l2": 3e-3},
        "dense": {"learning_rate": 3e-4},
    }
}


class _Complete(type):
    """Gives a model its configuration and its variables as soon as its constructor returns."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        model = super().__call__(*args, **kwargs)
        if isinstance(model, Model):
            bound = inspect.signature(type(model).__init__).bind(model, *args, **kwargs)
            bound.apply_defaults()
            _, _, *hyperparameters = bound.arguments.items()  # without self and features
            # Not through Keras' setattr, which would wrap what is in it.
            object.__setattr__(model, "hyperparameters", dict(hyperparameters))
            model._step.auxiliary = []  # what only training needs is made too
            model(empty_batch(model.features), training=False)
            del model._step.auxiliary
        return model


class Model(keras.Model, metaclass=_Complete):
    """A model built from the features of a data set and its own hyperparameters.

    `call` takes a dict of named tensors, as `tfrec.data` yields them, and returns a dict
    task → logits (batch,) float32. All variables exist when the constructor returns, and belong
    to an optimizer group by the layer that owns them: `linear`, `embedding` or `dense`.

    Attributes:
        features: of the data set.
        hyperparameters: all other constructor arguments, by name.
        defaults: training settings that suit the model where the user names none.
        pretrained: id of the model that is trained first, if there is one.
        xla: whether XLA has all the operations of a training step.
        serves_odds: whether an export gives the odds of what is evaluated.
        auxiliary: names of the losses that the model adds to those of its tasks in training.
        part_trackers: means of the parts of the loss: `<task>_loss` of each of several tasks, and
            the auxiliary ones.
    """

    defaults: ClassVar[dict[str, Any]] = {}
    pretrained: ClassVar[str | None] = None
    xla: ClassVar[bool] = True
    serves_odds: ClassVar[bool] = False
    auxiliary: ClassVar[tuple[str, ...]] = ()

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features = features
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.task_weights: TaskWeights | None = None
        # What a call leaves for its training step; replicas take their steps in threads.
        object.__setattr__(self, "_step", threading.local())
        labels = features.labels if len(features.labels) > 1 else ()
        parts = [*(loss_name(label) for label in labels), *self.auxiliary]
        self.part_trackers = [keras.metrics.Mean(name=name) for name in parts]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Means over the training steps since they were reset: of the loss, and of the others."""
        return [self.loss_tracker, *self.part_trackers]

    def add_auxiliary(
        self, name: str, losses: Callable[[], tuple[tf.Tensor, tf.Tensor]], share: float
    ) -> None:
        """Adds a loss to that of the current training step; called in `call`.

        Args:
            name: one of `auxiliary`.
            losses: gives them and their weights, both (batch, …); their mean over all replicas
                counts, each example by its own weight too. Called in training steps only, so that
                it costs nothing elsewhere.
            share: that it is multiplied by.
        """
        if hasattr(self._step, "auxiliary"):
            self._step.auxiliary.append((name, losses(), share))

    @classmethod
    def as_tasks(cls, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        """A run's labels, with what the model knows of one by another."""
        return labels

    def weigh_tasks(self, config: TaskWeightsConfig) -> None:
        """Gives the losses of several tasks weights; before the model's groups are asked for.

        Raises:
            UserError: gradnorm, and no layer that all tasks share.
        """
        if config.kind == "gradnorm" and not self.last_shared:
            raise UserError(
                "task_weights: gradnorm needs a layer that all tasks share above the embeddings, "
                "and this model has none; take another kind"
            )
        self.task_weights = KINDS[config.kind](self.features.labels, config)

    @property
    def last_shared(self) -> list[tf.Variable]:
        """Variables of the last layer that all tasks share; none where there is no such layer."""
        return []

    def begin_from(self, pretrained: Model) -> None:
        """Takes what the model needs from the one that was trained first."""
        raise NotImplementedError

    def compile(
        self,
        optimizer: Any,
        loss_config: LossConfig | ItemLossConfig | None = None,
        clip_norm: float | None = None,
        embedding_l2: float = 0.0,
        jit: bool = False,
        **kwargs: Any,
    ) -> None:
        """Sets how the model is trained.

        Args:
            optimizer: of all variables; `tfrec.optimizers.composite` makes one. Under
                mixed_float16 it is wrapped, so that the loss is scaled.
            loss_config: of binary tasks, or of models that score all items.
            clip_norm: largest global norm of a step's gradients.
            embedding_l2: λ of λ/2 Σ w² over whole embedding tables, added to the loss.
            jit: computes losses and gradients by XLA. The optimizers' steps are not: it has no
                kernels for sparse ones.
            **kwargs: of `keras.Model.compile`.
        """
        if keras.mixed_precision.global_policy().name == "mixed_float16":
            optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
        super().compile(optimizer=optimizer, **kwargs)
        self.loss_config: Any = loss_config
        self.clip_norm, self.embedding_l2 = clip_norm, embedding_l2
        self._losses_and_gradients = (
            tf.function(self._gradients, jit_compile=True) if jit else self._gradients
        )

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """One step on (inputs, labels by task, weights). Used by `fit` and by `tfrec.train`.

        Raises:
            tf.errors.InvalidArgumentError: an input, the loss or a gradient is not finite; the
                message names the first of them. A scaled loss is halved before, until its scale
                is 1.
        """
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        losses, total, gradients, of_shared = self._losses_and_gradients(*data)
        variables = self.trainable_variables
        numbers = {name: value for name, value in data[0].items() if value.dtype.is_floating}
        inputs = [
            tf.debugging.check_numerics(v, f"the input {name}") for name, v in numbers.items()
        ]
        with tf.control_dependencies(inputs):
            loss = tf.debugging.check_numerics(total, "the loss")
        with tf.control_dependencies([loss]):
            checked = tf.constant(True)
            if isinstance(self.optimizer, keras.mixed_precision.LossScaleOptimizer):
                # It leaves out a step whose gradients are not finite, and halves the scale.
                gradients = self.optimizer.get_unscaled_gradients(gradients)
                of_shared = [self.optimizer.get_unscaled_gradients(g) for g in of_shared]
                checked = self.optimizer.loss_scale <= 1.0
            gradients = [_finite(g, v, checked) for g, v in zip(gradients, variables, strict=True)]
        if self.clip_norm:
            if replicas > 1:
                context = tf.distribute.get_replica_context()
                gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            gradients = clipped(gradients, self.clip_norm)
        self.optimizer.apply_gradients(
            zip(gradients, variables, strict=True),
            experimental_aggregate_gradients=not self.clip_norm,
        )
        if isinstance(self.task_weights, GradNorm):
            of_tasks = [losses[loss_name(label)] for label in self.features.labels]
            means, told = (tf.stack(values) for values in zip(*of_tasks, strict=True))
            self.task_weights.after_step(means, told, of_shared)
        for tracker in self.metrics:  # the losses of the replicas add up to the global mean
            loss, told = losses[tracker.name]
            tracker.update_state(loss * replicas, told)
        return {tracker.name: tracker.result() for tracker in self.metrics}

    def _gradients(
        self, inputs: Inputs, labels: dict[str, tf.Tensor], weights: tf.Tensor
    ) -> tuple[dict[str, tuple[tf.Tensor, tf.Tensor]], tf.Tensor, list[Any], list[Any]]:
        """Losses by name, what is minimised, its gradients, and those that GradNorm needs.

        Beside each loss stands 1, or 0 where nothing in the step tells it. Gradients are scaled
        where the loss is.
        """
        self._step.auxiliary = []
        balancing = isinstance(self.task_weights, GradNorm)
        with tf.GradientTape(persistent=balancing) as tape:
            of_rows = self.task_losses(inputs, labels, weights)
            of_tasks = {name: global_mean(*pair) for name, pair in of_rows.items()}
            means, told = (list(values) for values in zip(*of_tasks.values(), strict=True))
            total = self.task_weights(means, told) if self.task_weights else tf.add_n(means)
            losses = dict.fromkeys(self.auxiliary, (0.0, 0.0))
            losses |= {"loss": (total, tf.reduce_max(told)), **of_tasks}
            for name, (parts, of_parts), share in self._step.auxiliary:
                of_examples = tf.reshape(weights, [-1] + [1] * (parts.shape.rank - 1))
                mean, any_told = global_mean(parts, of_parts * of_examples)
                losses[name] = losses[name][0] + mean, tf.maximum(losses[name][1], any_told)
                total += share * mean
            if self.embedding_l2:
                replicas = tf.distribute.get_strategy().num_replicas_in_sync
                squares = [tf.reduce_sum(tf.square(v)) for v in self.groups()["embedding"]]
                total += self.embedding_l2 / 2 * tf.add_n(squares) / replicas
            scaling = isinstance(self.optimizer, keras.mixed_precision.LossScaleOptimizer)
            scale = self.optimizer.get_scaled_loss if scaling else tf.identity
            scaled = scale(total)
            scaled_tasks = [scale(mean) for mean in means] if balancing else []
        del self._step.auxiliary
        of_shared = [tape.gradient(loss, self.last_shared) for loss in scaled_tasks]
        return losses, total, tape.gradient(scaled, self.trainable_variables), of_shared

    def task_losses(
        self, inputs: Inputs, labels: dict[str, tf.Tensor], weights: tf.Tensor
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """Losses of a training step by name, and their weights, of one shape each."""
        logits = self(inputs, training=True)
        return {
            loss_name(label): task_loss(
                label, labels[label.name], logits[label.name], weights, self.loss_config
            )
            for label in self.features.labels
        }

    def served(self, logits: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """What an export answers with; two stages rank by what comes first."""
        return self.probabilities(logits)

    def explain(self, inputs: Inputs) -> dict[str, tf.Tensor]:
        """What the model attends to, by name, (batch, …); empty where it has no attention."""
        del inputs
        return {}

    def gates(self, inputs: Inputs) -> dict[str, tf.Tensor]:
        """What share each expert has, by gate, (batch, experts); empty where there is no gate."""
        del inputs
        return {}

    def probabilities(self, logits: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """What is evaluated: a probability for a binary task, the value itself for a regression."""
        return {
            label.name: tf.sigmoid(logits[label.name])
            if label.task == "binary"
            else logits[label.name]
            for label in self.features.labels
        }

    def groups(self) -> dict[str, list[tf.Variable]]:
        """Trainable variables by optimizer group."""
        groups: dict[str, list[tf.Variable]] = {"linear": [], "embedding": [], "dense": []}
        for layer in self.submodules:
            if isinstance(layer, keras.layers.Layer) and layer.trainable:
                group = getattr(layer, "optimizer_group", "dense")
                groups[group] += layer._trainable_weights  # its own, not those of nested layers
        return groups

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-ready."""
        return {"features": self.features.to_dict(), **self.hyperparameters}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Model:
        """Rebuilds an untrained model from `get_config`."""
        del custom_objects
        return cls(**{**config, "features": Features.from_dict(config["features"])})


def _finite(gradient: Any, variable: tf.Variable, checked: tf.Tensor) -> Any:
    """The gradient, if `checked`; named by its variable where its norm is not finite.

    Moments hold squares of gradients, so that these have to be finite too.
    """
    sparse = isinstance(gradient, tf.IndexedSlices)
    values = gradient.values if sparse else gradient
    norm = tf.where(checked, tf.nn.l2_loss(values), 0.0)
    with tf.control_dependencies(
        [tf.debugging.check_numerics(norm, f"the gradient of {variable.name}")]
    ):
        values = tf.identity(values)
    return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape) if sparse else values


class RankingModel(Model):
    """A model of one task: subclasses compute its logit in `logits`.

    Raises:
        ValueError: the features have several labels; choose one with `Features.with_labels`.
    """

    def __init__(self, features: Features) -> None:
        if len(features.labels) != 1:
            names = [label.name for label in features.labels]
            raise ValueError(f"a ranking model has one task, the features have {names}")
        super().__init__(features)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        """(batch,) logits of the task."""
        raise NotImplementedError

    def call(self, inputs: Inputs, training: bool | None = None) -> dict[str, tf.Tensor]:
        """Logits by task."""
        logits = tf.cast(self.logits(inputs, training), tf.float32)
        return {self.features.labels[0].name: logits}


class MultiTaskModel(Model):
    """A model of several tasks: subclasses compute their logits in `logits`.

    Raises:
        ValueError: the features have one label only.
    """

    def __init__(self, features: Features) -> None:
        if len(features.labels) < 2:
            names = [label.name for label in features.labels]
            raise ValueError(f"has several tasks, the features have {names}")
        super().__init__(features)

    def logits(self, inputs: Inputs, training: bool | None) -> dict[str, tf.Tensor]:
        """(batch,) logits by task."""
        raise NotImplementedError

    def call(self, inputs: Inputs, training: bool | None = None) -> dict[str, tf.Tensor]:
        """Logits by task."""
        logits = self.logits(inputs, training)
        return {task: tf.cast(values, tf.float32) for task, values in logits.items()}


def loss_name(label: Label) -> str:
    """What the loss of one of several tasks is called."""
    return f"{label.name}_loss"


def input_shapes(features: Features) -> dict[str, tuple[tf.DType, tuple[int, ...]]]:
    """Dtype and shape, without the batch, of every input of a model."""
    shapes: dict[str, tuple[tf.DType, tuple[int, ...]]] = {}
    for feature in (*features.features, *features.crosses):
        dtype = tf.int64 if feature.kind == "category" else tf.float32
        shapes[feature.name] = (dtype, (feature.length,) if feature.length else ())
    for history in features.histories:
        for feature in history.features:
            dtype = tf.int64 if feature.kind == "category" else tf.float32
            values = (feature.length,) if feature.length else ()
            shapes[feature.name] = (dtype, (history.length, *values))
    return shapes


def empty_batch(features: Features) -> Inputs:
    """One example of nothing but padding."""
    return {
        name: tf.zeros((1, *shape), dtype)
        for name, (dtype, shape) in input_shapes(features).items()
    }
