"""The schema that data are held against: inferred once, then edited and kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from pipeline.declaration import Declaration
from pipeline.statistics import Proto, common, features_of
from tfrec.features import ITEM_KEY, LABEL_PREFIX, TIME_KEY, USER_KEY, WEIGHT
from tfrec.strict import UserError

FILE_NAME = "schema.pbtxt"
TRAINING, SERVING = "TRAINING", "SERVING"
DRIFT = 0.1  # distance of two distributions, of at most 1, that is worth a word
KNOWN = 0.99  # share of values that has to be of the domain: a new one is no fault
ENUMERATION = 30  # distinct values that are worth a list; statistics list more than that


def infer(
    splits: Sequence[statistics_pb2.DatasetFeatureStatistics], declaration: Declaration
) -> schema_pb2.Schema:
    """A schema that the given data fit.

    Columns have the type and the presence that they have there, and lists the declared length.
    Columns of a few categories have these as their domain, which `KNOWN` of the values have to be
    of; binary labels are between 0 and 1. Columns of features are compared with those of other data
    by comparators: L-infinity for categories, Jensen-Shannon for numbers. Users, items and times
    are what is new every day, and are not compared. Labels, the weight and keys are expected in
    training only.

    Args:
        splits: statistics, the one that is learned from first.
        declaration: of the data set.
    """
    schema = schema_pb2.Schema(default_environment=[TRAINING, SERVING])
    separated = {declaration.column(n) for n, f in declaration.features.items() if f.many}
    binary = {LABEL_PREFIX + n for n, f in declaration.labels.items() if f.task == "binary"}
    lengths = {
        f"{history}_{declaration.column(feature)}": declaration.histories[history].length
        for _, (history, feature) in declaration.history_features()
    }
    keys = {declaration.user, declaration.item, declaration.time}
    by_split = [features_of(split) for split in splits]
    for name, first in by_split[0].items():
        found = [columns[name] for columns in by_split if name in columns]
        feature = schema.feature.add(name=name, type=_type(first))
        feature.presence.min_count = 1 if common(first).num_non_missing else 0
        if not any(common(column).num_missing for column in found):
            feature.presence.min_fraction = 1.0
        feature.value_count.min, feature.value_count.max = 1, lengths.get(name, 1)
        of_training = name.startswith(LABEL_PREFIX) or name in _NOT_SERVED
        if of_training:
            feature.not_in_environment.append(SERVING)
        if name in binary:
            feature.float_domain.min, feature.float_domain.max = 0.0, 1.0
        if of_training or name in keys or name in lengths:
            continue
        if first.type == Proto.STRING:
            if name not in separated:
                _domain(feature, found)
            feature.drift_comparator.infinity_norm.threshold = DRIFT
            feature.skew_comparator.infinity_norm.threshold = DRIFT
        else:
            feature.drift_comparator.jensen_shannon_divergence.threshold = DRIFT
            feature.skew_comparator.jensen_shannon_divergence.threshold = DRIFT
    return schema


def _domain(feature: schema_pb2.Feature, found: list[Proto]) -> None:
    """Lists the values of a column that has few."""
    values = {entry.value for column in found for entry in column.string_stats.top_values}
    if 0 < len(values) <= ENUMERATION:
        feature.string_domain.value.extend(sorted(values))
        feature.distribution_constraints.min_domain_mass = KNOWN


_NOT_SERVED = (WEIGHT, USER_KEY, ITEM_KEY, TIME_KEY)


def _type(found: Proto) -> schema_pb2.FeatureType:
    types = {Proto.STRING: schema_pb2.BYTES, Proto.INT: schema_pb2.INT}
    return types.get(found.type, schema_pb2.FLOAT)


def load(path: Path) -> schema_pb2.Schema:
    """Reads a schema, as TFDV writes it too.

    Raises:
        UserError: no such file, or no schema.
    """
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no schema ({error})") from None


def save(schema: schema_pb2.Schema, path: Path) -> None:
    """Writes a schema as text."""
    path.write_text(text_format.MessageToString(schema, as_utf8=True), encoding="utf-8")
