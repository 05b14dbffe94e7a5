"""Statistics against a schema and against other statistics: what is odd, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from pipeline import schema as schemas
from pipeline.statistics import Proto, common, features_of

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


def _of_columns(found: DataSet, schema: schema_pb2.Schema, environment: str) -> Iterator[Anomaly]:
    known = {feature.name: feature for feature in schema.feature}
    columns = features_of(found)
    for name in columns.keys() - known.keys():
        remedy = "add it to the schema, or delete the schema to have it inferred anew"
        yield Anomaly(name, found.name, Info.SCHEMA_NEW_COLUMN, "is new", remedy, error=False)
    for name, feature in known.items():
        if environment in feature.not_in_environment or feature.deprecated:
            continue
        if name in columns:
            yield from _of_column(columns[name], feature, found)
        elif feature.presence.min_count or feature.presence.min_fraction:
            remedy = "is it in the source? Take it out of the schema if it is gone for good"
            kind = Info.SCHEMA_MISSING_COLUMN
            yield Anomaly(name, found.name, kind, "is not there", remedy)


def _of_column(column: Proto, feature: schema_pb2.Feature, found: DataSet) -> Iterator[Anomaly]:
    anomaly = partial(Anomaly, feature.name, found.name)
    types = {Proto.STRING: schema_pb2.BYTES, Proto.INT: schema_pb2.INT}
    type_ = types.get(column.type, schema_pb2.FLOAT)
    if type_ != feature.type:
        name, expected = (schema_pb2.FeatureType.Name(t) for t in (type_, feature.type))
        reason = f"is {name}, and {expected} in the schema"
        yield anomaly(Info.UNEXPECTED_DATA_TYPE, reason, "mend the source, or `type` in the schema")
        return
    stats = common(column)
    rows = stats.num_non_missing + stats.num_missing
    share = stats.num_non_missing / rows if rows else 0.0
    if stats.num_non_missing < feature.presence.min_count:
        remedy = "mend the source, or lower presence.min_count"
        yield anomaly(Info.FEATURE_TYPE_LOW_NUMBER_PRESENT, "has no value", remedy)
    elif share < feature.presence.min_fraction:
        reason = f"has a value in {share:.2%} of the rows, not {feature.presence.min_fraction:.2%}"
        remedy = "mend the source, or lower presence.min_fraction"
        yield anomaly(Info.FEATURE_TYPE_LOW_FRACTION_PRESENT, reason, remedy)
    most = feature.value_count.max
    if most and stats.max_num_values > most:
        reason = f"has up to {stats.max_num_values} values, not {most}"
        remedy = "raise value_count.max"
        yield anomaly(Info.FEATURE_TYPE_HIGH_NUMBER_VALUES, reason, remedy)
    if feature.HasField("string_domain"):
        yield from _of_domain(column, feature, anomaly)
    if feature.HasField("float_domain") and stats.num_non_missing:
        low, high = feature.float_domain.min, feature.float_domain.max
        numbers = column.num_stats
        if numbers.min < low or numbers.max > high:
            reason = f"is between {numbers.min:g} and {numbers.max:g}, not {low:g} and {high:g}"
            big = numbers.max > high
            kind = Info.FLOAT_TYPE_BIG_FLOAT if big else Info.FLOAT_TYPE_SMALL_FLOAT
            yield anomaly(kind, reason, "mend the source, or float_domain")
        elif feature.name.startswith("label:") and numbers.min == numbers.max:
            reason = f"is {numbers.min:g} in all rows"
            remedy = "check the label's column and `at_least`"
            yield anomaly(Info.FEATURE_TYPE_LOW_UNIQUE, reason, remedy)


def _of_domain(
    column: Proto, feature: schema_pb2.Feature, anomaly: Callable[..., Anomaly]
) -> Iterator[Anomaly]:
    domain = set(feature.string_domain.value)
    top = column.string_stats.top_values
    new = {entry.value: entry.frequency for entry in top if entry.value not in domain}
    total = common(column).tot_num_values
    share = sum(new.values()) / total if total else 0.0
    if not new:
        return
    some = ", ".join(repr(value) for value in list(new)[:3])
    most = 1 - feature.distribution_constraints.min_domain_mass
    yield anomaly(
        Info.ENUM_TYPE_UNEXPECTED_STRING_VALUES,
        f"{share:.2%} of the values are new, such as {some}",
        "add them to string_domain, or lower distribution_constraints.min_domain_mass",
        share > most + 1e-9,
    )


def _compared(
    found: DataSet, other: DataSet, schema: schema_pb2.Schema, kind: str
) -> Iterator[Anomaly]:
    """Distances from other data beyond the schema's comparators."""
    columns, others = features_of(found), features_of(other)
    name_of_other = "the data before" if kind == "drift" else "serving"
    for feature in schema.feature:
        comparator = getattr(feature, f"{kind}_comparator")
        if feature.name not in columns or feature.name not in others:
            continue
        pair = columns[feature.name], others[feature.name]
        if not all(common(column).num_non_missing for column in pair):
            continue
        if comparator.HasField("infinity_norm") and pair[0].type == Proto.STRING:
            distance, value = l_infinity(*pair)
            threshold = comparator.infinity_norm.threshold
            name, worst = "L-infinity", f", most at {value!r}"
            type_ = Info.COMPARATOR_L_INFTY_HIGH
        elif comparator.HasField("jensen_shannon_divergence") and pair[0].type != Proto.STRING:
            distance = jensen_shannon(*pair)
            threshold = comparator.jensen_shannon_divergence.threshold
            name, worst = "Jensen-Shannon divergence", ""
            type_ = Info.COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH
        else:
            continue
        if distance > threshold:
            reason = f"{kind} from {name_of_other}: {name} {distance:.3f} > {threshold:g}{worst}"
            remedy = f"look for the cause, or raise {kind}_comparator"
            yield Anomaly(feature.name, found.name, type_, reason, remedy)


def l_infinity(one: Proto, other: Proto) -> tuple[float, str]:
    """Largest difference of a value's share, and that value.

    Of the most frequent values; a value that is none of them counts as absent.
    """
    shares: list[dict[str, float]] = []
    for column in (one, other):
        total = common(column).tot_num_values
        shares.append({e.value: e.frequency / total for e in column.string_stats.top_values})
    values = sorted(shares[0].keys() | shares[1].keys())
    differences = [abs(shares[0].get(v, 0.0) - shares[1].get(v, 0.0)) for v in values]
    worst = int(np.argmax(differences))
    return differences[worst], values[worst]


def jensen_shannon(one: Proto, other: Proto) -> float:
    """Jensen-Shannon divergence of two columns of numbers, in bits: between 0 and 1.

    Lin 1991, equation 4.1, over the buckets that the ends of both columns' histograms make
    together; within a bucket of one histogram, values are taken as spread evenly.
    """
    edges = np.unique(np.concatenate([_edges(one), _edges(other)]))
    p, q = _shares(one, edges), _shares(other, edges)
    mean = (p + q) / 2
    return (_relative_entropy(p, mean) + _relative_entropy(q, mean)) / 2


def _histogram(column: Proto) -> statistics_pb2.Histogram:
    (histogram,) = (
        h for h in column.num_stats.histograms if h.type == statistics_pb2.Histogram.STANDARD
    )
    return histogram


def _edges(column: Proto) -> np.ndarray:
    buckets = _histogram(column).buckets
    if buckets[0].low_value == buckets[-1].high_value:  # a single value: the least of buckets
        return np.array([buckets[0].low_value, np.nextafter(buckets[0].low_value, np.inf)])
    return np.array([buckets[0].low_value, *(bucket.high_value for bucket in buckets)])


def _shares(column: Proto, edges: np.ndarray) -> np.ndarray:
    """Share of the values between any two edges."""
    own = _edges(column)
    counts = np.array([bucket.sample_count for bucket in _histogram(column).buckets])
    below = np.linspace(0, 1, 2) if len(own) == 2 else np.cumsum([0, *counts]) / counts.sum()
    return np.diff(np.interp(edges, own, below))


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    there = p > 0
    return float((p[there] * np.log2(p[there] / q[there])).sum())


def to_proto(anomalies: list[Anomaly], schema: schema_pb2.Schema) -> anomalies_pb2.Anomalies:
    """TFDV's form of anomalies: by column, with all reasons.

    Args:
        anomalies: of one or more splits.
        schema: that they are anomalies of.
    """
    result = anomalies_pb2.Anomalies(baseline=schema)
    for anomaly in anomalies:
        if not anomaly.column:
            result.dataset_anomaly_info.severity = Info.ERROR
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
