"""What an export answers to raw examples has the figures of its run."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from click.testing import CliRunner

from tfrec import evaluate
from tfrec.evaluation import Evaluator
from tfrec.export import export
from tfrec.features import Features
from tfrec.figures import Report
from tfrec.runs import Run, resolve
from tfrec.served import ServedEvaluator
from tfrec.served_top_k import measured_export
from tfrec.strict import UserError
from tfrec.top_k import TopKEvaluator
from tfrec.train import train


def evaluated(*arguments: Any) -> str:
    done = CliRunner().invoke(evaluate.main, [*map(str, arguments), "--replicates", "20"])
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: Any) -> str:
    done = CliRunner().invoke(evaluate.main, [*map(str, arguments)])
    assert done.exit_code == 1, done.output
    (line,) = done.output.strip().splitlines()
    return line


@pytest.fixture(scope="module")
def several(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two binary tasks whose outputs have other names, with a checkpoint and an export."""
    output = tmp_path_factory.mktemp("served") / "esmm"
    values = {"data": str(shop), "model": {"id": "esmm"}, "labels": ["opened", "bought"]}
    train({**values, "epochs": 1}, output)
    return output


@pytest.mark.parametrize("model", ["wide_deep", "esmm"])
def test_an_export_has_the_figures_of_its_run(
    model: str, finished: tuple[Path, str], several: Path, shop: Path, tmp_path: Path
) -> None:
    run = several if model == "esmm" else finished[0]
    slices = ["--slice", "colours", "--slice", "item_count", "--slice", "price"]
    evaluated("--run", run, *slices, "--output", tmp_path / "run.json")
    served = ["--export", run / "export", "--data", shop, "--output", tmp_path / "export.json"]
    assert "export" in evaluated(*served, *slices)
    of_run, of_export = (Report.load(tmp_path / f"{kind}.json") for kind in ("run", "export"))
    assert of_run.digests == of_export.digests
    assert len(of_run.records) == len(of_export.records) >= 10
    for expected, found in zip(of_run.records, of_export.records, strict=True):
        assert [found[k] for k in ("task", "slice", "examples", "users")] == [
            expected[k] for k in ("task", "slice", "examples", "users")
        ]
        for name, value in expected["metrics"].items():
            told = found["slice"], name
            near(found["metrics"][name], value, told)
            near(found["replicates"][name], expected["replicates"][name], told)


def test_a_conversion_that_is_missing_without_a_click_is_measured_as_none(
    several: Path, shop: Path, tmp_path: Path
) -> None:
    """Of impressions, by the run and by its export, as in its loss; of other models it is not."""
    data = shutil.copytree(shop, tmp_path / "transform")
    for path in (data / "examples").glob("*.tfrecord"):
        records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                example = tf.train.Example.FromString(record)
                labels = example.features.feature
                if labels["label:opened"].float_list.value[0] == 0:
                    labels["label:bought"].float_list.value[0] = np.nan
                writer.write(example.SerializeToString())
    raw = shutil.copytree(shop.parent / "ingest", tmp_path / "ingest")
    for path in (raw / "examples" / "test").glob("*.parquet"):
        table = pq.read_table(path)
        opened, bought = (table[f"label:{name}"].to_pylist() for name in ("opened", "bought"))
        known = [b if o == [1] else [np.nan] for o, b in zip(opened, bought, strict=True)]
        place = table.schema.get_field_index("label:bought")
        field = table.schema.field(place)
        pq.write_table(table.set_column(place, field, pa.array(known, field.type)), path)
    run = Run.load(several)
    model = run.best_model()
    expected, found = (
        Evaluator(place, run.features, "test").compare("export", model) for place in (shop, data)
    )
    assert found == expected
    asked = ServedEvaluator(several / "export", data, "test")
    of_export = measured_export("export", asked, replicates=0).figures()
    for name, by_task in expected.items():
        for metric, value in by_task["bought"].items():
            near(of_export[name]["bought"][metric], value, (name, metric))
    masked = Features.load(data).with_labels(["opened", "bought"])
    assert Evaluator(data, masked, "test").compare("export", model) != expected


def near(found: Any, expected: Any, told: Any) -> None:
    """Of what an evaluation says; None where a figure does not exist."""
    values = [np.array(v, np.float64) for v in (found, expected)]
    np.testing.assert_allclose(*values, rtol=1e-3, err_msg=str(told))


def test_one_version_is_measured_where_it_is_named(finished: tuple[Path, str], shop: Path) -> None:
    run, _ = finished
    newest = evaluated("--export", run / "export", "--data", shop)
    assert evaluated("--export", run / "export" / "1", "--data", shop) == newest


def test_what_cannot_be_measured_is_told_in_a_line(
    finished: tuple[Path, str], shop: Path, tmp_path: Path
) -> None:
    run, _ = finished
    base = run / "export"
    assert "either a --run or an --export" in refused("--run", run, "--export", base)
    assert "either a --run or an --export" in refused()
    assert "--data belongs to --export" in refused("--export", base)
    assert "--set belongs to --run" in refused("--export", base, "--data", shop, "--set", "a=1")
    assert "no SavedModel" in refused("--export", tmp_path, "--data", shop)
    silent = tmp_path / "1"
    shutil.copytree(base / "1", silent, ignore=shutil.ignore_patterns("features.json"))
    assert f"{silent} does not tell its tasks" in refused("--export", silent, "--data", shop)
    lonely = shutil.copytree(shop, tmp_path / "transform")
    assert "has no raw examples of test" in refused("--export", base, "--data", lonely)
    folder = shutil.copytree(shop.parent / "ingest", tmp_path / "ingest")
    (parquet, *_) = sorted((folder / "examples" / "test").glob("*.parquet"))
    parquet.write_bytes(parquet.read_bytes()[:200])
    assert f"{parquet} cannot be read" in refused("--export", base, "--data", lonely)


def untrained(model: str, shop: Path, place: Path) -> Run:
    """A run of a model as it is built, exported."""
    values = {"data": str(shop), "model": {"id": model}, "labels": ["bought"]}
    run = Run(place, *resolve(values, "test"))
    run.start(overwrite=False)
    return run


def test_an_export_of_odds_has_the_figures_of_its_run(shop: Path, tmp_path: Path) -> None:
    """Watch time tells the probability; an export that does not say so is refused."""
    run = untrained("youtube_ranking", shop, tmp_path / "run")
    built = run.build_model()
    export(run, built)
    measuring = Evaluator(shop, run.features, "test")
    expected = measuring.report("export", built, replicates=20).records[0]["metrics"]
    asked = ServedEvaluator(run.export_directory, shop, "test")
    found = measured_export("export", asked, replicates=20).records[0]["metrics"]
    assert found == pytest.approx(expected, rel=1e-4)
    asked.odds = False
    for variable in asked.model.weights:
        variable.assign(tf.ones_like(variable))
    with pytest.raises(UserError, match="says of bought what is no probability"):
        measured_export("export", asked)


@pytest.mark.parametrize("model", ["mf", "two_tower"])
def test_an_export_of_all_items_recommends_what_its_run_does(
    model: str, shop: Path, tmp_path: Path
) -> None:
    """The same lists, and so the same figures of them, for the same users by slice."""
    run = untrained(model, shop, tmp_path / "run")
    built = run.build_model()
    export(run, built)
    slices = ["colours", "user_events"]
    of_run = TopKEvaluator(shop, run.features, "test", run.config.top_k).report(
        "export", built, slices, 20
    )
    output = tmp_path / "export.json"
    named = [argument for part in slices for argument in ("--slice", part)]
    served = ["--export", run.export_directory, "--data", shop]
    evaluated(*served, *named, "--output", output)
    of_export = Report.load(output)
    assert of_run.digests == of_export.digests
    assert [(r["name"], r["slice"]) for r in of_run.records] == [
        (r["name"], r["slice"]) for r in of_export.records
    ]
    for expected, found in zip(of_run.records, of_export.records, strict=True):
        assert set(found["metrics"]) == set(expected["metrics"]) - {"mrr"}
        assert found["users"] == expected["users"]
        for name, value in found["metrics"].items():
            assert value == pytest.approx(expected["metrics"][name], abs=1e-6), (name, found)
        for name, values in found["replicates"].items():
            assert values == pytest.approx(expected["replicates"][name], abs=1e-6, nan_ok=True)
    figures = of_export.records[0]["metrics"]
    assert figures["hr@10"] > 0
    assert {"coverage@10", "novelty@10", "popularity_lift@10"} <= figures.keys()


def test_a_label_that_the_data_set_lacks(
    finished: tuple[Path, str], shop: Path, tmp_path: Path
) -> None:
    features = Features.load(shop)
    fewer = shutil.copytree(shop, tmp_path / "transform")
    dataclasses.replace(features, labels=features.labels[1:]).save(fewer)
    line = refused("--export", finished[0] / "export", "--data", fewer)
    assert "the data set has no label 'bought'" in line
