"""Figures that are gathered in parts."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import statistics_pb2

from pipeline.statistics import BUCKETS, QUANTILES, Statistics, common
from pipeline.writers import CountIds

NUMBERS = st.lists(
    st.lists(st.sampled_from([0.0, 1.5, -2.0, math.nan, math.inf]), max_size=3), max_size=9
)
TEXTS = st.lists(st.lists(st.sampled_from(["", "a", "bcd"]), max_size=3), max_size=9)


def summary(parts: list[Any], kind: pa.DataType) -> Any:
    """Statistics of one column that comes in several batches, on several workers."""
    combine = Statistics("train")
    accumulators = []
    for rows in parts:
        batch = pa.RecordBatch.from_arrays([pa.array(rows, pa.large_list(kind))], ["x"])
        added = combine.add_input(combine.create_accumulator(), batch)
        sent = pickle.dumps(combine.compact(added))  # as it travels between workers
        accumulators.append(pickle.loads(sent))
    merged = combine.merge_accumulators([combine.create_accumulator(), *accumulators])
    proto = statistics_pb2.DatasetFeatureStatistics.FromString(combine.extract_output(merged))
    assert proto.num_examples == sum(map(len, parts))
    return proto.features[0]


@given(NUMBERS, NUMBERS)
def test_numbers(first: list[list[float]], second: list[list[float]]):
    numbers = summary([first, second], pa.float32()).num_stats
    rows = [[v for v in row if math.isfinite(v)] for row in first + second]
    check_counts(numbers.common_stats, rows)
    values = [value for row in rows for value in row]
    assert numbers.num_zeros == values.count(0)
    if values:
        assert numbers.mean == pytest.approx(np.mean(values))
        assert numbers.std_dev == pytest.approx(np.std(values))
        assert (numbers.min, numbers.max) == (min(values), max(values))


@given(TEXTS, TEXTS)
def test_texts(first: list[list[str]], second: list[list[str]]):
    texts = summary([first, second], pa.large_binary()).string_stats
    rows = [[v for v in row if v] for row in first + second]
    check_counts(texts.common_stats, rows)
    lengths = [len(value) for row in rows for value in row]
    assert texts.avg_length == pytest.approx(np.mean(lengths) if lengths else 0)
    counts = Counter(value for row in rows for value in row)
    assert texts.unique == len(counts)
    assert {entry.value: entry.frequency for entry in texts.top_values} == counts


def check_counts(common: Any, rows: list[list[Any]]) -> None:
    counts = [len(row) for row in rows if row]
    assert common.num_non_missing == len(counts)
    assert common.num_missing == len(rows) - len(counts)
    assert common.tot_num_values == sum(counts)
    assert common.min_num_values == min(counts, default=0)
    assert common.max_num_values == max(counts, default=0)
    assert common.avg_num_values == pytest.approx(np.mean(counts) if counts else 0)


def test_quantiles_and_histograms():
    """Of many numbers, some of them equal, in parts; within the sketch's error."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.lognormal(size=50_000), np.zeros(5_000)]).astype(np.float32)
    rng.shuffle(values)
    parts = [part.reshape(-1, 1).tolist() for part in np.array_split(values, 7)]
    found = summary(parts, pa.float32()).num_stats
    assert found.median == pytest.approx(np.median(values), rel=0.02)
    by_width, by_quantile = found.histograms
    counts, edges = np.histogram(values, BUCKETS)
    assert [b.low_value for b in by_width.buckets] == pytest.approx(edges[:-1], abs=1e-4)
    sizes = [b.sample_count for b in by_width.buckets]
    assert sizes == pytest.approx(counts, abs=0.003 * len(values))
    assert sum(sizes) == pytest.approx(len(values), rel=1e-3)
    zeros, *others = by_quantile.buckets
    assert (zeros.low_value, zeros.high_value) == (0, 0)
    assert zeros.sample_count == pytest.approx(5_000, abs=0.002 * len(values))
    assert others[-1].high_value == values.max()
    assert max(bucket.sample_count for bucket in others) < 1.5 * len(values) / QUANTILES
    below = zeros.sample_count
    for bucket in others:
        below += bucket.sample_count
        assert below == pytest.approx((values <= bucket.high_value).sum(), abs=0.002 * len(values))


@given(st.lists(st.integers(-3, 9), min_size=1, max_size=60))
def test_every_value_of_few_has_a_bucket(values: list[int]):
    (_, by_quantile) = summary([[[v] for v in values]], pa.int64()).num_stats.histograms
    assert all(bucket.low_value == bucket.high_value for bucket in by_quantile.buckets)
    counts = {bucket.high_value: bucket.sample_count for bucket in by_quantile.buckets}
    assert counts == Counter(values)


def test_large_numbers_close_to_one_another():
    """Times in seconds: their squares have more digits than a float64."""
    times = 1_700_000_000 + np.arange(1_000)
    found = summary([times[:300, None].tolist(), times[300:, None].tolist()], pa.int64())
    assert found.type == statistics_pb2.FeatureNameStatistics.INT
    assert found.num_stats.std_dev == pytest.approx(times.std(), rel=1e-9)
    assert found.num_stats.mean == pytest.approx(times.mean(), rel=1e-12)


def test_many_texts_in_bounded_memory():
    """The most frequent of a million distinct values, and about how many there are."""
    rare = [[b"rare %d" % i] for i in range(100_000)]
    parts = [[*rare[i::4], *[[b"often"]] * 3_000, *[[b"at times"]] * 2_000] for i in range(4)]
    found = summary(parts, pa.large_binary()).string_stats
    assert [entry.value for entry in found.top_values][:2] == ["often", "at times"]
    assert found.unique == pytest.approx(100_002, rel=0.03)
    assert len(found.top_values) <= 100


def test_texts_that_are_no_text():
    found = summary([[[b"\xff\xfe"], [b"x" * 5_000], [b"a"]]], pa.large_binary()).string_stats
    values = {entry.value for entry in found.top_values}
    assert values == {"__BYTES_VALUE__", "__LARGE_BYTES__", "a"}


def test_lengths_of_lists():
    lists = [[1.0] * n for n in (0, 1, 1, 2, 9)]
    histogram = common(summary([lists], pa.float32())).num_values_histogram
    assert {b.high_value: b.sample_count for b in histogram.buckets} == {1: 2, 2: 1, 9: 1}


@given(st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=5))
def test_ids_are_counted(parts: list[list[int]]):
    combine = CountIds()
    totals = []
    for ids in parts:
        pair = np.unique(np.array(ids, np.int64), return_counts=True)
        totals.append(combine.add_input(combine.create_accumulator(), pair))
    merged = combine.extract_output(combine.merge_accumulators(totals))
    everything = [index for ids in parts for index in ids]
    assert merged.tolist() == np.bincount(everything).tolist() if everything else not len(merged)
