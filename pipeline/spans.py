"""Analysing new events only: what older ones have said is kept from run to run.

An analysis is a sum over spans of time. What a span adds to it is kept, by a digest of its events:
while these are the same, they are not analysed again.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.beam import analyzer_cache

from pipeline.shared import Shared
from tfrec.features import TIME_KEY

PARTS = "analysis"  # what new spans add, until all is done
MOST = 4  # spans; every one makes the graph longer

Found = tuple[int, int, int]  # newest time, number and digest of some events


@dataclass(frozen=True)
class Span:
    """Training events since the span before.

    Attributes:
        until: time of the newest, in seconds since 1970.
        events: how many.
        digest: of them, in any order: the sum of theirs, modulo 2^64.
    """

    until: int
    events: int
    digest: int

    @property
    def key(self) -> analyzer_cache.DatasetKey:
        """What its part of the analysis is kept under."""
        return analyzer_cache.DatasetKey(f"{self.digest:016x}-{self.events}")

    def with_next(self, other: Span) -> Span:
        """The two together."""
        return Span(*_together([dataclasses.astuple(self), dataclasses.astuple(other)]))


class KeptAnalysis:
    """What earlier runs have kept, in a directory of its own.

    Args:
        directory: may be missing.
        of: digest of all that decides an analysis beside the events.
    """

    def __init__(self, directory: Path, of: str) -> None:
        self.directory, self.of = directory, of
        self.index = directory / "spans.json"
        self.known: list[Span] = []
        if self.index.is_file():
            kept = json.loads(self.index.read_text())
            spans = [Span(**span) for span in kept["spans"]]
            if kept["of"] == of and all((directory / span.key.key).is_dir() for span in spans):
                self.known = spans

    def find(self, batches: beam.PCollection, columns: list[str]) -> beam.PCollection:
        """What the known spans' times, and what comes behind, hold now: one dict for `plan`.

        Args:
            batches: of raw examples.
            columns: that are analysed.
        """
        bounds = [span.until for span in self.known]
        return (
            batches
            | "of spans" >> beam.FlatMap(_digests, bounds, columns)
            | "together" >> beam.CombinePerKey(_together)
            | "spans" >> beam.combiners.ToDict()
        )

    def plan(self, found: dict[int, Found]) -> Plan:
        """How to analyse what `find` has found.

        The smallest neighbours become one span where there are too many.
        """
        spans = []
        for index, (until, events, digest) in sorted(found.items()):
            bound = self.known[index].until if index < len(self.known) else until
            spans.append(Span(bound, events, digest))
        while len(spans) > MOST:
            sizes = [a.events + b.events for a, b in itertools.pairwise(spans)]
            least = sizes.index(min(sizes))
            spans[least : least + 2] = [spans[least].with_next(spans[least + 1])]
        return Plan(self, spans)


@dataclass(frozen=True)
class Plan:
    """How a run analyses its events.

    Attributes:
        kept: by earlier runs.
        spans: of all events, in order.
    """

    kept: KeptAnalysis
    spans: list[Span]

    @property
    def new(self) -> list[Span]:
        """Spans of which nothing is kept."""
        keys = {span.key for span in self.kept.known}
        return [span for span in self.spans if span.key not in keys]

    def analyse(
        self,
        shared: Shared,
        batches: beam.PCollection,
        config: Any,
        preprocessing_fn: Callable[..., Any],
    ) -> Any:
        """The transform function of all spans.

        Args:
            shared: where workers read and write.
            batches: of raw examples.
            config: of the batches' tensors.
            preprocessing_fn: of tf.Transform.
        """
        bounds, tags = [span.until for span in self.spans], [span.key.key for span in self.spans]
        new = {span.key.key for span in self.new}
        parted = batches | "by span" >> beam.FlatMap(_parts, bounds, tags, new).with_outputs(*new)
        data = {key: parted[key.key] if key.key in new else None for key in self._keys}
        cache = batches.pipeline | "kept" >> analyzer_cache.ReadAnalysisCacheFromFS(
            shared.seen(self.kept.directory), [key for key in self._keys if key.key not in new]
        )
        function, found = (data, cache, config) | tft_beam.AnalyzeDatasetWithCache(preprocessing_fn)
        _ = found | "keep" >> analyzer_cache.WriteAnalysisCacheToFS(
            batches.pipeline, f"{shared.output}/{PARTS}"
        )
        return function

    @property
    def _keys(self) -> list[analyzer_cache.DatasetKey]:
        return [span.key for span in self.spans]

    def keep(self, place: Path) -> None:
        """Keeps what the run has left for the next one, and nothing else.

        Args:
            place: directory of the step.
        """
        directory, index = self.kept.directory, self.kept.index
        index.unlink(missing_ok=True)  # until all is in its place there is nothing
        directory.mkdir(exist_ok=True)
        parts = place / PARTS
        for part in parts.iterdir() if parts.exists() else ():  # nothing may be new
            shutil.rmtree(directory / part.name, ignore_errors=True)
            part.rename(directory / part.name)
        shutil.rmtree(parts, ignore_errors=True)
        wanted = {key.key for key in self._keys}
        for part in directory.iterdir():
            if part.name not in wanted:
                shutil.rmtree(part)
        spans = [dataclasses.asdict(span) for span in self.spans]
        index.write_text(json.dumps({"of": self.kept.of, "spans": spans}, indent=1) + "\n")


def analyse_whole(
    batches: beam.PCollection, config: Any, preprocessing_fn: Callable[..., Any]
) -> Any:
    """The same without spans."""
    return (batches, config) | tft_beam.AnalyzeDataset(preprocessing_fn)


def _times(batch: pa.RecordBatch) -> np.ndarray:
    return batch.column(TIME_KEY).flatten().to_numpy()


def _places(times: np.ndarray, bounds: list[int]) -> np.ndarray:
    """Which span every time is in; len(bounds) behind the last one."""
    return np.searchsorted(np.array(bounds, np.int64), times)


def _digests(
    batch: pa.RecordBatch, bounds: list[int], columns: list[str]
) -> Iterator[tuple[int, Found]]:
    times = _times(batch)
    values = {name: batch.column(name).flatten() for name in dict.fromkeys([*columns, TIME_KEY])}
    for name, column in values.items():
        if not pa.types.is_primitive(column.type):
            values[name] = column.dictionary_encode()  # so that every text is hashed once
    rows = pd.util.hash_pandas_object(pa.table(values).to_pandas(), index=False).to_numpy()
    places = _places(times, bounds)
    for place in np.unique(places):
        here = places == place
        digest = int(rows[here].sum(dtype=np.uint64))
        yield int(place), (int(times[here].max()), int(here.sum()), digest)


def _together(found: Iterable[Found]) -> Found:
    times, events, digests = zip(*found, strict=True)
    return max(times), sum(events), sum(digests) % 2**64


def _parts(
    batch: pa.RecordBatch, bounds: list[int], tags: list[str], wanted: set[str]
) -> Iterator[beam.pvalue.TaggedOutput]:
    places = _places(_times(batch), bounds)
    for place in np.unique(places):
        if tags[place] in wanted:
            rows = batch.filter(pa.array(places == place))
            yield beam.pvalue.TaggedOutput(tags[place], rows)
