"""The real data, through the real command."""

from __future__ import annotations

import tensorflow as tf

from tests.pipeline import shop
from tfrec.features import Features


def test_the_command_says_what_it_did(movielens):
    output, said = movielens
    lines = [line.split(maxsplit=4) for line in said.splitlines()]
    assert [line[:2] for line in lines] == [
        [step, "made"] for step in ("ingest", "statistics", "schema", "validation", "transform")
    ]
    counts = "train 79,748, validation 9,957, test 10,299"
    assert lines[0][4] == f"100,004 rows; {counts}"
    assert lines[-1][4] == f"{counts}; {output}"


def test_counts(movielens):
    features = Features.load(movielens[0])
    assert features.counts == {"train": 79_748, "validation": 9_957, "test": 10_299}
    sizes = {table.name: (table.vocabulary, table.oov) for table in features.tables}
    assert sizes["user"] == (671, 1)
    assert sizes["genres"] == (20, 1)
    assert sizes["year"] == (10, 0)
    assert sizes["liked_movie_x_movie"] == (200_000, 0)
    known, oov = sizes["movie"]
    assert oov == 16
    lines = shop.vocabulary(movielens[0], "movie")
    counts = [count for _, count, _ in lines[1 : known + 1]]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 2
    assert 4_000 < known < 9_066
    assert sum(count for _, count, _ in lines) == 79_748
    assert lines[1][2] == "356"  # Forrest Gump
    assert lines[0][1] == 0


def test_examples(movielens):
    features = Features.load(movielens[0])
    (history,) = features.histories
    assert history.length == 50
    longest, likes, rows = 0, 0, 0
    for path in sorted(movielens[0].glob("examples/test-*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            fields = tf.train.Example.FromString(record).features.feature
            movies = fields["liked_movie$ragged_values"].int64_list.value
            assert len(fields["liked_genres$row_lengths_1"].int64_list.value) == len(movies)
            assert all(movies)
            longest = max(longest, len(movies))
            likes += fields["label:like"].float_list.value[0]
            rows += 1
    assert (rows, longest) == (10_299, 50)
    assert 0.3 < likes / rows < 0.7
