"""What the raw examples look like, as tensorflow_metadata protos that TFDV reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tensorflow_metadata.proto.v0 import statistics_pb2


@dataclass
class ColumnStatistics:
    """Running figures of one column."""

    numeric: bool
    present: int = 0
    missing: int = 0
    values: int = 0
    shortest: int | None = None
    longest: int = 0
    total: float = 0.0
    squares: float = 0.0
    zeros: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    characters: int = 0

    def add(self, column: pa.Array) -> None:
        """Adds one list per row. An empty list, "" and NaN are missing."""
        values = column.flatten()
        if self.numeric:
            numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
            real = ~np.isnan(numbers)
            numbers = numbers[real]
            self.total += float(numbers.sum())
            self.squares += float(np.square(numbers).sum())
            self.zeros += int((numbers == 0).sum())
            if len(numbers):
                self.low = min(self.low, float(numbers.min()))
                self.high = max(self.high, float(numbers.max()))
        else:
            sizes = pc.binary_length(values).to_numpy(zero_copy_only=False)
            real = sizes > 0
            self.characters += int(sizes.sum())
        ends = np.cumsum(pc.list_value_length(column).to_numpy(zero_copy_only=False))
        counts = np.diff(np.concatenate([[0], np.cumsum(real)])[np.concatenate([[0], ends])])
        found = counts[counts > 0]
        self.present += len(found)
        self.missing += len(counts) - len(found)
        self.values += int(found.sum())
        if len(found):
            shortest = int(found.min())
            self.shortest = shortest if self.shortest is None else min(self.shortest, shortest)
            self.longest = max(self.longest, int(found.max()))

    def merge(self, other: ColumnStatistics) -> None:
        """Adds the figures of another part of the data."""
        for name in ("present", "missing", "values", "total", "squares", "zeros", "characters"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        shortest = [s for s in (self.shortest, other.shortest) if s is not None]
        self.shortest = min(shortest, default=None)
        self.longest = max(self.longest, other.longest)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


@dataclass
class SplitStatistics:
    """Running figures of one split."""

    rows: int = 0
    columns: dict[str, ColumnStatistics] = field(default_factory=dict)


class Statistics(beam.CombineFn):
    """Combines record batches of raw examples into `SplitStatistics`, in bounded memory."""

    def create_accumulator(self) -> SplitStatistics:
        return SplitStatistics()

    def add_input(self, accumulator: SplitStatistics, batch: pa.RecordBatch) -> SplitStatistics:
        accumulator.rows += batch.num_rows
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            numeric = not pa.types.is_large_binary(column.type.value_type)
            accumulator.columns.setdefault(name, ColumnStatistics(numeric)).add(column)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[SplitStatistics]) -> SplitStatistics:
        merged = SplitStatistics()
        for accumulator in accumulators:
            merged.rows += accumulator.rows
            for name, column in accumulator.columns.items():
                merged.columns.setdefault(name, ColumnStatistics(column.numeric)).merge(column)
        return merged

    def extract_output(self, accumulator: SplitStatistics) -> SplitStatistics:
        return accumulator


def to_proto(splits: dict[str, SplitStatistics]) -> bytes:
    """Serialized `DatasetFeatureStatisticsList`, one data set per split."""
    result = statistics_pb2.DatasetFeatureStatisticsList()
    for split, statistics in splits.items():
        dataset = result.datasets.add(name=split, num_examples=statistics.rows)
        for name, column in statistics.columns.items():
            _fill(dataset.features.add(), name, column)
    return result.SerializeToString(deterministic=True)


def _fill(
    feature: statistics_pb2.FeatureNameStatistics, name: str, column: ColumnStatistics
) -> None:
    feature.path.step.append(name)
    proto = statistics_pb2.FeatureNameStatistics
    if column.numeric:
        feature.type = proto.FLOAT
        mean = column.total / max(column.values, 1)
        variance = max(column.squares / max(column.values, 1) - mean**2, 0.0)
        numbers = feature.num_stats
        numbers.mean, numbers.std_dev, numbers.num_zeros = mean, variance**0.5, column.zeros
        if column.values:
            numbers.min, numbers.max = column.low, column.high
        common = numbers.common_stats
    else:
        feature.type = proto.STRING
        feature.string_stats.avg_length = column.characters / max(column.values, 1)
        common = feature.string_stats.common_stats
    common.num_non_missing, common.num_missing = column.present, column.missing
    common.min_num_values, common.max_num_values = column.shortest or 0, column.longest
    common.avg_num_values = column.values / max(column.present, 1)
    common.tot_num_values = column.values
