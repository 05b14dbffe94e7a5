"""`python -m tfrec.tune`: a search over hyperparameters, with Optuna."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import PositiveInt, model_validator

from tfrec.cli import command, quiet_import
from tfrec.overrides import merge
from tfrec.strict import Strict, UserError

CONFIG = "tune.yaml"
START_UP_TRIALS = 5  # before pruning, and before the sampler follows what it has seen


class Choice(Strict):
    """Values that one key of the training configuration may have.

    Attributes:
        choices: a list of values; or
        low, high: a range, of integers when both are.
        log: whether the range is searched by its logarithm.
    """

    choices: list[Any] | None = None
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Choice:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("needs either `choices`, or `low` and `high`")
        if self.choices is not None and (self.log or (self.low, self.high) != (None, None)):
            raise ValueError("`low`, `high` and `log` have no part in `choices`")
        if self.choices == []:
            raise ValueError("`choices` is empty")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("`low` has to be below `high`")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError("`low` has to be above 0 for a logarithm")
        return self

    def suggest(self, trial: Any, key: str) -> Any:
        """The value that a trial gets."""
        if self.choices is not None:  # as JSON, since a choice may be a list
            options = [json.dumps(choice) for choice in self.choices]
            return json.loads(trial.suggest_categorical(key, options))
        kind = "int" if isinstance(self.low, int) and isinstance(self.high, int) else "float"
        return getattr(trial, f"suggest_{kind}")(key, self.low, self.high, log=self.log)


class TuneConfig(Strict):
    """A search.

    Attributes:
        training: a training configuration; the values of `space` go over it.
        space: what is searched, by key of the training configuration such as `model.dropout`.
        trials: how many runs, those pruned included.
        seed: of the search.
    """

    training: dict[str, Any]
    space: dict[str, Choice]
    trials: PositiveInt = 20
    seed: int = 0


@click.command()
@click.option("--config", required=True, help="Training configuration and search space (YAML).")
@click.option("--output", required=True, type=Path, help="Directory of the search.")
@click.option("--trials", type=int, help="How many runs; more go on from those that are there.")
@command
def main(config: str, output: Path, trials: int | None) -> None:
    """Search for the settings with the best validation metric, and export the best run.

    A search that was ended goes on when the same command is started again, and so does the run
    that it was in.
    """
    search = TuneConfig.load(config)
    if trials is not None:
        search = search.model_copy(update={"trials": trials})
    _same_as_before(search, output)
    study = _study(search, output)
    states = _states()
    for ended in study.get_trials(states=[states.RUNNING]):  # by a signal or a crash
        study.tell(ended.number, state=states.FAIL)
        study.enqueue_trial(ended.params)
    done = len(study.get_trials(states=[states.COMPLETE, states.PRUNED]))
    failures: list[UserError] = []

    def run_trial(trial: Any) -> float:
        try:
            return _run(trial, search, output)
        except UserError as error:  # settings that diverge or do not fit each other are bad ones
            failures.append(error)
            if len(failures) == START_UP_TRIALS == trial.number + 1:  # or all are
                raise
            click.echo(str(error))
            raise _optuna().TrialPruned from None

    study.optimize(run_trial, max(search.trials - done, 0))
    click.echo(_table(study, search))
    if not study.get_trials(states=[states.COMPLETE]):
        raise UserError(f"no trial came to its end{f': {failures[-1]}' if failures else ''}")
    best = _directory(output, study.best_trial.params)
    with quiet_import():
        from tfrec.export import export
        from tfrec.runs import Run
    run = Run.load(best)
    if judged_by := run.metrics().get("judged_by"):  # older runs do not tell
        click.echo(f"score: validation, {judged_by}")
    click.echo(f"best: {best}\nexported {export(run, run.best_model())}")


def _same_as_before(search: TuneConfig, output: Path) -> None:
    text = yaml.safe_dump(search.model_dump(mode="json", exclude={"trials"}), sort_keys=False)
    path = output / CONFIG
    if path.is_file() and path.read_text() != text:
        raise UserError(f"{output} is a search of another configuration; name another --output")
    output.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("the search needs Optuna: pip install 'tfrec[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # failures are said in one line
    return optuna


def _states() -> Any:
    return _optuna().trial.TrialState


def _study(search: TuneConfig, output: Path) -> Any:
    optuna = _optuna()
    study = optuna.create_study(
        study_name="tune",
        storage=f"sqlite:///{output / 'study.db'}",
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=START_UP_TRIALS),
    )
    # A search that goes on must not draw again what it drew first.
    seed = search.seed + len(study.get_trials())
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=START_UP_TRIALS, seed=seed)
    return study


def _directory(output: Path, parameters: dict[str, Any]) -> Path:
    """A run's place follows from its settings, so that it is gone on with, not begun again."""
    text = json.dumps(parameters, sort_keys=True)
    return output / "trials" / hashlib.sha256(text.encode()).hexdigest()[:12]


def _run(trial: Any, search: TuneConfig, output: Path) -> float:
    from tfrec.train import train

    pruned = _optuna().TrialPruned
    values = search.training
    for key, choice in search.space.items():
        nested: Any = choice.suggest(trial, key)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        values = merge(values, nested)
    directory = _directory(output, trial.params)
    click.echo(f"trial {trial.number}: {trial.params}")

    def watch(step: int, score: float) -> None:
        trial.report(score, step)
        if trial.should_prune():
            raise pruned

    metrics = train(values, directory, str(output / CONFIG), export=False, watch=watch)
    if metrics["best_score"] is None:
        raise UserError("the search needs a data set with a validation split")
    return metrics["best_score"]


def _table(study: Any, search: TuneConfig) -> str:
    """All trials, the best first, as Markdown."""
    keys = list(search.space)
    lines = [f"| trial | {' | '.join(keys)} | score | state |", "| --- " * (len(keys) + 3) + "|"]

    def rank(trial: Any) -> tuple[bool, float]:  # a trial that was pruned has a value too
        complete = trial.state == _states().COMPLETE
        return complete, -math.inf if trial.value is None else trial.value

    for trial in sorted(study.get_trials(), key=rank, reverse=True):
        cells = [str(trial.params.get(key, "")) for key in keys]
        score = "" if trial.value is None else f"{trial.value:.4f}"
        state = trial.state.name.lower()
        lines.append(f"| {trial.number} | {' | '.join(cells)} | {score} | {state} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
