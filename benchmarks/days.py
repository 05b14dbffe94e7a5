"""How much shorter the analysis of a second day is, when that of the first one is kept.

    python -m benchmarks.days --rows 1000000

Generated events of two equal days, with the vocabularies, quantiles and numbers of
benchmarks/pipeline.py. Only what `transform` learns is measured, with finding out what is new:
examples are made anew every day in any case. The table goes into docs/results.md.
"""

from __future__ import annotations

import functools
import shutil
import time
from typing import Any

import apache_beam as beam
import click
import tensorflow_transform.beam as tft_beam
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig
from tfx_bsl.tfxio.tensor_representation_util import InferTensorRepresentationsFromMixedSchema

from benchmarks.pipeline import DECLARATION, FILES, PLACE, generate
from benchmarks.tables import write
from pipeline.declaration import Declaration
from pipeline.flow import Flow, raw_metadata
from pipeline.graph import Keep, run_graph
from pipeline.ingest import Ingest, example_schema
from pipeline.options import checked
from pipeline.run import run
from pipeline.shared import Shared
from pipeline.spans import analyse_whole
from pipeline.transform import make_preprocessing_fn
from pipeline.transforming import Transform
from pipeline.workspace import Workspace


class _Learning(Flow):
    """The part of the graph that learns."""

    def build(self, pipeline: beam.Pipeline, keep: Keep) -> None:
        schema = example_schema(self.declaration)
        representations = InferTensorRepresentationsFromMixedSchema(
            raw_metadata(self.declaration).schema
        )
        config = TensorAdapterConfig(schema, representations)
        with tft_beam.Context(temp_dir=f"{self.shared.temporary}/tft"):
            learned = self._learned(pipeline, schema)
            transform = self.analyse(learned, config, make_preprocessing_fn(self.declaration))
            _ = transform | tft_beam.WriteTransformFn(f"{self.shared.output}/transform")


class _Analysis(Transform):
    """The analysis of the step, alone."""

    def measured(self, events: int, by_spans: bool) -> tuple[float, float, int]:
        """Seconds, seconds of the processor, and events that were analysed."""
        place = self.workspace.root / "measured"
        place.mkdir()
        clock, work = time.monotonic(), time.process_time()
        plan = self._plan(events, place) if by_spans else None

        def build(pipeline: beam.Pipeline, keep: Keep, shared: Shared) -> None:
            analyse = functools.partial(plan.analyse, shared) if plan else analyse_whole
            flow = _Learning(self.declaration, {}, self.input(Ingest.name), shared, analyse)
            flow.build(pipeline, keep)

        run_graph(build, self.options, place)
        if plan:
            plan.keep(place)
        taken = time.monotonic() - clock, time.process_time() - work
        shutil.rmtree(place)
        return *taken, sum(span.events for span in plan.new) if plan else events


@click.command()
@click.option("--rows", type=int, default=1_000_000, show_default=True, help="Events of a day.")
def main(rows: int) -> None:
    """Measure the analysis of two days, from nothing and with the first one kept."""
    place, options = PLACE / "days", PipelineOptions(checked([]))
    shutil.rmtree(place, ignore_errors=True)
    generate(place / "events", 2 * rows)
    table = []
    for days in (1, 2):
        files = [str(place / "events" / f"events-{n}.parquet") for n in range(days * FILES // 2)]
        declaration = _declared(files)
        done = run(declaration, place / "out", options, until="statistics")
        events = done["ingest"]["events"]["train"]
        step = _Analysis(declaration, Workspace(place / "out"), options)
        for by_spans in (True, False)[:days]:  # the first day for what it keeps, and to warm up
            seconds, work, new = step.measured(events, by_spans)
            how = "what was kept" if by_spans and days == 2 else "nothing"
            row = [f"{events:,}", how, f"{new:,}", f"{seconds:.1f}", f"{work:.1f}"]
            table.append(row)
            click.echo(" | ".join(row))
    columns = ("training events", "from", "analysed", "seconds", "seconds of the processor")
    write("days", f"python -m benchmarks.days --rows {rows}", columns, table)


def _declared(train: list[str]) -> Declaration:
    """What is learned of events, without what is not."""
    values: dict[str, Any] = yaml.safe_load(DECLARATION.format(path=""))
    for block in ("histories", "crosses", "split"):
        del values[block]
    return Declaration.parse({**values, "source": {"format": "parquet", "train": train}}, "days")


if __name__ == "__main__":
    main()
