"""Figures that are gathered in parts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import statistics_pb2

from pipeline.statistics import Statistics, to_proto
from pipeline.writers import CountIds

NUMBERS = st.lists(st.lists(st.sampled_from([0.0, 1.5, -2.0, math.nan]), max_size=3), max_size=9)
TEXTS = st.lists(st.lists(st.sampled_from(["", "a", "bcd"]), max_size=3), max_size=9)


def summary(parts: list[list[list[Any]]], kind: pa.DataType) -> Any:
    """Statistics of one column that comes in several batches, on several workers."""
    combine = Statistics()
    accumulators = []
    for rows in parts:
        batch = pa.RecordBatch.from_arrays([pa.array(rows, pa.large_list(kind))], ["x"])
        accumulators.append(combine.add_input(combine.create_accumulator(), batch))
    merged = combine.merge_accumulators([combine.create_accumulator(), *accumulators])
    written = to_proto({"train": combine.extract_output(merged)})
    proto = statistics_pb2.DatasetFeatureStatisticsList.FromString(written)
    assert proto.datasets[0].num_examples == sum(map(len, parts))
    return proto.datasets[0].features[0]


@given(NUMBERS, NUMBERS)
def test_numbers(first: list[list[float]], second: list[list[float]]):
    numbers = summary([first, second], pa.float32()).num_stats
    rows = [[v for v in row if not math.isnan(v)] for row in first + second]
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


def check_counts(common: Any, rows: list[list[Any]]) -> None:
    counts = [len(row) for row in rows if row]
    assert common.num_non_missing == len(counts)
    assert common.num_missing == len(rows) - len(counts)
    assert common.tot_num_values == sum(counts)
    assert common.min_num_values == min(counts, default=0)
    assert common.max_num_values == max(counts, default=0)
    assert common.avg_num_values == pytest.approx(np.mean(counts) if counts else 0)


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
