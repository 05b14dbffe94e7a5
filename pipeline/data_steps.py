"""The steps `statistics`, `schema` and `validation`: what the raw examples are like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apache_beam as beam

from pipeline.graph import Keep, run_graph
from pipeline.ingest import Ingest, ReadExamples
from pipeline.statistics import Statistics, to_proto
from pipeline.step import Step

FEATURE_STATS = "FeatureStats.pb"


class StatisticsStep(Step):
    """Computes statistics of every split.

    Leaves `FeatureStats.pb`, a `DatasetFeatureStatisticsList` as TFDV reads it.
    """

    name = "statistics"
    needs = (Ingest.name,)

    def settings(self) -> Any:
        return list(self.declaration.outputs)

    def make(self, place: Path) -> dict[str, Any]:
        examples = self.input(Ingest.name)

        def build(pipeline: beam.Pipeline, keep: Keep) -> None:
            for name in self.declaration.outputs:
                batches = pipeline | f"{name} examples" >> ReadExamples(examples, name)
                keep(name, batches | f"{name} statistics" >> beam.CombineGlobally(Statistics()))

        kept = run_graph(build, self.options, place)
        splits = {name: kept[name] for name in self.declaration.outputs}
        (place / FEATURE_STATS).write_bytes(to_proto(splits))
        columns = len(splits[self.declaration.learned_from].columns)
        return {"columns": columns, "rows": {name: split.rows for name, split in splits.items()}}

    def told(self, counts: dict[str, Any]) -> list[str]:
        return [f"{counts['columns']} columns; {self.output / FEATURE_STATS}"]
