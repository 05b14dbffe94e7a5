"""What the pipeline does when its Beam graph has run: checks, vocabularies, features.json."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from pipeline import writers
from pipeline.declaration import Declaration
from pipeline.description import describe
from pipeline.events import MALFORMED, Layout
from pipeline.statistics import SplitStatistics, to_proto
from tfrec.features import LABEL_PREFIX, Features, Table
from tfrec.strict import UserError


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        rows_read: rows of the source.
        rejected: rows by reason, with an example value.
        examples: rows by split.
    """

    rows_read: int
    rejected: dict[str, tuple[int, str]]
    examples: dict[str, int]


class Finish:
    """Makes a data set directory whole.

    Args:
        declaration: of the data set.
        place: the data set directory in the making.
        work: what the Beam graph kept.
    """

    def __init__(self, declaration: Declaration, place: Path, work: Path) -> None:
        self.declaration, self.place, self.work = declaration, place, work

    def finish(self) -> Report:
        """Checks what the graph has found and writes the rest of the directory.

        Raises:
            UserError: too many rejected rows, an empty split, column or vocabulary.
        """
        declaration = self.declaration
        statistics: dict[str, SplitStatistics] = {
            name: self._kept(f"statistics_{name}") for name in declaration.outputs
        }
        counts = {split: statistics[split].rows for split in declaration.given_splits}
        learned = statistics[declaration.learned_from]
        rejected = self._kept("rejected")
        malformed = sum(n for reason, (n, _) in rejected.items() if reason.endswith(MALFORMED))
        report = Report(self._kept("rows_read") + malformed, rejected, counts)
        self._check_rejected(report)
        for split, count in counts.items():
            if not count:
                raise UserError(
                    f"split {split} is empty ({writers.split_counts(counts)}); "
                    "give it more data or change `split`"
                )
        self._check_columns(learned)
        output = tft.TFTransformOutput(str(self.place / "transform"))
        ids = self._kept("ids")
        tables = self._tables(output, ids)
        self._write_vocabularies(output, tables, ids)
        lengths = self._kept("lengths")
        features = describe(declaration, tables, lengths, counts, learned)
        fingerprint = self._fingerprint(features, learned)
        dataclasses.replace(features, fingerprint=fingerprint).save(self.place)
        folder = self.place / "statistics"
        folder.mkdir()
        (folder / "FeatureStats.pb").write_bytes(to_proto(statistics))
        with tf.io.TFRecordWriter(str(self.place / "sample.tfrecord")) as writer:
            for example in self._kept("sample"):
                writer.write(example)
        summary = {"rows_read": report.rows_read, "rejected": rejected, "examples": counts}
        (self.place / "report.json").write_text(json.dumps(summary, indent=1) + "\n")
        declared = declaration.model_dump(mode="json", exclude_unset=True)
        (self.place / "declaration.json").write_text(json.dumps(declared, indent=1) + "\n")
        return report

    def _fingerprint(self, features: Features, train: SplitStatistics) -> str:
        """Digest of all that ids and numbers mean, and of the training examples themselves."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps(features.to_dict(), sort_keys=True).encode())
        for path in sorted((self.place / "vocabulary").iterdir()):
            digest.update(path.read_bytes())
        for name, column in sorted(train.columns.items()):
            digest.update(f"{name} {column.low} {column.high}".encode())
        for path in sorted((self.place / "examples").glob("train-*")):
            with path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        return digest.hexdigest()

    def _kept(self, name: str) -> Any:
        return pickle.loads((self.work / f"{name}.pickle").read_bytes())

    def _check_rejected(self, report: Report) -> None:
        rejected = sum(count for count, _ in report.rejected.values())
        if not report.rows_read:
            raise UserError("the source has no rows")
        share = rejected / report.rows_read
        if share > self.declaration.max_rejected:
            reason, (count, example) = max(report.rejected.items(), key=lambda item: item[1][0])
            shown = f", such as {example!r}" if example else ""
            raise UserError(
                f"{rejected:,} of {report.rows_read:,} rows rejected ({share:.2%}, max_rejected is "
                f"{self.declaration.max_rejected:.2%}); most: {reason}{shown} ({count:,} rows)"
            )

    def _check_columns(self, train: SplitStatistics) -> None:
        layout = Layout.of(self.declaration)
        columns = {name: name for name in layout.inputs}
        columns |= {LABEL_PREFIX + n: f.column for n, f in self.declaration.labels.items()}
        empty = [column for name, column in columns.items() if not train.columns[name].present]
        if empty:
            named = ", ".join(map(repr, dict.fromkeys(empty)))
            raise UserError(f"no value in train of column {named}; check the source")

    def _tables(self, output: tft.TFTransformOutput, ids: dict[str, np.ndarray]) -> list[Table]:
        tables: dict[str, Table] = {}
        for name, feature in self.declaration.features.items():
            table = self.declaration.vocabulary(name)
            if feature.own_table:
                tables[name] = Table(name, feature.clock or feature.buckets or 0)
            elif feature.hash_buckets:
                tables[table] = Table(table, feature.hash_buckets)
            elif feature.kind == "category":
                size = output.vocabulary_size_by_name(table)
                if not ids[table][1 : size + 1].any():
                    raise UserError(
                        f"vocabulary {table!r} is empty: no value of column "
                        f"{self.declaration.column(name)!r} occurs {feature.min_count} times in "
                        "train; lower min_count or check the column"
                    )
                tables[table] = Table(table, size, feature.oov_buckets)
        for cross in self.declaration.crosses:
            tables[cross.name] = Table(cross.name, cross.buckets)
        return list(tables.values())

    def _write_vocabularies(
        self, output: tft.TFTransformOutput, tables: list[Table], ids: dict[str, np.ndarray]
    ) -> None:
        folder = self.place / "vocabulary"
        folder.mkdir()
        learned = {
            self.declaration.vocabulary(name)
            for name, feature in self.declaration.features.items()
            if feature.kind == "category" and not feature.hash_buckets
        }
        for table in tables:
            if table.name not in ids:
                continue
            tokens = None
            if table.name in learned:
                vocabulary = output.vocabulary_by_name(table.name)
                tokens = [token.decode("utf-8", "replace") for token in vocabulary]
            counts = np.zeros(table.size, np.int64)
            counts[: len(ids[table.name])] = ids[table.name]
            writers.write_vocabulary(folder / f"{table.name}.tsv", tokens, counts)
