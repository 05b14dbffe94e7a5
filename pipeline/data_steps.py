"""The steps `statistics`, `schema` and `validation`: what the raw examples are like."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from google.protobuf import text_format

from pipeline import page, schema, statistics, validation
from pipeline.blocks import SplitDeclaration
from pipeline.declaration import Declaration
from pipeline.events import REJECTED, Layout, ParseEvents
from pipeline.graph import Keep, run_graph
from pipeline.ingest import Ingest, ReadExamples, example_schema
from pipeline.rejected import ByReason, lines, rows_read, too_many
from pipeline.shared import Shared
from pipeline.sources import ReadSource, digests, head
from pipeline.statistics import Statistics
from pipeline.step import Step
from pipeline.tokens import cut, cuts_of
from pipeline.workspace import About, Workspace, digest_of_files
from tfrec.features import SPLITS
from tfrec.strict import UserError

ANOMALIES = "anomalies.pbtxt"
PAGE = "statistics.html"
REQUESTS = "requests.json"  # how many were read, and which could not be used
SERVING = "serving"  # what the statistics of requests are called


class StatisticsStep(Step):
    """Computes statistics of every split, and of requests where there are some.

    Leaves `FeatureStats.pb`, a `DatasetFeatureStatisticsList` as TFDV reads it; and, where there
    are requests, `requests.json`: how many were read, and which could not be used.
    """

    name = "statistics"
    needs = (Ingest.name,)

    def settings(self) -> Any:
        cuts = cuts_of(self.declaration)
        return [self.declaration.outputs, self.declaration.validation.serving, cuts]

    def check(self) -> None:
        super().check()
        if self.declaration.validation.serving:
            requests = _of_requests(self.declaration)
            try:
                next(head(requests.source, list(Layout.of(requests).types), 1), None)
            except UserError as error:
                raise UserError(
                    f"validation.serving: {str(error).removeprefix('source: ')}"
                ) from None

    def sources(self) -> dict[str, str]:
        serving = self.declaration.validation.serving
        return digests(_of_requests(self.declaration).source) if serving else {}

    def make(self, place: Path) -> dict[str, Any]:
        kept = run_graph(self._build, self.options, place)
        order = [name for name in (*self.declaration.outputs, SERVING) if name in kept]
        statistics.write(place / statistics.FILE_NAME, [kept[name] for name in order])
        found = statistics.read(place / statistics.FILE_NAME)
        columns = len(found[self.declaration.learned_from].features)
        rows = {name: dataset.num_examples for name, dataset in found.items()}
        counts = {"columns": columns, "rows": rows}
        if SERVING not in kept:
            return counts
        rejected = kept["rejected requests"]
        report = {"rows_read": rows_read(kept["requests"], rejected), "rejected": rejected}
        (place / REQUESTS).write_text(json.dumps(report, indent=1) + "\n")
        return {**counts, "rejected": rejected}

    def _build(self, pipeline: beam.Pipeline, keep: Keep, shared: Shared) -> None:
        examples = self.input(Ingest.name)
        data = {
            name: pipeline | f"{name} examples" >> ReadExamples(examples, name, shared)
            for name in self.declaration.outputs
        }
        if self.declaration.validation.serving:
            data[SERVING] = self._requests(pipeline, keep)
        cuts = cuts_of(self.declaration)
        for name, batches in data.items():
            tokens = batches | f"{name} tokens" >> beam.Map(cut, cuts)
            combined = beam.CombineGlobally(Statistics(name))
            keep(name, tokens | f"{name} statistics" >> combined)

    def _requests(self, pipeline: beam.Pipeline, keep: Keep) -> beam.PCollection[pa.RecordBatch]:
        """Record batches of the columns that requests have, as raw examples have them."""
        declaration = _of_requests(self.declaration)
        parse = ParseEvents(declaration)
        raw = pipeline | "requests" >> ReadSource(declaration, list(parse.layout.types))
        read = raw | "count requests" >> beam.Map(lambda element: element[2].num_rows)
        keep("requests", read | "sum requests" >> beam.CombineGlobally(sum))
        parsed = raw | "parse requests" >> beam.ParDo(parse).with_outputs(REJECTED, main="events")
        keep("rejected requests", parsed[REJECTED] | "rejected requests" >> ByReason())
        return parsed.events | beam.Map(_as_examples, example_schema(declaration))

    def told(self, counts: dict[str, Any]) -> list[str]:
        what = f"{counts['columns']} columns; {self.output / statistics.FILE_NAME}"
        return [what, *lines(counts.get("rejected", {}), "requests")]


class SchemaStep(Step):
    """Infers a schema of the first data, and keeps it: from then on it is the user's.

    Leaves `schema.pbtxt`, as TFDV reads and writes it.
    """

    name = "schema"
    needs = (StatisticsStep.name,)

    @property
    def given(self) -> Path | None:
        """The schema that the declaration names."""
        path = self.declaration.validation.schema_file
        return Path(path) if path else None

    def settings(self) -> Any:
        if self.given and not self.given.is_file():
            raise UserError(
                f"validation.schema_file: no file {str(self.given)!r}; leave the key out to have a "
                f"schema inferred in {self.output}"
            )
        return digest_of_files([self.given], self.given.parent) if self.given else None

    def check(self) -> None:
        super().check()
        if self.given:
            schema.load(self.given)

    def kept(self, key: str, force: bool) -> About | None:
        """A schema is not inferred twice, unless its file is gone; what was edited since counts."""
        about = self.workspace.about(self.name)
        if about is None or self.given:
            return super().kept(key, force)
        there = (self.output / schema.FILE_NAME).is_file()
        return dataclasses.replace(about, output=self.digest(self.output)) if there else None

    def make(self, place: Path) -> dict[str, Any]:
        target = place / schema.FILE_NAME
        if self.given:
            shutil.copy(self.given, target)
        else:
            found = statistics.read(self.input(StatisticsStep.name) / statistics.FILE_NAME)
            learned = self.declaration.learned_from
            order = sorted(found.keys() - {SERVING}, key=lambda name: name != learned)
            splits = [found[name] for name in order]
            schema.save(schema.infer(splits, self.declaration), target)
        how = f"from {self.given}" if self.given else "inferred"
        return {"how": how, "columns": len(schema.load(target).feature)}

    def told(self, counts: dict[str, Any]) -> list[str]:
        where = self.output / schema.FILE_NAME
        return [f"{counts['columns']} columns, {counts['how']}; {where}"]


class ValidationStep(Step):
    """Holds the statistics against the schema, and against those of other data.

    Leaves `anomalies.pbtxt`, an `Anomalies` as TFDV writes it, and a page for people.
    """

    name = "validation"
    needs = (StatisticsStep.name, SchemaStep.name)

    def settings(self) -> Any:
        declaration = self.declaration
        most = declaration.max_rejected if declaration.validation.serving else None
        return [declaration.name, declaration.learned_from, most]

    def check(self) -> None:
        super().check()
        self._previous()

    def sources(self) -> dict[str, str]:
        previous = self._previous()
        return {str(previous): digest_of_files([previous], previous.parent)} if previous else {}

    def _previous(self) -> Path | None:
        """Statistics of the run that these are not to drift from."""
        if self.declaration.validation.previous is None:
            return None
        root = Path(self.declaration.validation.previous)
        if Workspace(root).about(StatisticsStep.name) is None:
            raise UserError(f"validation.previous: {root} has no statistics; name a run's --output")
        return root / StatisticsStep.name / statistics.FILE_NAME

    def make(self, place: Path) -> dict[str, Any]:
        declaration = self.declaration
        found = statistics.read(self.input(StatisticsStep.name) / statistics.FILE_NAME)
        allowed = schema.load(self.input(SchemaStep.name) / schema.FILE_NAME)
        previous = self._previous()
        before = statistics.read(previous) if previous else {}
        learned = declaration.learned_from
        anomalies = validation.validate(
            found[learned], allowed, previous=before.get(learned), serving=found.get(SERVING)
        )
        for name, dataset in found.items():
            if name not in (learned, "train"):  # sequences are training events once more
                environment = schema.SERVING if name == SERVING else schema.TRAINING
                anomalies += validation.validate(dataset, allowed, environment=environment)
        anomalies += self._of_requests()
        # Events are positive beside drawn negatives, as are the newest ones of sequences.
        labelled = "train" if declaration.negatives else learned
        for name in dict.fromkeys((labelled, *declaration.given_splits[1:])):
            anomalies += validation.constant_labels(found[name])
        text = text_format.MessageToString(validation.to_proto(anomalies, allowed), as_utf8=True)
        (place / ANOMALIES).write_text(text, encoding="utf-8")
        html = page.render(declaration.name, found, anomalies)
        (place / PAGE).write_text(html, encoding="utf-8")
        errors = [str(anomaly) for anomaly in anomalies if anomaly.error]
        return {"errors": errors, "anomalies": [str(anomaly) for anomaly in anomalies]}

    def _of_requests(self) -> list[validation.Anomaly]:
        """Requests that could not be used: statistics know nothing of them."""
        path = self.input(StatisticsStep.name) / REQUESTS
        if not path.is_file():
            return []
        report = json.loads(path.read_text())
        most = self.declaration.max_rejected
        reason = too_many(report["rejected"], report["rows_read"], most, "requests")
        remedy = "look at what writes the requests, or raise max_rejected"
        kind = validation.Info.CUSTOM_VALIDATION
        return [validation.Anomaly("", SERVING, kind, reason, remedy)] if reason else []

    def refusal(self) -> str | None:
        about, of = (self.workspace.about(name) for name in (self.name, StatisticsStep.name))
        assert about
        if of is None or about.inputs[StatisticsStep.name] != of.output:
            return None  # it is of other data than there are now
        errors = about.counts["errors"]
        if not errors or self.declaration.validation.on_anomaly == "warn":
            return None
        return (
            f"anomalies that are errors: {len(errors)}, such as "
            f"{errors[0].removeprefix('error: ')}; all are in {self.output / PAGE}; "
            "--on-anomaly warn goes on all the same"
        )

    def told(self, counts: dict[str, Any]) -> list[str]:
        number = len(counts["anomalies"])
        return [f"anomalies: {number}; {self.output / PAGE}", *counts["anomalies"]]


def _of_requests(declaration: Declaration) -> Declaration:
    """The declaration of requests: events without labels, weight and histories."""
    source = declaration.source.model_copy(
        update={**dict.fromkeys(SPLITS), "path": declaration.validation.serving}
    )
    columns = {declaration.column(name) for name in declaration.features}
    nothing: dict[str, Any] = {"labels": {}, "histories": {}, "crosses": [], "show": []}
    return declaration.model_copy(
        update={
            **nothing,
            "source": source,
            "split": SplitDeclaration(kind="random"),
            "examples": "events",
            "weight": None,
            "user": None,
            "item": None,
            "time": declaration.time if declaration.time in columns else None,
        }
    )


def _as_examples(element: tuple[str | None, pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    """One list per row, as in raw examples."""
    _, batch = element
    offsets = pa.array(range(batch.num_rows + 1), pa.int64())
    sources = {name: batch.column(name) for name in schema.names if name in batch.schema.names}
    arrays = [
        pa.LargeListArray.from_arrays(offsets, column.cast(schema.field(name).type.value_type))
        for name, column in sources.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, list(sources))
