"""The schema that data are held against: inferred once, then edited and kept."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from pipeline.declaration import Declaration
from pipeline.statistics import TOP_VALUES, Proto, common, features_of
from tfrec.features import ITEM_KEY, LABEL_PREFIX, TIME_KEY, USER_KEY, WEIGHT
from tfrec.strict import UserError

FILE_NAME = "schema.pbtxt"
TRAINING, SERVING = "TRAINING", "SERVING"
DRIFT = 0.1  # distance of two distributions, of at most 1, that is worth a word
KNOWN = 0.99  # share of values that has to be of the domain: a new one is no fault
ENUMERATION = 30  # distinct values that are worth a list


def infer(
    statistics: statistics_pb2.DatasetFeatureStatistics, declaration: Declaration
) -> schema_pb2.Schema:
    """A schema that the given data fit.

    Columns have the type and the presence that they have there. Columns of a few categories have
    these as their domain, which `KNOWN` of the values have to be of; binary labels are between 0
    and 1. Columns of features are compared with those of other data by comparators: L-infinity for
    categories, Jensen-Shannon for numbers. Users, items and times are what is new every day, and
    are not compared. Labels, the weight and keys are expected in training only.

    Args:
        statistics: of the data that are learned from.
        declaration: of the data set.
    """
    schema = schema_pb2.Schema(default_environment=[TRAINING, SERVING])
    separated = {declaration.column(n) for n, f in declaration.features.items() if f.many}
    binary = {LABEL_PREFIX + n for n, f in declaration.labels.items() if f.task == "binary"}
    histories = tuple(f"{name}_" for name in declaration.histories)
    keys = {declaration.user, declaration.item, declaration.time}
    for name, found in features_of(statistics).items():
        feature = schema.feature.add(name=name, type=_type(found))
        _presence(feature, found)
        inside = name.startswith((LABEL_PREFIX, *histories)) or name in _NOT_SERVED
        if name.startswith(LABEL_PREFIX) or name in _NOT_SERVED:
            feature.not_in_environment.append(SERVING)
        if name in binary:
            feature.float_domain.min, feature.float_domain.max = 0.0, 1.0
        if name in keys or inside:
            continue
        if found.type == Proto.STRING:
            values = [entry.value for entry in found.string_stats.top_values]
            few = found.string_stats.unique <= min(ENUMERATION, TOP_VALUES)
            if few and values and name not in separated:
                feature.string_domain.value.extend(sorted(values))
                feature.distribution_constraints.min_domain_mass = KNOWN
            feature.drift_comparator.infinity_norm.threshold = DRIFT
            feature.skew_comparator.infinity_norm.threshold = DRIFT
        else:
            feature.drift_comparator.jensen_shannon_divergence.threshold = DRIFT
            feature.skew_comparator.jensen_shannon_divergence.threshold = DRIFT
    return schema


_NOT_SERVED = (WEIGHT, USER_KEY, ITEM_KEY, TIME_KEY)


def _type(found: Proto) -> schema_pb2.FeatureType:
    types = {Proto.STRING: schema_pb2.BYTES, Proto.INT: schema_pb2.INT}
    return types.get(found.type, schema_pb2.FLOAT)


def _presence(feature: schema_pb2.Feature, found: Proto) -> None:
    stats = common(found)
    feature.presence.min_count = 1 if stats.num_non_missing else 0
    if not stats.num_missing:
        feature.presence.min_fraction = 1.0
    if stats.num_non_missing:
        feature.value_count.min, feature.value_count.max = 1, stats.max_num_values


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
