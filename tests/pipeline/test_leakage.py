"""A whole run with another future: what may move, and what may not."""

from __future__ import annotations

import numpy as np

from tests.pipeline import shop


def transform(directory) -> dict[str, bytes]:
    """What tf.Transform has learnt from the training split."""
    folder = directory / "transform" / "transform_fn" / "assets"
    assets = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(assets) == {"user", "item", "genres", "genre", "brand", "device"}
    return assets


def vocabularies(directory) -> dict[str, str]:
    return {path.name: path.read_text() for path in (directory / "vocabulary").iterdir()}


def test_training_does_not_know_the_future(data_set, other_future):
    """All items, ratings, prices of validation and test differ: nothing of train moves."""
    first, second = data_set.directory, other_future.directory
    assert shop.shards(first, "train") == shop.shards(second, "train")
    assert shop.shards(first, "test") != shop.shards(second, "test")
    assert vocabularies(first) == vocabularies(second)
    assert transform(first) == transform(second)
    assert data_set.features == other_future.features


def test_new_values_are_out_of_the_vocabulary(other_future):
    """And numbers beyond those of train stay beyond them."""
    for split in ("validation", "test"):
        for example in other_future.splits[split].values():
            for name, value in (("item", None), ("brand", 6), ("device", 3)):
                table = other_future.features.table(name)
                assert table.vocabulary < example[name][0] < table.size
                assert value in (None, example[name][0])
            assert 5 in example["genres$ragged_values"]  # the OOV id, beside that of "war"
            assert min(example["genres$ragged_values"]) in (1, 2, 3, 4)
            assert example["price"][0] > 1_000
            assert example["price_scaled"][0] > 1_000
    items = {example["item"][0] for example in other_future.splits["test"].values()}
    assert len(items) == 3  # spread over the OOV ids
    last = max(
        (e for e in other_future.splits["test"].values()), key=lambda e: e["when"][0]
    )  # its history has a new item
    assert np.isin(last["seen_item$ragged_values"], sorted(items)).any()
