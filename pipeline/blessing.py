"""Whether a model may be served: its figures against rules, and against the model that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.blocks import BlessDeclaration
from pipeline.workspace import digest_of_files
from serving.versions import versions
from tfrec.aims import badness
from tfrec.bootstrap import FEWEST, difference
from tfrec.export import newest_version
from tfrec.figures import Report, is_part, with_interval
from tfrec.strict import UserError, nearest

EVALUATION = "evaluation.json"
EXTRA = "assets.extra"

Record = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What became of one limit of a rule.

    Attributes:
        kept: whether the model keeps it.
        text: a line: rule, figure, interval, limit, and what to do where it is not kept.
    """

    kept: bool
    text: str


@dataclass(frozen=True)
class Current:
    """The model that is served.

    Attributes:
        name: of it, for people.
        report: of the examples that the new model was measured on; None if it cannot be asked.
        reason: why it cannot.
    """

    name: str
    report: Report | None
    reason: str = ""


def export_of(run: Path) -> Path:
    """The export of a run that is meant: the newest version.

    Raises:
        UserError: there is none.
    """
    version = newest_version(run / "export")
    if version is None:
        raise UserError(
            f"{run} has no export; make it with `python -m tfrec.export --run {run}`, or train anew"
        )
    return version


def digest_of_export(version: Path) -> str:
    """Digest of a version, which is the same where it was made and where it is served."""
    added = version / EXTRA / EVALUATION  # by the step `push`
    return digest_of_files((p for p in version.rglob("*") if p.is_file() and p != added), version)


def current_version(served: Path, export: str | None) -> tuple[Path, str] | None:
    """What is served, or what was before this very export was; and its digest.

    So a blessing keeps standing on the model that it was held against.

    Args:
        served: directory of the served versions.
        export: digest of the export that is to be blessed.
    """
    found = versions(served) if served.is_dir() else {}
    for number in sorted(found, reverse=True):
        if (digest := digest_of_export(found[number])) != export:
            return found[number], digest
    return None


def judge(
    rules: Sequence[BlessDeclaration], report: Report, current: Current | None
) -> list[Verdict]:
    """Holds a model against all rules.

    Args:
        rules: of the declaration.
        report: of the model.
        current: the model that is served, if there is one.

    Returns:
        One for every limit, and for every part where a rule is of all parts of a feature.

    Raises:
        UserError: a rule is of a metric, a task or a slice that there is not.
    """
    own = [record for record in report.records if record["name"] == report.model]
    if current and current.report:  # models may take what is missing otherwise: see Label.after
        alike = dict(current.report.digests.items() & report.digests.items())
        some = [record for record in current.report.records if record["task"] in alike]
        current = replace(current, report=replace(current.report, records=some))
    verdicts: list[Verdict] = []
    for number, rule in enumerate(rules, 1):
        where = f"bless rule {number}"
        records = _records(rule, own, where)
        if not records:
            text = (
                f"{where}: no part by {rule.slice} has {FEWEST} users and {rule.metric}, so that "
                "nothing shows that the rule is kept: measure more examples, or leave slice out"
            )
            verdicts.append(Verdict(False, text))
        for record in records:
            verdicts += _of_record(rule, record, current, where)
    return verdicts


def _records(rule: BlessDeclaration, own: list[Record], where: str) -> list[Record]:
    """What of a report a rule is of; nothing where all parts of a feature say nothing."""
    tasks = list(dict.fromkeys(record["task"] for record in own))
    task = rule.task or tasks[0]
    if task not in tasks:
        raise UserError(f"{where}: the model has no task {task!r}{nearest(task, tasks)}")
    of_task = [record for record in own if record["task"] == task]
    known = of_task[0]["metrics"]
    if rule.metric not in known:
        near = nearest(rule.metric, known)
        raise UserError(f"{where}: no metric {rule.metric!r} of {task}{near}")
    if rule.slice is None:
        return [record for record in of_task if record["slice"] is None]
    parts = [record for record in of_task if record["slice"]]
    if found := [record for record in parts if is_part(rule.slice, record["slice"])]:
        return found
    found = [record for record in parts if record["slice"].startswith(f"{rule.slice}=")]
    if not found:
        near = nearest(rule.slice, [record["slice"] for record in parts])
        raise UserError(f"{where}: no example is in slice {rule.slice!r}{near}")
    # A part of a few users, or without a figure, says nothing of users that are to come.
    return [r for r in found if _users(r) >= FEWEST and r["metrics"].get(rule.metric) is not None]


def _users(record: Record) -> int:
    """In a record; examples, where each stands for itself."""
    users: int = record["examples"] if record["users"] is None else record["users"]
    return users


def _of_record(
    rule: BlessDeclaration, record: Record, current: Current | None, where: str
) -> Iterator[Verdict]:
    metric = rule.metric
    value, interval = record["metrics"].get(metric), record["intervals"].get(metric)
    part = f", {record['slice']}," if record["slice"] else ""
    shown = "none" if value is None else with_interval(value, interval)
    begin = f"{where}: {metric} of {record['task']}{part} is {shown}"
    for key, limit, sign in (("at_least", rule.at_least, 1), ("at_most", rule.at_most, -1)):
        if limit is not None:
            kept = value is not None and sign * value >= sign * limit
            text = f"{begin}, and has to be {key.replace('_', ' ')} {limit:g}"
            remedy = f"train a better model, or {'lower' if sign > 0 else 'raise'} {key}"
            if value is None:  # whatever the model, as of AUC where all labels are equal
                remedy = "measure more examples, or leave the rule out"
            yield Verdict(kept, text if kept else f"{text}: {remedy}")
    if rule.worse_by is not None:
        yield _no_worse(rule, record, current, begin)


def _no_worse(
    rule: BlessDeclaration, record: Record, current: Current | None, begin: str
) -> Verdict:
    """The served model and the new one on the same users.

    It is refused where the whole 95% interval of how much worse it is lies beyond `worse_by`; where
    there is no interval, where the difference itself does.
    """
    assert rule.worse_by is not None
    if current is None:
        return Verdict(True, f"{begin}, and no other model is served yet")
    if current.report is None:
        return Verdict(
            False,
            f"{begin}, and {current.name} cannot be asked ({current.reason}): leave worse_by out "
            "for this once",
        )
    place = record["task"], record["slice"]
    of_current = [r for r in current.report.records if (r["task"], r["slice"]) == place]
    found = None
    if of_current:
        found = difference(rule.metric, of_current[0], record, lambda v: badness(rule.metric, v))
    if found is None:
        return Verdict(
            False,
            f"{begin}, and {current.name} or the model itself has none of the same labels to "
            "compare: leave worse_by out for this once",
        )
    worse, interval = found
    before = of_current[0]["metrics"][rule.metric]
    word = "worse" if worse > 0 else "better"
    half = f" ±{(interval[1] - interval[0]) / 2:.4f}" if interval else ""
    text = (
        f"{begin}, {word} by {abs(worse):.4f}{half} than {before:.4f} of {current.name}, and may "
        f"be worse by {rule.worse_by:g}"
    )
    kept = (interval[0] if interval else worse) <= rule.worse_by
    return Verdict(kept, text if kept else f"{text}: train a better model, or raise worse_by")
