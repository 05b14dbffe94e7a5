"""Statistics against a schema and against other statistics: what is odd, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from pipeline import schema as schemas
from pipeline.distances import jensen_shannon, l_infinity
from pipeline.statistics import Proto, common, features_of
from tfrec.features import LABEL_PREFIX

DataSet: TypeAlias = statistics_pb2.DatasetFeatureStatistics
Info: TypeAlias = anomalies_pb2.AnomalyInfo


@dataclass(frozen=True)
class Anomaly:
    """Something that the schema does not allow.

    Attributes:
        column: that it is about; "" for the whole data set.
        split: in which it was found.
        kind: as TFDV calls it.
        reason: what is the matter.
        remedy: what to do about it.
        error: whether models would learn something wrong; otherwise it is worth a look.
    """

    column: str
    split: str
    kind: int
    reason: str
    remedy: str
    error: bool = True

    def __str__(self) -> str:
        level = "error" if self.error else "warning"
        name = f"column {self.column!r} of {self.split}" if self.column else self.split
        return f"{level}: {name}: {self.reason}; {self.remedy}"


Make: TypeAlias = Callable[..., Anomaly]  # of what is left of its fields


def validate(
    found: DataSet,
    schema: schema_pb2.Schema,
    *,
    environment: str = schemas.TRAINING,
    previous: DataSet | None = None,
    serving: DataSet | None = None,
) -> list[Anomaly]:
    """Holds the statistics of one split against a schema.

    Args:
        found: the statistics.
        schema: what is allowed.
        environment: of the schema, `TRAINING` or `SERVING`.
        previous: earlier statistics that these are not to drift from.
        serving: statistics of requests that these are not to be skewed against.

    Returns:
        What is odd, errors first.
    """
    if not found.num_examples:
        kind = Info.DATASET_LOW_NUM_EXAMPLES
        return [Anomaly("", found.name, kind, "has no examples", "check the source and `split`")]
    anomalies = list(_of_columns(found, schema, environment))
    for other, name in ((previous, "drift"), (serving, "skew")):
        if other is not None:
            anomalies += _compared(found, other, schema, name)
    return sorted(anomalies, key=lambda anomaly: not anomaly.error)


def constant_labels(found: DataSet) -> list[Anomaly]:
    """Labels of one split that nothing can be learned of: they are the same in all rows."""
    anomalies = []
    for name, column in features_of(found).items():
        numbers = column.num_stats
        some = common(column).num_non_missing > 0
        if name.startswith(LABEL_PREFIX) and some and numbers.min == numbers.max:
            reason = f"is {numbers.min:g} in all rows that have it"
            remedy = "check the label's column and rule"
            kind = Info.FEATURE_TYPE_LOW_UNIQUE
            anomalies.append(Anomaly(name, found.name, kind, reason, remedy))
    return anomalies


def _of_columns(found: DataSet, schema: schema_pb2.Schema, environment: str) -> Iterator[Anomaly]:
    known = {feature.name: feature for feature in schema.feature}
    columns = features_of(found)
    for name in sorted(columns.keys() - known.keys()):
        remedy = "add it to the schema, or delete the schema to have it inferred anew"
        yield Anomaly(name, found.name, Info.SCHEMA_NEW_COLUMN, "is new", remedy, error=False)
    for name, feature in known.items():
        if not schemas.expected(feature, schema, environment):
            continue
        if name in columns:
            yield from _of_column(
                columns[name], feature, schema, partial(Anomaly, name, found.name)
            )
        elif feature.presence.min_count or feature.presence.min_fraction:
            remedy = "is it in the source? Take it out of the schema if it is gone for good"
            kind = Info.SCHEMA_MISSING_COLUMN
            yield Anomaly(name, found.name, kind, "is not there", remedy)


def _of_column(
    column: Proto, feature: schema_pb2.Feature, schema: schema_pb2.Schema, anomaly: Make
) -> Iterator[Anomaly]:
    type_ = schemas.type_of(column)
    if type_ != feature.type:
        name, expected = (schema_pb2.FeatureType.Name(t) for t in (type_, feature.type))
        reason = f"is {name}, and {expected} in the schema"
        yield anomaly(Info.UNEXPECTED_DATA_TYPE, reason, "mend the source, or `type` in the schema")
        return
    yield from _of_presence(column, feature, anomaly)
    if not common(column).num_non_missing:
        return
    yield from _of_lengths(column, feature, anomaly)
    domain = schemas.domain_of(feature, schema)
    if isinstance(domain, schema_pb2.StringDomain):
        yield from _of_texts(column, feature, set(domain.value), anomaly)
    elif domain is not None:
        yield from _of_numbers(column, domain, anomaly)


def _of_presence(column: Proto, feature: schema_pb2.Feature, anomaly: Make) -> Iterator[Anomaly]:
    stats, least = common(column), feature.presence
    rows = stats.num_non_missing + stats.num_missing
    share = stats.num_non_missing / rows if rows else 0.0
    if stats.num_non_missing < least.min_count:
        reason = f"has {stats.num_non_missing or 'no'} values, not {least.min_count}"
        kind, remedy = Info.FEATURE_TYPE_LOW_NUMBER_PRESENT, "lower presence.min_count"
        yield anomaly(kind, reason, f"mend the source, or {remedy}")
    elif share < least.min_fraction:
        reason = f"has a value in {share:.2%} of the rows, not {least.min_fraction:.2%}"
        kind, remedy = Info.FEATURE_TYPE_LOW_FRACTION_PRESENT, "lower presence.min_fraction"
        yield anomaly(kind, reason, f"mend the source, or {remedy}")


def _of_lengths(column: Proto, feature: schema_pb2.Feature, anomaly: Make) -> Iterator[Anomaly]:
    stats, allowed = common(column), feature.value_count
    if allowed.max and stats.max_num_values > allowed.max:
        reason = f"has up to {stats.max_num_values} values, not {allowed.max}"
        yield anomaly(Info.FEATURE_TYPE_HIGH_NUMBER_VALUES, reason, "raise value_count.max")
    if stats.min_num_values < allowed.min:
        reason = f"has {stats.min_num_values} values in some rows, not {allowed.min}"
        yield anomaly(Info.FEATURE_TYPE_LOW_NUMBER_VALUES, reason, "lower value_count.min")


def _of_texts(
    column: Proto, feature: schema_pb2.Feature, domain: set[str], anomaly: Make
) -> Iterator[Anomaly]:
    top, total = column.string_stats.top_values, common(column).tot_num_values
    listed = {entry.value: entry.frequency / total for entry in top}
    new = {value: share for value, share in listed.items() if value not in domain}
    if not new:
        return
    share = sum(new.values())
    if len(domain) < len(listed):  # what is not listed is new: the new ones crowd the others out
        share = 1 - sum(listed.values()) + share
    some = ", ".join(repr(value) for value in list(new)[:3])
    most = 1 - feature.distribution_constraints.min_domain_mass
    yield anomaly(
        Info.ENUM_TYPE_UNEXPECTED_STRING_VALUES,
        f"{share:.2%} of the values are new, such as {some}",
        "add them to string_domain, or lower distribution_constraints.min_domain_mass",
        share > most + 1e-9,
    )


def _of_numbers(
    column: Proto, domain: schema_pb2.FloatDomain | schema_pb2.IntDomain, anomaly: Make
) -> Iterator[Anomaly]:
    whole = isinstance(domain, schema_pb2.IntDomain)
    name = "int_domain" if whole else "float_domain"
    numbers = column.num_stats
    if domain.HasField("max") and numbers.max > domain.max:
        kind = Info.INT_TYPE_BIG_INT if whole else Info.FLOAT_TYPE_BIG_FLOAT
        reason = f"goes up to {numbers.max:g}, beyond {domain.max:g}"
        yield anomaly(kind, reason, f"mend the source, or {name}.max")
    if domain.HasField("min") and numbers.min < domain.min:
        kind = Info.INT_TYPE_SMALL_INT if whole else Info.FLOAT_TYPE_SMALL_FLOAT
        reason = f"goes down to {numbers.min:g}, below {domain.min:g}"
        yield anomaly(kind, reason, f"mend the source, or {name}.min")


def _compared(
    found: DataSet, other: DataSet, schema: schema_pb2.Schema, kind: str
) -> Iterator[Anomaly]:
    """Distances from other data beyond the schema's comparators, and beyond chance."""
    columns, others = features_of(found), features_of(other)
    name_of_other = "the data before" if kind == "drift" else "serving"
    for feature in schema.feature:
        comparator = getattr(feature, f"{kind}_comparator")
        if feature.name not in columns or feature.name not in others:
            continue
        pair = columns[feature.name], others[feature.name]
        if pair[0].type != pair[1].type or not all(common(c).num_non_missing for c in pair):
            continue  # which is an anomaly of its own
        if comparator.HasField("infinity_norm") and pair[0].type == Proto.STRING:
            distance = l_infinity(*pair)
            threshold = comparator.infinity_norm.threshold
            name, type_ = "L-infinity", Info.COMPARATOR_L_INFTY_HIGH
        elif comparator.HasField("jensen_shannon_divergence") and pair[0].type != Proto.STRING:
            distance = jensen_shannon(*pair)
            threshold = comparator.jensen_shannon_divergence.threshold
            name = "Jensen-Shannon divergence"
            type_ = Info.COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH
        else:
            continue
        if distance.value > threshold + distance.chance:
            worst = f", most at {distance.at!r}" if distance.at else ""
            reason = (
                f"{kind} from {name_of_other}: {name} {distance.value:.3f} > {threshold:g}{worst}"
            )
            remedy = f"look for the cause, or raise {kind}_comparator"
            yield Anomaly(feature.name, found.name, type_, reason, remedy)


def to_proto(anomalies: list[Anomaly], schema: schema_pb2.Schema) -> anomalies_pb2.Anomalies:
    """TFDV's form of anomalies: by column, with all reasons.

    Args:
        anomalies: of one or more splits.
        schema: that they are anomalies of.
    """
    result = anomalies_pb2.Anomalies(baseline=schema)
    for anomaly in anomalies:
        if not anomaly.column:
            result.data_missing |= anomaly.kind == Info.DATASET_LOW_NUM_EXAMPLES
            info = result.dataset_anomaly_info
        else:
            info = result.anomaly_info[anomaly.column]
            info.path.step[:] = [anomaly.column]
        level = Info.ERROR if anomaly.error else Info.WARNING
        info.severity = max(info.severity, level)
        description = f"{anomaly.split}: {anomaly.reason}; {anomaly.remedy}"
        info.reason.add(
            type=anomaly.kind, short_description=anomaly.reason, description=description
        )
        info.short_description = "; ".join(reason.short_description for reason in info.reason)
        info.description = "; ".join(reason.description for reason in info.reason)
    return result
