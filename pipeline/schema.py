"""The schema that data are held against: inferred once, then edited and kept."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from pipeline.declaration import Declaration
from pipeline.statistics import Proto, common, features_of
from pipeline.tokens import cuts_of
from tfrec.features import LABEL_PREFIX
from tfrec.strict import UserError, nearest

FILE_NAME = "schema.pbtxt"
TRAINING, SERVING = "TRAINING", "SERVING"
DRIFT = 0.1  # distance of two distributions, of at most 1, that is worth a word
KNOWN = 0.99  # share of values that has to be of the domain: a new one is no fault
MISSING = 0.01
ENUMERATION = 30  # distinct values that are worth a list; statistics list more than that


def infer(
    splits: Sequence[statistics_pb2.DatasetFeatureStatistics], declaration: Declaration
) -> schema_pb2.Schema:
    """A schema that the given data fit.

    Columns have the type that they have there, histories the declared length. A column that is
    never missing there must never be; another one, but for histories, may be missing twice as often
    and in `MISSING` of the rows more.
    Columns of a few categories have these as their domain, which `KNOWN` of the values have to be
    of; binary labels are between 0 and 1. Columns of features are compared with those of other data
    by comparators: L-infinity for categories, Jensen-Shannon for numbers. Users, items and times
    are what is new every day, and are not compared. Labels, the weight, keys and
    histories are expected in training only.

    Args:
        splits: statistics, the one that is learned from first.
        declaration: of the data set.
    """
    schema = schema_pb2.Schema(default_environment=[TRAINING, SERVING])
    served = {declaration.column(name) for name in declaration.features}  # logs have no histories
    cuts = cuts_of(declaration)
    binary = {LABEL_PREFIX + n for n, f in declaration.labels.items() if f.task == "binary"}
    lengths = {
        f"{history}_{column}": declared.length
        for history, declared in declaration.histories.items()
        for column in declaration.history_columns(history)
    }
    keys = {declaration.user, declaration.item, declaration.time}
    by_split = [features_of(split) for split in splits]
    for name, first in by_split[0].items():
        found = [columns[name] for columns in by_split if name in columns]
        feature = schema.feature.add(name=name, type=type_of(first))
        feature.presence.min_count = 1 if common(first).num_non_missing else 0
        most = max(_missing(column) for column in found)
        if not most or name not in lengths:
            least = 1 - 2 * most - MISSING if most else 1.0
            feature.presence.min_fraction = max(math.floor(100 * least) / 100, 0.0)
        feature.value_count.min = 1
        if name not in cuts:  # of which there may be any number
            feature.value_count.max = lengths.get(name, 1)
        of_training = name not in served
        if of_training:
            feature.not_in_environment.append(SERVING)
        if name in binary:
            feature.float_domain.min, feature.float_domain.max = 0.0, 1.0
        if of_training or name in keys:
            continue
        if first.type == Proto.STRING:
            if name not in cuts or cuts[name]:  # but for words
                _domain(feature, found)
            feature.drift_comparator.infinity_norm.threshold = DRIFT
            feature.skew_comparator.infinity_norm.threshold = DRIFT
        else:
            for comparator in (feature.drift_comparator, feature.skew_comparator):
                comparator.jensen_shannon_divergence.threshold = DRIFT
                comparator.jensen_shannon_divergence.source.type = _BY_QUANTILE
    return schema


def _domain(feature: schema_pb2.Feature, found: list[Proto]) -> None:
    """Lists the values of a column that has few."""
    values = {entry.value for column in found for entry in column.string_stats.top_values}
    if 0 < len(values) <= ENUMERATION:
        feature.string_domain.value.extend(sorted(values))
        feature.distribution_constraints.min_domain_mass = KNOWN


_BY_QUANTILE = schema_pb2.HistogramSelection.QUANTILES


def _missing(column: Proto) -> float:
    """Share of the rows without a value."""
    stats = common(column)
    return stats.num_missing / max(stats.num_missing + stats.num_non_missing, 1)


def type_of(column: Proto) -> schema_pb2.FeatureType:
    """What a schema calls the type of a column."""
    types = {Proto.STRING: schema_pb2.BYTES, Proto.INT: schema_pb2.INT}
    return types.get(column.type, schema_pb2.FLOAT)


def expected(feature: schema_pb2.Feature, schema: schema_pb2.Schema, environment: str) -> bool:
    """Whether a column of the schema is looked at in an environment."""
    if feature.deprecated or feature.lifecycle_stage in _NOT_LOOKED_AT:
        return False
    if environment in feature.not_in_environment:
        return False
    every = schema.default_environment or [environment]
    return environment in every or environment in feature.in_environment


_NOT_LOOKED_AT = (  # as TFDV has it
    schema_pb2.PLANNED, schema_pb2.ALPHA, schema_pb2.DEPRECATED, schema_pb2.DEBUG_ONLY,
    schema_pb2.DISABLED,
)  # fmt: skip


def domain_of(
    feature: schema_pb2.Feature, schema: schema_pb2.Schema
) -> schema_pb2.StringDomain | schema_pb2.FloatDomain | schema_pb2.IntDomain | None:
    """Allowed values of a column: its own ones, or those that it names."""
    kind = feature.WhichOneof("domain_info")
    if kind == "domain":
        return next(domain for domain in schema.string_domain if domain.name == feature.domain)
    known = ("string_domain", "float_domain", "int_domain")
    return getattr(feature, kind) if kind in known else None


def load(path: Path) -> schema_pb2.Schema:
    """Reads a schema, as TFDV writes it too.

    Raises:
        UserError: no such file, no schema, or one that says of a column what cannot be.
    """
    try:
        schema = text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text") from None
    except text_format.ParseError as error:
        message = re.sub(r"^[\d: ]*", "", str(error)).replace("\n", " ")
        raise UserError(f"{path}, line {error.GetLine()}: is no schema: {message}") from None
    domains = [domain.name for domain in schema.string_domain]
    names: set[str] = set()
    for feature in schema.feature:
        if feature.name in names:
            raise UserError(f"{path}: column {feature.name!r} is there twice; take one out")
        names.add(feature.name)
        if feature.HasField("domain") and feature.domain not in domains:
            near = nearest(feature.domain, domains)
            raise UserError(f"{path}: column {feature.name!r}: no domain {feature.domain!r}{near}")
    return schema


def save(schema: schema_pb2.Schema, path: Path) -> None:
    """Writes a schema as text."""
    path.write_text(text_format.MessageToString(schema, as_utf8=True), encoding="utf-8")
