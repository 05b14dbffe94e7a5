"""The run directory: configuration, features, checkpoints, metrics, export."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from tfrec.config import TaskWeightsConfig, TrainConfig
from tfrec.features import FILE_NAME, Features
from tfrec.models.registry import find
from tfrec.overrides import check_hyperparameters, over_defaults
from tfrec.strict import UserError, nearest

if TYPE_CHECKING:
    from tfrec.models.base import Model

CONFIG = "config.yaml"
METRICS = "metrics.json"
CHECKPOINTS, BEST = "checkpoints", "best"


class Run:
    """A run directory.

    Args:
        directory: of the run.

    Attributes:
        config: the whole configuration.
        features: those of the data set, with the run's labels only, as its model takes them.
    """

    def __init__(self, directory: str | Path, config: TrainConfig, features: Features) -> None:
        self.directory = Path(directory)
        self.config = config
        labels = find(config.model.id).load().as_tasks(features.labels)
        self.features = dataclasses.replace(features, labels=labels)

    def check(self, overwrite: bool) -> None:
        """Checks that the directory is free, or holds this very run.

        Args:
            overwrite: another run may be there too.

        Raises:
            UserError: there is something else, or a run of another configuration.
        """
        directory = self.directory
        if (directory / CONFIG).is_file():
            if not overwrite:
                self._check_same(Run.load(directory))
        elif directory.exists() and not _begun(directory):
            raise UserError(f"{directory} exists and is no run; name another --output")

    def start(self, overwrite: bool) -> None:
        """Makes the directory, or goes on with the one that is there.

        Args:
            overwrite: drops what is there.
        """
        if overwrite and self.directory.exists():
            shutil.rmtree(self.directory)
        if (self.directory / CONFIG).is_file():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self.features.save(self.directory)
        text = yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)
        partial = self.directory / f"{CONFIG}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.directory / CONFIG)

    def _check_same(self, other: Run) -> None:
        old, new = other.config.model_dump(mode="json"), self.config.model_dump(mode="json")
        changed = sorted(_differences(old, new))
        if not changed and other.features != self.features:
            changed = ["the data set"]
        if changed:
            raise UserError(
                f"{self.directory} is a run of another configuration, which differs in "
                f"{', '.join(changed)}; name another --output, or pass --overwrite"
            )

    @classmethod
    def load(cls, directory: str | Path) -> Run:
        """Opens a run directory.

        Raises:
            UserError: it is none.
        """
        path = Path(directory) / CONFIG
        if not path.is_file():
            raise UserError(
                f"{directory} is no run: it has no {CONFIG}; "
                "make one with `python -m tfrec.train --output …`"
            )
        config = TrainConfig.load(path)
        constructor = find(config.model.id).load().__init__
        check_hyperparameters(constructor, config.model.hyperparameters)
        return cls(directory, config, Features.load(directory))

    def build_model(self) -> Model:
        """A new model of the run's configuration.

        Raises:
            UserError: its hyperparameters do not fit each other.
        """
        import tf_keras as keras

        keras.mixed_precision.set_global_policy(self.config.precision)
        model = find(self.config.model.id).load()
        try:
            return model(self.features, **self.config.model.hyperparameters)
        except ValueError as error:
            raise UserError(f"model {self.config.model.id}: {error}") from None

    def best_model(self) -> Model:
        """The run's model with its best weights.

        Where the newest of them cannot be read, those that were the best before, with a warning.

        Raises:
            UserError: the run has no checkpoint that can be read.
        """
        from tfrec.checkpoints import Checkpoints

        model = self.build_model()
        best = Checkpoints(self.checkpoints / BEST, layers=model.layers)
        if best.restore_newest(lambda text: click.echo(f"warning: {text}", err=True)) is None:
            raise UserError(f"{self.directory} has no checkpoint: its training did not get so far")
        return model

    @property
    def checkpoints(self) -> Path:
        """Where `best` and `last` checkpoints are."""
        return self.directory / CHECKPOINTS

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return bool(self.metrics().get("finished"))

    @property
    def export_directory(self) -> Path:
        """Where the numbered versions for serving are."""
        return self.directory / "export"

    def metrics(self) -> dict[str, Any]:
        """What has been measured so far."""
        path = self.directory / METRICS
        try:
            return json.loads(path.read_text()) if path.is_file() else {}
        except ValueError:
            raise UserError(f"{path} is damaged; delete it, it is made anew") from None

    def add_metrics(self, **values: Any) -> None:
        """Adds to `metrics.json`, whole or not at all."""
        path = self.directory / METRICS
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({**self.metrics(), **values}, indent=1) + "\n")
        partial.replace(path)


def best_weights(directory: Path) -> str | None:
    """Which weights are a run's best: their step, and a digest that others do not have.

    The index of a checkpoint holds the checksums of all that is in it. No TensorFlow.

    Args:
        directory: of the run.

    Returns:
        None where there are none.
    """
    found = {
        int(match.group(1)): path
        for path in (directory / CHECKPOINTS / BEST).glob("*.index")
        if (match := re.fullmatch(r"ckpt-(\d+)\.index", path.name))
    }
    if not found:
        return None
    newest = max(found)
    return f"{newest}-{hashlib.blake2b(found[newest].read_bytes(), digest_size=8).hexdigest()}"


def _begun(directory: Path) -> bool:
    """Whether a directory holds nothing but what a start that was killed leaves."""
    if not directory.is_dir():
        return False
    return {path.name for path in directory.iterdir()} <= {FILE_NAME, f"{CONFIG}.partial"}


def resolve(values: dict[str, Any], where: str) -> tuple[TrainConfig, Features]:
    """The whole configuration of a run: the user's values over the model's defaults.

    Args:
        values: from files and flags.
        where: what they are called in messages.

    Raises:
        UserError: something in them is wrong, or the data set does not suit the model.
    """
    config = _over_defaults(values, where)
    return resolve_for(values, where, Features.load(config.data))


def resolve_for(
    values: dict[str, Any], where: str, features: Features
) -> tuple[TrainConfig, Features]:
    """The same on a data set that is described already, and need not be there yet.

    Args:
        values: from files and flags.
        where: what they are called in messages.
        features: of the data set.

    Raises:
        UserError: something in the values is wrong, or the data set does not suit the model.
    """
    config = _over_defaults(values, where)
    entry = find(config.model.id)
    labels = config.labels
    if labels is None:
        every = [label.name for label in features.labels]
        labels = every if "labels" in entry.needs else every[:1]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"labels: {label!r} is named {labels.count(label)} times")
    features = features.with_labels(labels)
    entry.check(features)
    _check_tasks(config, labels)
    _check_family(config, features)
    _check_columns(config, features)
    constructor = entry.load().__init__
    hyperparameters = check_hyperparameters(constructor, config.model.hyperparameters)
    return config.model_copy(
        update={
            "data": str(Path(config.data).resolve()),  # the run may be used from elsewhere
            "labels": labels,
            "task_weights": _task_weights(config, features),
            "model": config.model.model_copy(update=hyperparameters),
        }
    ), features


def _over_defaults(values: dict[str, Any], where: str) -> TrainConfig:
    """The user's values over the defaults of the model that they name."""
    model = {key: value for key, value in values.items() if key in ("data", "model")}
    model_id = TrainConfig.parse(model, where).model.id
    return TrainConfig.parse(over_defaults(find(model_id).load().defaults, values), where)


def _check_tasks(config: TrainConfig, labels: list[str]) -> None:
    """Checks what the configuration says of the tasks by name.

    Raises:
        UserError: a task that the run does not have, or weights for one task alone.
    """
    weights = config.task_weights
    if weights and len(labels) < 2:
        one = f"one, {labels[0]!r}" if labels else "none"
        raise UserError(f"task_weights need several labels; the run has {one}")
    named = {"task_weights.weights": weights.weights if weights else (), "monitor": config.monitor}
    for key, names in named.items():
        for name in names or ():
            if name not in labels:
                raise UserError(f"{key}: the run has no label {name!r}{nearest(name, labels)}")


def _task_weights(config: TrainConfig, features: Features) -> TaskWeightsConfig | None:
    """Weights of the tasks: where they are fixed, those of the data set unless the user names them.

    Learned weights begin as they do in their papers.
    """
    named = config.task_weights
    given = {label.name: label.weight for label in features.labels if label.weight != 1}
    if len(features.labels) == 1 or not given or (named and named.kind != "fixed"):
        return named
    return TaskWeightsConfig(kind="fixed", weights={**given, **(named.weights if named else {})})


def _check_family(config: TrainConfig, features: Features) -> None:
    """Checks that all of the configuration is looked at, and that labels tell what is positive.

    Raises:
        UserError: it is not, or cannot.
    """
    of_items = find(config.model.id).scores_items
    for key in ("loss", "monitor") if of_items else ("item_loss", "top_k"):
        if getattr(config, key) != type(config).model_fields[key].default:
            others = "examples" if of_items else "all items"
            raise UserError(
                f"{key}: belongs to models that score {others}, not to {config.model.id}"
            )
    for label in features.labels if of_items else ():
        if label.task != "binary":
            raise UserError(
                f"model {config.model.id} learns from examples whose label is 1; {label.name!r} is "
                f"a {label.task}: name another one in `labels`"
            )


def _check_columns(config: TrainConfig, features: Features) -> None:
    """Checks that the inputs of the run's exports have names of their own.

    Raises:
        UserError: a column is called as an option of theirs.
    """
    from tfrec.ranking import CANDIDATES, ranks
    from tfrec.recommending import user_specs

    if find(config.model.id).scores_items:
        user_specs(features)
    elif ranks(features, Path(config.data)):
        user_specs(features, CANDIDATES)


def first_step(config: TrainConfig, first: str) -> dict[str, Any]:
    """Configuration of the model that another one begins from: the same, as far as it knows it.

    Args:
        config: of the whole run.
        first: id of that model.
    """
    known = inspect.signature(find(first).load().__init__).parameters
    hyperparameters = config.model.hyperparameters.items()
    model = {"id": first, **{name: value for name, value in hyperparameters if name in known}}
    return {**config.model_dump(mode="json"), "model": model}


def _differences(old: dict[str, Any], new: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths of the keys whose values differ."""
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{path}{key}.")
        elif before != after:
            yield f"{path}{key}"
