"""What the raw examples look like, as tensorflow_metadata protos that TFDV reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx_bsl.sketches import KmvSketch, MisraGriesSketch, QuantilesSketch

FILE_NAME = "FeatureStats.pb"
TOP_VALUES = 100
BUCKETS = 20  # of equal width
QUANTILES = 100  # buckets of equal counts

_COUNTERS = 4_096  # for the most frequent values: all of them are exact where there are fewer
_HASHES = 16_384  # for the number of distinct values, ± 1%
_QUANTILE_ERROR = 0.005  # at most, as a share of the values; 20 times less in practice
_MOST_VALUES = 2**32
_LONGEST_TEXT = 1_024

Proto: TypeAlias = statistics_pb2.FeatureNameStatistics


class Lengths:
    """How many values the lists of a column have."""

    def __init__(self) -> None:
        self.counts = np.zeros(1, np.int64)  # lists by their number of values; 0 is missing

    def add(self, counts: np.ndarray) -> None:
        self._sum(np.bincount(counts))

    def merge(self, other: Lengths) -> None:
        self._sum(other.counts)

    def _sum(self, counts: np.ndarray) -> None:
        short, long = sorted((self.counts, counts), key=len)
        self.counts = long.copy()
        self.counts[: len(short)] += short

    def fill(self, common: statistics_pb2.CommonStatistics) -> None:
        lengths, present = np.arange(len(self.counts)), self.counts.copy()
        present[0] = 0
        common.num_non_missing, common.num_missing = int(present.sum()), int(self.counts[0])
        common.tot_num_values = int(lengths @ present)
        if found := np.flatnonzero(present).tolist():
            common.min_num_values, common.max_num_values = found[0], found[-1]
            common.avg_num_values = common.tot_num_values / common.num_non_missing
            _quantiles(common.num_values_histogram, lengths, np.cumsum(present))


class Numbers:
    """Running figures of numbers; what is not finite is missing."""

    def __init__(self) -> None:
        self.count, self.zeros = 0, 0
        self.mean, self.squares = 0.0, 0.0  # squares of the differences from the mean
        self.low, self.high = float("inf"), float("-inf")
        self.quantiles = QuantilesSketch(_QUANTILE_ERROR, _MOST_VALUES, 1)

    def add(self, values: pa.Array) -> np.ndarray:
        """Adds values, and tells which are there."""
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
        there = np.isfinite(numbers)
        numbers = numbers[there]
        if len(numbers):
            mean = float(numbers.mean())
            self._moments(len(numbers), mean, float(np.square(numbers - mean).sum()))
            self.zeros += int((numbers == 0).sum())
            self.low, self.high = min(self.low, numbers.min()), max(self.high, numbers.max())
            self.quantiles.AddValues(pa.array(numbers))
        return there

    def merge(self, other: Numbers) -> None:
        if other.count:
            self._moments(other.count, other.mean, other.squares)
            self.zeros += other.zeros
            self.low, self.high = min(self.low, other.low), max(self.high, other.high)
            self.quantiles.Merge(other.quantiles)

    def _moments(self, count: int, mean: float, squares: float) -> None:
        """Chan, Golub & LeVeque 1979: sums of squares alone lose the digits of large numbers."""
        total, shift = self.count + count, mean - self.mean
        self.squares += squares + shift**2 * self.count * count / total
        self.mean += shift * count / total
        self.count = total

    def fill(self, feature: Proto) -> statistics_pb2.CommonStatistics:
        stats = feature.num_stats
        if self.count:
            stats.mean, stats.std_dev = self.mean, (self.squares / self.count) ** 0.5
            stats.num_zeros, stats.min, stats.max = self.zeros, self.low, self.high
            values, weights = self.quantiles.GetQuantilesAndCumulativeWeights(1_000)
            quantiles = np.array(values.to_pylist()[0])
            below = np.array(weights.to_pylist()[0])
            stats.median = quantiles[len(quantiles) // 2]
            self._histogram(stats, quantiles, below)
            _quantiles(stats.histograms.add(), quantiles, below)
        return stats.common_stats

    def _histogram(self, stats: Any, quantiles: np.ndarray, below: np.ndarray) -> None:
        """Buckets of equal width, from what is below their ends."""
        edges = np.linspace(self.low, self.high, BUCKETS + 1)
        at_most = np.concatenate([[0], below])[np.searchsorted(quantiles, edges, side="right")]
        at_most[0] = 0
        histogram = stats.histograms.add(type=statistics_pb2.Histogram.STANDARD)
        for low, high, count in zip(edges[:-1], edges[1:], np.diff(at_most), strict=True):
            histogram.buckets.add(low_value=low, high_value=high, sample_count=max(count, 0.0))


def _quantiles(
    histogram: statistics_pb2.Histogram, values: np.ndarray, at_most: np.ndarray
) -> None:
    """Fills in buckets of equal counts at most, but for values that are more frequent than that.

    These have a bucket of their own, whose ends are equal. What is in another one is above its low
    end and not above its high end.

    Args:
        histogram: to be filled.
        values: ascending.
        at_most: how many values are not above each of them.
    """
    histogram.type = statistics_pb2.Histogram.QUANTILES
    values, first = np.unique(values[::-1], return_index=True)
    at_most = at_most[::-1][first]
    counts = np.diff(at_most, prepend=0)
    alone = counts * QUANTILES >= at_most[-1]
    part = (at_most - counts) * QUANTILES // at_most[-1]
    starts = np.flatnonzero(np.diff(part, prepend=-1) + alone + np.roll(alone, 1))
    for start, end in itertools.pairwise([*starts, len(values)]):
        low = values[start] if alone[start] else values[max(start - 1, 0)]
        count = counts[start:end].sum()
        if count:
            histogram.buckets.add(low_value=low, high_value=values[end - 1], sample_count=count)


class Texts:
    """Running figures of texts; "" is missing."""

    def __init__(self) -> None:
        self.characters, self.count = 0, 0
        self.distinct = KmvSketch(_HASHES)
        self.frequent = MisraGriesSketch(
            _COUNTERS,
            invalid_utf8_placeholder="__BYTES_VALUE__",  # as TFDV calls them
            large_string_threshold=_LONGEST_TEXT,
            large_string_placeholder="__LARGE_BYTES__",
        )

    def add(self, values: pa.Array) -> np.ndarray:
        """Adds values, and tells which are there."""
        sizes = pc.binary_length(values).to_numpy(zero_copy_only=False)
        there = sizes > 0
        self.characters += int(sizes.sum())
        self.count += int(there.sum())
        if there.any():
            found = values.filter(pa.array(there)).cast(pa.binary())
            self.distinct.AddValues(found)
            self.frequent.AddValues(found)
        return there

    def merge(self, other: Texts) -> None:
        self.characters += other.characters
        self.count += other.count
        self.distinct.Merge(other.distinct)
        self.frequent.Merge(other.frequent)

    def fill(self, feature: Proto) -> statistics_pb2.CommonStatistics:
        stats = feature.string_stats
        stats.avg_length = self.characters / max(self.count, 1)
        found = self.frequent.Estimate().to_pylist() if self.count else []
        stats.unique = self.distinct.Estimate() if self.count else 0
        for rank, entry in enumerate(found[:TOP_VALUES]):
            value, count = entry["values"].decode("utf-8", "replace"), entry["counts"]
            stats.top_values.add(value=value, frequency=count)
            bucket = {"label": value, "low_rank": rank, "high_rank": rank, "sample_count": count}
            stats.rank_histogram.buckets.add(**bucket)
        return stats.common_stats


class ColumnStatistics:
    """Running figures of one column, which has a list per row.

    Args:
        kind: of the values.
    """

    def __init__(self, kind: pa.DataType) -> None:
        self.kind = kind
        self.lengths = Lengths()
        self.values: Any = Texts() if pa.types.is_large_binary(kind) else Numbers()

    def add(self, column: pa.Array) -> None:
        """Adds lists. An empty list, and one with nothing but missing values, is missing."""
        there = self.values.add(column.flatten())
        ends = np.cumsum(pc.list_value_length(column).to_numpy(zero_copy_only=False))
        before = np.concatenate([[0], np.cumsum(there)])
        self.lengths.add(np.diff(before[np.concatenate([[0], ends])]))

    def merge(self, other: ColumnStatistics) -> None:
        """Adds the figures of another part of the data."""
        self.lengths.merge(other.lengths)
        self.values.merge(other.values)

    def compact(self) -> None:
        """Frees memory."""
        if isinstance(self.values, Numbers):
            self.values.quantiles.Compact()

    def fill(self, feature: Proto) -> None:
        """Writes the figures down."""
        types = {pa.large_binary(): Proto.STRING, pa.int64(): Proto.INT}
        feature.type = types.get(self.kind, Proto.FLOAT)
        self.lengths.fill(self.values.fill(feature))


@dataclass
class SplitStatistics:
    """Running figures of one split."""

    rows: int = 0
    columns: dict[str, ColumnStatistics] = field(default_factory=dict)


class Statistics(beam.CombineFn):
    """Combines record batches of raw examples into a serialized `DatasetFeatureStatistics`.

    One pass, in memory that does not grow with the data: frequent values by the algorithm of
    Misra & Gries 1982, distinct ones by the least hashes (Bar-Yossef et al. 2002), quantiles by
    weighted summaries. All of it is exact on small data.

    Args:
        name: of the split.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def create_accumulator(self) -> SplitStatistics:
        return SplitStatistics()

    def add_input(self, accumulator: SplitStatistics, batch: pa.RecordBatch) -> SplitStatistics:
        accumulator.rows += batch.num_rows
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            found = accumulator.columns.get(name)
            if found is None:
                kind = column.type.value_type
                found = accumulator.columns[name] = ColumnStatistics(kind)
            found.add(column)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[SplitStatistics]) -> SplitStatistics:
        merged = SplitStatistics()
        for accumulator in accumulators:
            merged.rows += accumulator.rows
            for name, column in accumulator.columns.items():
                if name in merged.columns:
                    merged.columns[name].merge(column)
                else:
                    merged.columns[name] = column
        return merged

    def compact(self, accumulator: SplitStatistics) -> SplitStatistics:
        for column in accumulator.columns.values():
            column.compact()
        return accumulator

    def extract_output(self, accumulator: SplitStatistics) -> bytes:
        result = statistics_pb2.DatasetFeatureStatistics(
            name=self.name, num_examples=accumulator.rows
        )
        for name, column in accumulator.columns.items():
            feature = result.features.add()
            feature.path.step.append(name)
            column.fill(feature)
        return result.SerializeToString(deterministic=True)


def write(path: Path, splits: Iterable[bytes]) -> None:
    """Writes a `DatasetFeatureStatisticsList`.

    Args:
        path: of the file.
        splits: serialized `DatasetFeatureStatistics`.
    """
    result = statistics_pb2.DatasetFeatureStatisticsList()
    for split in splits:
        result.datasets.add().ParseFromString(split)
    path.write_bytes(result.SerializeToString(deterministic=True))


def read(path: Path) -> dict[str, statistics_pb2.DatasetFeatureStatistics]:
    """Statistics by split."""
    found = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes())
    return {dataset.name: dataset for dataset in found.datasets}


def features_of(dataset: statistics_pb2.DatasetFeatureStatistics) -> dict[str, Proto]:
    """Statistics of a split by column."""
    return {feature.path.step[0]: feature for feature in dataset.features}


def common(feature: Proto) -> statistics_pb2.CommonStatistics:
    """What statistics of any type have."""
    return getattr(feature, feature.WhichOneof("stats")).common_stats
