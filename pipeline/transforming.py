"""The step `transform`: raw examples to the data set directory that models are trained on."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import statistics_pb2

from pipeline.data_steps import StatisticsStep, ValidationStep
from pipeline.description import describe
from pipeline.events import Layout
from pipeline.flow import Flow, raw_metadata
from pipeline.graph import Keep, run_graph
from pipeline.ingest import REPORT, Ingest, ReadExamples
from pipeline.shared import Shared
from pipeline.spans import KeptAnalysis, Plan, analyse_whole
from pipeline.statistics import FILE_NAME, common, features_of, read
from pipeline.step import Step, code_digest
from pipeline.vocabularies import tables, write_vocabularies
from pipeline.workspace import digest_of_files, digest_of_values
from pipeline.writers import split_counts
from tfrec.features import LABEL_PREFIX, TIME_KEY, Features
from tfrec.strict import UserError

WORTH_KEEPING = 1_000_000  # events from which on spans, which make the graph longer, save time


class Transform(Step):
    """Learns vocabularies and normalisation from the training split, and transforms every split.

    Leaves the data set directory: see docs/design.md.
    """

    name = "transform"
    needs = (Ingest.name, StatisticsStep.name)
    heeds = (ValidationStep.name,)
    leaves = "analysis"

    def settings(self) -> Any:
        return self.declaration.data_set()

    def make(self, place: Path) -> dict[str, Any]:
        declaration = self.declaration
        statistics = read(self.input(StatisticsStep.name) / FILE_NAME)
        learned = statistics[declaration.learned_from]
        self._check_columns(learned)
        counts = {s: statistics[s].num_examples for s in declaration.given_splits}
        schema = text_format.MessageToString(raw_metadata(declaration).schema)
        (place / "schema.pbtxt").write_text(schema)
        plan = self._plan(learned.num_examples, place)

        def build(pipeline: beam.Pipeline, keep: Keep, shared: Shared) -> None:
            analyse = functools.partial(plan.analyse, shared) if plan else analyse_whole
            ingested = self.input(Ingest.name)
            Flow(declaration, counts, ingested, shared, analyse).build(pipeline, keep)

        kept = run_graph(build, self.options, place)
        if plan:
            plan.keep(place)
        output = tft.TFTransformOutput(str(place / "transform"))
        known = tables(declaration, output, kept["ids"])
        write_vocabularies(place / "vocabulary", declaration, output, known, kept["ids"])
        columns = features_of(learned).items()
        missing = {name for name, feature in columns if common(feature).num_missing}
        features = describe(declaration, known, kept["lengths"], counts, missing)
        fingerprint = self._fingerprint(features, learned, place)
        dataclasses.replace(features, fingerprint=fingerprint).save(place)
        with tf.io.TFRecordWriter(str(place / "sample.tfrecord")) as writer:
            for example in kept["sample"]:
                writer.write(example)
        self._copy(place)
        new = sum(span.events for span in plan.new) if plan else learned.num_examples
        sizes = {table.name: table.size for table in known}
        return {"examples": counts, "tables": sizes, "analysed": [new, learned.num_examples]}

    def _plan(self, events: int, place: Path) -> Plan | None:
        """How to analyse by spans of time, where there is one and that is worth it."""
        if self.declaration.time is None or events < WORTH_KEEPING:
            return None
        of = digest_of_values([self.declaration.analysis(), code_digest(self.code)])
        kept = KeptAnalysis(self.workspace.root / self.leaves, of)
        name, columns = self.declaration.learned_from, list(Layout.of(self.declaration).inputs)

        def build(pipeline: beam.Pipeline, keep: Keep, shared: Shared) -> None:
            read = list(dict.fromkeys([*columns, TIME_KEY]))
            batches = pipeline | ReadExamples(self.input(Ingest.name), name, shared, read)
            keep("spans", kept.find(batches, columns))

        return kept.plan(run_graph(build, self.options, place)["spans"])

    def _check_columns(self, learned: statistics_pb2.DatasetFeatureStatistics) -> None:
        declaration = self.declaration
        columns = {name: name for name in Layout.of(declaration).inputs}
        columns |= {LABEL_PREFIX + n: f.column for n, f in declaration.labels.items()}
        found = features_of(learned).items()
        present = {name for name, feature in found if common(feature).num_non_missing}
        empty = [column for name, column in columns.items() if name not in present]
        if empty:
            named = ", ".join(map(repr, dict.fromkeys(empty)))
            raise UserError(f"no value in train of column {named}; check the source")

    def _copy(self, place: Path) -> None:
        """What of other steps belongs to a data set, so that it can be moved as a whole."""
        ingested = self.input(Ingest.name)
        for part in ("items", "interactions"):
            if (ingested / part).exists():
                shutil.copytree(ingested / part, place / part)
        shutil.copy(ingested / REPORT, place)
        (place / "statistics").mkdir()
        shutil.copy(self.input(StatisticsStep.name) / FILE_NAME, place / "statistics")
        declared = self.declaration.data_set(exclude_unset=True)
        (place / "declaration.json").write_text(json.dumps(declared, indent=1) + "\n")

    def _fingerprint(
        self,
        features: Features,
        learned: statistics_pb2.DatasetFeatureStatistics,
        place: Path,
    ) -> str:
        """Digest of all that ids and numbers mean, and of the training examples themselves."""
        labels = tuple(dataclasses.replace(label, weight=1.0) for label in features.labels)
        described = dataclasses.replace(features, labels=labels).to_dict()
        columns = features_of(learned).items()
        ranges = {name: [f.num_stats.min, f.num_stats.max] for name, f in columns}
        files = [*(place / "vocabulary").iterdir(), *(place / "examples").glob("train-*")]
        return digest_of_values([described, ranges, digest_of_files(files, place)])

    def digest(self, place: Path) -> str:
        """Without the graph, whose files differ from run to run: the fingerprint stands for it."""
        graph = place / "transform"
        files = (p for p in place.rglob("*") if p.is_file() and graph not in p.parents)
        return digest_of_files(files, place)

    def told(self, counts: dict[str, Any]) -> list[str]:
        new, events = counts["analysed"]
        analysed = "" if new == events else f"; analysed {new:,} of {events:,} training events"
        return [f"{split_counts(counts['examples'])}{analysed}; {self.output}"]
