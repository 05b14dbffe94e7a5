"""Statistics of columns with many values are of their tokens."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from tensorflow_metadata.proto.v0 import statistics_pb2

from pipeline import schema
from pipeline.statistics import Statistics, common, features_of, read
from pipeline.tokens import cut, cuts_of
from pipeline.validation import validate
from tests.pipeline import shop
from tests.pipeline.conftest import DataSet

MANY = {"kind": "category", "role": "item", "separator": "|"}
DECLARATION = shop.tiny(
    "nowhere.csv", features={"genres": MANY, "title": {"kind": "text", "role": "item"}}
)
TITLES = [b"Z\xc3\x9cRICH, by night", b"?!", b"", b"by day"]
GENRES = [b"drama|noir", b" drama | ", b"", b"war|drama|drama"]


def batch(genres: list[bytes], titles: list[bytes]) -> pa.RecordBatch:
    kind = pa.large_list(pa.large_binary())
    arrays = [pa.array([[text] for text in texts], kind) for texts in (genres, titles)]
    return pa.RecordBatch.from_arrays(arrays, ["genres", "title"])


def statistics(genres: list[bytes], name: str = "train") -> Any:
    """Of genres and as many titles."""
    combine = Statistics(name)
    rows = cut(batch(genres, [b"by day"] * len(genres)), cuts_of(DECLARATION))
    added = combine.add_input(combine.create_accumulator(), rows)
    return statistics_pb2.DatasetFeatureStatistics.FromString(combine.extract_output(added))


def test_tokens_are_those_of_the_transform() -> None:
    found = cut(batch(GENRES, TITLES), cuts_of(DECLARATION)).to_pydict()
    assert found["genres"] == [
        [b"drama", b"noir"], [b"drama"], [], [b"war", b"drama", b"drama"]
    ]  # fmt: skip
    assert found["title"] == [["z\u00fcrich".encode(), b"by", b"night"], [], [], [b"by", b"day"]]
    nothing = cut(batch([], []), cuts_of(DECLARATION))
    assert nothing.to_pydict() == {"genres": [], "title": []}


def test_a_column_that_is_one_value_too_is_not_cut() -> None:
    whole = {"kind": "category", "role": "item", "column": "genres"}
    assert cuts_of(shop.tiny("nowhere.csv", features={"genres": MANY, "whole": whole})) == {}


def test_drift_and_new_values_are_of_tokens() -> None:
    before = statistics([b"drama|noir", b"drama", b"noir|war"] * 300)
    known = schema.infer([before], DECLARATION)
    (genres, title) = known.feature
    assert list(genres.string_domain.value) == ["drama", "noir", "war"]
    assert not title.HasField("string_domain")
    longer = statistics([b"war|noir|drama|drama|noir", b"drama", b"noir|war"] * 300)
    assert validate(longer, known, previous=before) == []  # the same ones, in other lists
    new, drift = validate(statistics([b"farce|drama|noir"] * 900), known, previous=before)
    assert new.reason.startswith("33.33% of the values")
    assert "'farce'" in new.reason
    assert "L-infinity 0.333 > 0.1, most at 'farce'" in drift.reason


def test_of_a_whole_run(data_set: DataSet) -> None:
    found = read(data_set.directory / "statistics" / "FeatureStats.pb")["train"]
    genres = features_of(found)["genres"]
    lists = [event["genres"] for event in data_set.events["train"].values()]
    counts = Counter(genre for genres in lists for genre in genres)
    assert {v.value: v.frequency for v in genres.string_stats.top_values} == counts
    assert genres.string_stats.unique == len(counts) == 4
    assert common(genres).max_num_values == max(map(len, lists))
    assert common(genres).num_missing == lists.count([])
    assert common(genres).avg_num_values == pytest.approx(counts.total() / sum(map(bool, lists)))
