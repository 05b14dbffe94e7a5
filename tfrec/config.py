"""The configuration of a training run. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from tfrec.strict import Strict

# Types of hyperparameters. Constructors of models use them, so that values are checked by them.
Width = PositiveInt
Widths = Sequence[PositiveInt]
Share = Annotated[float, Field(ge=0, lt=1)]
Activation = Literal[
    "relu", "dice", "prelu", "elu", "gelu", "leaky_relu", "linear", "selu", "sigmoid", "softplus",
    "swish", "tanh",
]  # fmt: skip

STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "parameter_server")
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
PRECISIONS = get_args(Precision)


def _check_belongs(block: Strict, key: str, belongs: Mapping[str, tuple[str, ...]]) -> None:
    """Refuses values that the chosen kind would not look at.

    Args:
        block: of configuration.
        key: of its kind.
        belongs: kinds by the key that only they look at.
    """
    kind = getattr(block, key)
    for name, kinds in belongs.items():
        default = type(block).model_fields[name].default
        if getattr(block, name) != default and kind not in kinds:
            raise ValueError(f"`{name}` belongs to {' and '.join(kinds)}, not to {kind}")


class ScheduleConfig(Strict):
    """Shape of a learning rate over the steps.

    Attributes:
        kind: `constant`, `cosine` or `exponential`.
        warm_up: steps of a linear rise at the beginning.
        steps: of a cosine, where it ends; the run's last possible step unless given.
        end: of a cosine, the share of the learning rate that is left.
        rate, every: of an exponential, the factor, and the steps that it takes.
    """

    kind: Literal["constant", "cosine", "exponential"] = "constant"
    warm_up: NonNegativeInt = 0
    steps: PositiveInt | None = None
    end: Annotated[float, Field(ge=0, le=1)] = 0.0
    rate: Annotated[float, Field(gt=0, le=1)] = 0.95
    every: PositiveInt = 1000

    @model_validator(mode="after")
    def _known_to_it(self) -> ScheduleConfig:
        of_cosine, of_exponential = ("cosine",), ("exponential",)
        belongs = {"steps": of_cosine, "end": of_cosine}
        _check_belongs(self, "kind", {**belongs, "rate": of_exponential, "every": of_exponential})
        if self.steps and self.steps <= self.warm_up:
            raise ValueError("`steps` has to be above `warm_up`")
        return self


class OptimizerConfig(Strict):
    """Optimizer of one variable group.

    Attributes:
        name: `row_sparse_adam`, `adagrad`, `ftrl` and `sgd` cost what the batch's rows cost;
            `adam` touches whole tables.
        learning_rate: its step size.
        schedule: of the learning rate.
        l1: of ftrl.
        l2: of ftrl, and of row_sparse_adam (on the batch's rows).
        weight_decay: of row_sparse_adam, decoupled as in AdamW (on the batch's rows).
    """

    name: Literal["row_sparse_adam", "adam", "adagrad", "ftrl", "sgd"] = "row_sparse_adam"
    learning_rate: PositiveFloat = 0.001
    schedule: ScheduleConfig = ScheduleConfig()
    l1: NonNegativeFloat = 0.0
    l2: NonNegativeFloat = 0.0
    weight_decay: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _known_to_it(self) -> OptimizerConfig:
        belongs = {
            "l1": ("ftrl",),
            "l2": ("ftrl", "row_sparse_adam"),
            "weight_decay": ("row_sparse_adam",),
        }
        _check_belongs(self, "name", belongs)
        return self


class OptimizersConfig(Strict):
    """Optimizers by group.

    Attributes:
        linear: first-order weights.
        embedding: tables of vectors.
        dense: everything else.
    """

    # FTRL's accumulator begins at 0.1, far above a batch's mean gradient: its steps are small.
    linear: OptimizerConfig = OptimizerConfig(name="ftrl", learning_rate=1.0, l1=1e-4)
    embedding: OptimizerConfig = OptimizerConfig()
    dense: OptimizerConfig = OptimizerConfig(name="adam")


class LossConfig(Strict):
    """Loss of binary tasks, from logits.

    Attributes:
        kind: `bce` (cross-entropy), `focal`, or `weighted_logistic`: cross-entropy where only
            positives have the example's weight, such as a watch time, and negatives 1 (0 where
            theirs is 0).
        pos_weight: of bce, what a positive counts.
        gamma, alpha: of focal.
    """

    kind: Literal["bce", "focal", "weighted_logistic"] = "bce"
    pos_weight: PositiveFloat = 1.0
    gamma: NonNegativeFloat = 2.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.25

    @model_validator(mode="after")
    def _known_to_it(self) -> LossConfig:
        of_focal = ("focal",)
        belongs = {"pos_weight": ("bce",), "gamma": of_focal, "alpha": of_focal}
        _check_belongs(self, "kind", belongs)
        return self


_SAMPLED = ("sampled_softmax", "bce", "gbce", "bpr", "bpr_max", "top1", "top1_max")
# Kinds of item losses by the key that only they look at.
OF_ITEM_LOSSES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("negatives", "exponent", "in_batch", "hard_negatives"), _SAMPLED),
    "log_q": ("sampled_softmax",),
    "t": ("gbce",),
    "regularisation": ("bpr_max",),
}


class ItemLossConfig(Strict):
    """Loss of models that score all items, see `tfrec.item_losses`.

    Attributes:
        kind: `softmax` over all items, or one that compares the target with some of them:
            `sampled_softmax`, `bce`, `gbce`, `bpr`, `bpr_max`, `top1`, `top1_max`.
        negatives: items that are drawn: for each target, or for all of a step together where the
            loss compares negatives with one another (`sampled_softmax`, `bpr_max`, `top1_max`).
        exponent: of the items' counts, in the weights that they are drawn by: 0 is uniform, 1 by
            popularity.
        in_batch: the targets of the whole batch are negatives too.
        log_q: of sampled_softmax: takes the log of how often an item is expected among the
            negatives from its score, so that popular items are not held down.
        temperature: that scores are divided by.
        hard_negatives: how many count, those with the highest scores; all unless given.
        t: of gbce, its calibration.
        regularisation: of bpr_max, λ of the scores' squares.
    """

    kind: Literal[
        "softmax", "sampled_softmax", "bce", "gbce", "bpr", "bpr_max", "top1", "top1_max"
    ] = "sampled_softmax"
    negatives: NonNegativeInt = 256
    exponent: Annotated[float, Field(ge=0, le=1)] = 0.0
    in_batch: bool = False
    log_q: bool = True
    temperature: PositiveFloat = 1.0
    hard_negatives: PositiveInt | None = None
    t: Annotated[float, Field(ge=0, le=1)] = 0.75
    regularisation: NonNegativeFloat = 1.0

    @model_validator(mode="after")
    def _known_to_it(self) -> ItemLossConfig:
        _check_belongs(self, "kind", OF_ITEM_LOSSES)
        if self.kind != "softmax" and not self.negatives and not self.in_batch:
            raise ValueError(
                "`negatives` is 0 and `in_batch` false: there is nothing to compare with"
            )
        if self.kind == "gbce" and not self.negatives:
            raise ValueError("gbce is calibrated by how many items are drawn, and `negatives` is 0")
        return self


# Kinds of candidates by the key that only they look at.
OF_CANDIDATES: dict[str, tuple[str, ...]] = {
    "negatives": ("uniform", "popularity"),
    "file": ("given",),
    "remove_seen": ("all",),
}


class TopKConfig(Strict):
    """How models that score all items are measured: among which items a user's are looked for.

    Attributes:
        candidates: `all` items, or the target and some others: drawn `uniform` or by `popularity`
            among those that the user never took, or `given` in a file. Figures of one protocol say
            nothing about another.
        negatives: of uniform and popularity, how many.
        file: of given: lines of a user and the items that stand beside the target, separated by
            blanks.
        cutoffs: K of HR@K, recall@K and NDCG@K.
        monitor: metric that early stopping and the best weights go by.
        remove_seen: of all: what the user took before is no candidate.
        users: of validations during training, how many are looked at, by hash; all unless given.
    """

    candidates: Literal["all", "uniform", "popularity", "given"] = "all"
    negatives: PositiveInt = 100
    file: str | None = None
    cutoffs: Annotated[list[PositiveInt], Field(min_length=1)] = [5, 10, 20]
    monitor: str = "ndcg@10"
    remove_seen: bool = True
    users: PositiveInt | None = None

    @model_validator(mode="after")
    def _known_to_it(self) -> TopKConfig:
        _check_belongs(self, "candidates", OF_CANDIDATES)
        if self.candidates == "given" and not self.file:
            raise ValueError("candidates given needs `file`")
        known = [f"{name}@{k}" for k in self.cutoffs for name in ("hr", "recall", "ndcg")]
        if self.monitor not in (*known, "mrr"):
            raise ValueError(f"`monitor` {self.monitor!r} is none of {', '.join([*known, 'mrr'])}")
        return self


class PlateauConfig(Strict):
    """Lowers all learning rates when the validation metric no longer gets better.

    Attributes:
        factor: that they are multiplied by.
        patience: validations without a better one before that.
        minimum: smallest product of the factors.
    """

    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: PositiveInt = 1
    minimum: Annotated[float, Field(ge=0, lt=1)] = 1e-3


class TaskWeightsConfig(Strict):
    """What the losses of several tasks are multiplied by.

    Attributes:
        kind: `fixed`, `uncertainty` (learned variances), `dynamic` (by how fast the losses fall) or
            `gradnorm` (by the norms of their gradients); see `tfrec.task_weights`.
        weights: of fixed, by task; of those not named what the data set says of them.
        temperature: of dynamic; the higher, the more equal.
        alpha: of gradnorm, how much tasks that learn slowly gain.
        learning_rate: of gradnorm, the step size of the weights.
    """

    kind: Literal["fixed", "uncertainty", "dynamic", "gradnorm"] = "fixed"
    weights: dict[str, NonNegativeFloat] = {}
    temperature: PositiveFloat = 2.0
    alpha: NonNegativeFloat = 1.5
    learning_rate: PositiveFloat = 0.025

    @model_validator(mode="after")
    def _known_to_it(self) -> TaskWeightsConfig:
        of_gradnorm = ("gradnorm",)
        belongs = {"weights": ("fixed",), "temperature": ("dynamic",)}
        belongs |= {"alpha": of_gradnorm, "learning_rate": of_gradnorm}
        _check_belongs(self, "kind", belongs)
        if self.kind == "fixed" and not self.weights:
            raise ValueError("fixed needs `weights`, by task")
        return self


class ModelConfig(Strict):
    """A model's id, and its hyperparameters beside it."""

    model_config = ConfigDict(extra="allow")
    id: str

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What the user set."""
        return dict(self.model_extra or {})


class TrainConfig(Strict):
    """Everything that a training run depends on.

    Attributes:
        data: data set directory.
        model: which model, and its hyperparameters.
        labels: tasks to learn; a ranking model takes one, the data set's first unless given, and a
            model of several tasks all of them. To models that score all items, those with label 1
            are positive; with an empty list all examples are.
        batch_size: examples per step, over all devices.
        epochs: most passes over the training split.
        validations_per_epoch: how often validation metrics are taken, and patience counted.
        patience: validations without a better one before training stops.
        optimizers: by variable group.
        loss: of binary tasks.
        item_loss: of models that score all items.
        top_k: how those are measured.
        task_weights: of the losses of several tasks; fixed ones of the data set unless given.
        monitor: labels whose metrics early stopping, the best weights and plateaus go by, as a
            mean; all unless given.
        plateau: lowers learning rates when validation stalls; off unless given.
        clip_norm: largest global norm of a step's gradients; no limit unless given.
        embedding_l2: λ of λ/2 Σ w² over whole embedding tables at every step, as some published
            results used; costs what the tables cost. `optimizers.embedding.l2` is the cheap form.
        precision: of computation. Tables, logits, losses and moments are float32 in all of them;
            mixed_float16 scales the loss.
        jit: computes losses and gradients by XLA.
        checkpoint_steps: steps between checkpoints; every validation makes one too.
        deterministic: two runs of one seed are equal bit for bit, on the same kind of machine.
        seed: of initial weights, dropout and the order of examples.
    """

    data: str
    model: ModelConfig
    labels: list[str] | None = None
    batch_size: PositiveInt = 512
    epochs: PositiveInt = 20
    validations_per_epoch: PositiveInt = 2
    patience: PositiveInt = 3
    optimizers: OptimizersConfig = OptimizersConfig()
    loss: LossConfig = LossConfig()
    item_loss: ItemLossConfig = ItemLossConfig()
    top_k: TopKConfig = TopKConfig()
    task_weights: TaskWeightsConfig | None = None
    monitor: Annotated[list[str], Field(min_length=1)] | None = None
    plateau: PlateauConfig | None = None
    clip_norm: PositiveFloat | None = None
    embedding_l2: NonNegativeFloat = 0.0
    checkpoint_steps: PositiveInt = 1000
    deterministic: bool = False
    precision: Precision = "float32"
    jit: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
