"""What is wrong with a declaration's data, told from a sample, before any long run."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.blocks import FeatureDeclaration
from pipeline.declaration import Declaration
from pipeline.events import Layout, ParseEvents, has_lists
from pipeline.examples import count_splits
from pipeline.profile import SECONDS, UNITS, Profile, joint, unit_of
from pipeline.sources import head, most_of_file
from pipeline.writers import split_counts

SPARSE = 0.5  # share of missing values that is worth a word
UNIQUE = 0.5  # distinct values per row that leave a vocabulary nothing to learn
RARE_LABEL = 0.001
TOLD = 0.98  # AUC of one feature that is more likely the answer than a hint of it
BINS = 20  # of a number
FEW = 100  # values of a category, whose means over the sample say something of others


@dataclass(frozen=True)
class Finding:
    """Something that is wrong or odd.

    Attributes:
        error: the run would fail, or learn nothing; otherwise worth a look.
        what: is the matter.
        remedy: what to do about it; "" where `what` says it.
    """

    error: bool
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{'error' if self.error else 'warning'}: {self.what}{remedy}"


@dataclass(frozen=True)
class Scan:
    """What a sample tells.

    Attributes:
        rows: looked at.
        findings: errors first.
    """

    rows: int
    findings: list[Finding]

    @property
    def failed(self) -> bool:
        """Whether there are errors."""
        return any(finding.error for finding in self.findings)

    @property
    def summary(self) -> str:
        """One line of counts."""
        errors = sum(finding.error for finding in self.findings)
        warnings = len(self.findings) - errors
        return f"rows looked at: {self.rows:,}, errors: {errors}, warnings: {warnings}"


def scan(declaration: Declaration, rows: int, problems: Iterable[str] = ()) -> Scan:
    """Reads the first rows of every file as a run would, and looks at what it finds.

    Args:
        declaration: of the data set.
        rows: about how many.
        problems: that are known without the events, one line each; they are errors.

    Raises:
        UserError: a file is not there or cannot be read, or has not the declared columns.
    """
    layout = Layout.of(declaration)
    parse = ParseEvents(declaration)
    rejected: Counter[str] = Counter()
    read: Counter[str] = Counter()
    kept = []
    lists: dict[str, list[pa.Array]] = {}
    for element in head(declaration.source, list(layout.types), rows):
        read[element[1]] += element[2].num_rows
        for name in layout.inputs:
            if has_lists(values := element[2].column(name)):
                lists.setdefault(name, []).append(values)
        for found in parse.process(element):
            if isinstance(found, beam.pvalue.TaggedOutput):
                reason, (count, _) = found.value
                rejected[reason] += count
            else:
                kept.append(found)
    events = pa.Table.from_batches([batch for _, batch in kept]) if kept else pa.table({})
    total = events.num_rows + rejected.total()
    findings = [Finding(True, problem) for problem in problems]
    if not total:
        return Scan(0, [*findings, Finding(True, "the source has no rows", "check `source`")])
    findings += _of_rejected(declaration, rejected, total)
    if events.num_rows:
        profiles = {name: Profile.of(name, events.column(name)) for name in layout.inputs}
        for name, parts in lists.items():  # what the profile sees was joined by any separator
            separator = joint(pa.chunked_array(parts).combine_chunks())
            profiles[name] = dataclasses.replace(profiles[name], separator=separator)
        for name, feature in declaration.features.items():
            findings += _of_feature(name, feature, profiles[declaration.column(name)])
        findings += _of_labels(declaration, events)
        findings += _of_answers(declaration, events)
        findings += _of_users(declaration, events)
        findings += _of_times(declaration, events)
        whole = max(read.values()) < most_of_file(declaration.source, rows)
        findings += _of_splits(declaration, kept, whole)
    return Scan(total, sorted(findings, key=lambda finding: not finding.error))


def _of_rejected(declaration: Declaration, rejected: Counter[str], total: int) -> list[Finding]:
    most = declaration.max_rejected
    too_many = rejected.total() / total > most  # all reasons together, as a run counts them
    return [
        Finding(
            too_many,
            f"{count:,} of {total:,} rows would be rejected: {reason}",
            f"mend the source, or raise max_rejected ({most:.2%})",
        )
        for reason, count in rejected.most_common()
    ]


def _of_feature(name: str, feature: FeatureDeclaration, profile: Profile) -> list[Finding]:
    where, rows = f"features.{name}", len(profile.texts)
    found = []
    if not profile.counts:
        return [
            Finding(True, f"{where}: no value in the sample", "check `column`, or leave it out")
        ]
    if len(profile.counts) == 1:
        found.append(Finding(False, f"{where}: one value in all rows", "it teaches nothing"))
    if profile.missing / rows > SPARSE:
        share = f"{profile.missing / rows:.0%}"
        found.append(
            Finding(False, f"{where}: {share} of the values are missing", "has it a `fill`?")
        )
    if feature.tokens:
        found += _of_category(where, feature, profile)
    elif profile.unit == "milliseconds":
        what = f"{where}: looks like milliseconds since 1970"
        found.append(Finding(False, what, "divide it by 1,000 if it is the time"))
    return found


def _of_category(where: str, feature: FeatureDeclaration, profile: Profile) -> list[Finding]:
    if feature.kind == "text":
        return []  # hardly any comes again as a whole
    found = []
    if feature.separator is None and profile.separator:
        what = f"{where}: values look like lists, separated by {profile.separator!r}"
        found.append(Finding(False, what, f"declare separator: {profile.separator!r}"))
    if feature.separator is not None:
        if not any(feature.separator in text for text in profile.counts):
            what = f"{where}: no value has the separator {feature.separator!r}"
            found.append(Finding(False, what, "leave it out, or declare the right one"))
        return found
    distinct, total = len(profile.counts), profile.counts.total()
    if not feature.hash_buckets:
        frequent = sum(count >= feature.min_count for count in profile.counts.values())
        if not frequent:
            what = f"{where}: no value comes {feature.min_count} times in the sample"
            found.append(Finding(True, what, "lower min_count"))
        elif distinct > UNIQUE * total and total > 100:
            what = f"{where}: {distinct:,} distinct values in {total:,} rows"
            found.append(Finding(False, what, "hardly any comes again: leave it out, or hash it"))
    return found


def _of_labels(declaration: Declaration, events: pa.Table) -> list[Finding]:
    found = []
    for name, label in declaration.labels.items():
        values = events.column(f"label:{name}").to_numpy()
        values = values[~np.isnan(values)]
        where = f"labels.{name}"
        if not len(values):
            found.append(Finding(True, f"{where}: no value in the sample", "check `column`"))
        elif label.task == "binary":
            rate = float(values.mean())
            if rate in (0, 1):
                what = f"{where}: {rate:.0f} in all rows"
                remedy = "check `column` and `at_least`; data of positive events need no labels"
                found.append(Finding(True, what, remedy))
            elif rate < RARE_LABEL:
                what = f"{where}: 1 in {rate:.3%} of the rows"
                found.append(Finding(False, what, "sample the negatives, or expect long training"))
    return found


def _of_answers(declaration: Declaration, events: pa.Table) -> list[Finding]:
    """Features that hold a label, as what is known after the event only does."""
    found = []
    for task, label in declaration.labels.items():
        answers = events.column(f"label:{task}").to_numpy()
        for name, feature in declaration.features.items():
            column = declaration.column(name)
            if feature.clock:
                continue
            if column == label.column:
                what = f"features.{name}: is the column of labels.{task}"
                found.append(Finding(False, what, "models would read the answer: leave it out"))
            elif label.task == "binary" and (auc := _told(events.column(column), answers)) > TOLD:
                what = f"features.{name}: tells labels.{task} by itself (AUC {auc:.3f})"
                found.append(
                    Finding(False, what, "leave it out if it is known after the event only")
                )
    return found


def _told(values: pa.ChunkedArray, answers: np.ndarray) -> float:
    """AUC of the mean answer by value, or by quantile of a number; a missing one is a value."""
    if pa.types.is_string(values.type):
        encoded = values.combine_chunks().dictionary_encode()
        groups = encoded.indices.to_numpy()
        if len(encoded.dictionary) > FEW:
            return 0.5
    else:
        numbers = values.to_numpy()
        sizes = np.sort(numbers[~np.isnan(numbers)])
        edges = np.unique(sizes[len(sizes) * np.arange(1, BINS) // BINS]) if len(sizes) else sizes
        groups = np.where(np.isnan(numbers), BINS, np.searchsorted(edges, numbers, side="right"))
    known = ~np.isnan(answers)
    positive = np.bincount(groups[known], answers[known])
    negative = np.bincount(groups[known]) - positive
    pairs = positive.sum() * negative.sum()
    if not pairs:
        return 0.5
    order = np.argsort(positive / np.maximum(positive + negative, 1))
    positive, negative = positive[order], negative[order]
    return float(positive @ (np.cumsum(negative) - negative / 2) / pairs)


def _of_users(declaration: Declaration, events: pa.Table) -> list[Finding]:
    found = []
    keys = [key for key in (declaration.user, declaration.item, declaration.time) if key]
    if declaration.user and declaration.histories:
        counts = pc.value_counts(events.column(declaration.user)).field("counts").to_numpy()
        if np.median(counts) < 2:
            what = f"user: half of the users or more have one event in column {declaration.user!r}"
            remedy = "histories will be empty; is the column the user?"
            found.append(Finding(False, what, remedy))
    if len(keys) == 3:
        again = events.num_rows - events.group_by(keys).aggregate([]).num_rows
        if again:
            what = (
                f"{again:,} of {events.num_rows:,} rows repeat the user, item and time of another"
            )
            found.append(Finding(False, what, "is the source read twice?"))
    return found


def _of_times(declaration: Declaration, events: pa.Table) -> list[Finding]:
    if not declaration.time:
        return []
    latest = pc.max(events.column(declaration.time)).as_py()
    if latest is not None and latest > SECONDS[1]:
        what = f"time: column {declaration.time!r} is past the year 2096 in seconds"
        unit = unit_of(latest, latest)
        remedy = f"divide {unit} by {UNITS[unit]:,}" if unit else "mend the source"
        return [Finding(True, what, remedy)]
    return []


def _of_splits(
    declaration: Declaration, parsed: list[tuple[str | None, pa.RecordBatch]], whole: bool
) -> list[Finding]:
    """Splits that would have no example; in a part of the source that may be by chance."""
    counts = count_splits(declaration, parsed)
    where = "" if whole else " in the sample"
    remedy = "give it more data or change `split`"
    return [
        Finding(whole, f"split {name} is empty{where} ({split_counts(counts)})", remedy)
        for name, count in counts.items()
        if not count
    ]
