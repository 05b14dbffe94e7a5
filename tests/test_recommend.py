"""What exports recommend is what the models say, item by item."""

from __future__ import annotations

import dataclasses
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from click.testing import CliRunner
from tensorflow_serving.apis import prediction_log_pb2

from serving.replay import replay
from tests.test_export import sample
from tfrec import catalogue, evaluate
from tfrec.features import Features
from tfrec.figures import Report
from tfrec.recommend import export_two_stages, main
from tfrec.recommending import item_columns
from tfrec.runs import Run
from tfrec.servable import servable, warm_up
from tfrec.serving_inputs import columns_of_examples, request_name
from tfrec.strict import UserError
from tfrec.train import train

USERS = 6


@pytest.fixture(scope="module")
def runs(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One trained run of each kind, and the two joined."""
    base = tmp_path_factory.mktemp("recommend")
    for model in ("mf", "wide_deep"):
        train({"data": str(shop), "model": {"id": model}, "epochs": 1}, base / model)
    joined = base / "both" / "export"
    arguments = ["--retrieval", base / "mf", "--ranking", base / "wide_deep", "--output", joined]
    done = CliRunner().invoke(main, [*map(str, arguments), "--candidates", "20"])
    assert done.exit_code == 0, done.output
    assert done.output.rstrip().endswith("1, which ranks by 'bought'")
    return {"mf": base / "mf", "wide_deep": base / "wide_deep", "both": base / "both"}


def signature(run: Path, name: str) -> Any:
    return tf.saved_model.load(str(run / "export" / "1")).signatures[name]


@pytest.fixture(scope="module")
def columns(shop: Path) -> dict[str, Any]:
    """Raw columns of a few requests, the item's too."""
    return columns_of_examples(Features.load(shop), sample(shop)[:USERS])


def asked(
    function: Any, columns: dict[str, Any], k: Any = 5, seen: bool = False, exclude: Any = ""
) -> dict[str, Any]:
    options = {
        "k": np.broadcast_to(k, USERS).astype(np.int32),
        "exclude_seen": np.full(USERS, seen),
        "exclude": np.broadcast_to(exclude, (USERS, np.size(exclude))).astype(bytes),
    }
    specs = function.structured_input_signature[1]
    given = {name: {**columns, **options}[name] for name in specs}
    answer = function(**{n: tf.constant(v, specs[n].dtype) for n, v in given.items()})
    return {name: value.numpy() for name, value in answer.items()}


def of_all_items(shop: Path, run: Path, columns: dict[str, Any]) -> tuple[Any, Any]:
    """Every item, and what `predict` says of it for every user."""
    features = Features.load(shop)
    items = catalogue.load(shop, features)
    predict = signature(run, "predict")
    specs = predict.structured_input_signature[1]
    raw = {request_name(c): items.raw[c.name] for c in item_columns(features)}
    rows = []
    for user in range(USERS):
        whole = {n: np.repeat(v[user : user + 1], len(items.keys), 0) for n, v in columns.items()}
        tensors = {n: tf.constant(list({**whole, **raw}[n]), s.dtype) for n, s in specs.items()}
        rows.append(next(iter(predict(**tensors).values())).numpy())
    return items.keys.astype(bytes), np.array(rows)


def test_candidates_are_ranked_as_predict_scores_each(
    runs: dict[str, Path], shop: Path, columns: dict[str, Any]
) -> None:
    """Of the items alone their names are sent; of an unknown one nothing is known."""
    keys, scores = of_all_items(shop, runs["wide_deep"], columns)
    rank = signature(runs["wide_deep"], "rank")
    given = {n: columns[n] for n in rank.structured_input_signature[1] if n != "candidates"}
    wanted = np.random.default_rng(0).permuted(np.tile(np.arange(len(keys)), (USERS, 1)), axis=1)
    candidates = np.append(keys[wanted], [[b"never seen"]] * USERS, axis=1)
    (found,) = rank(**{n: tf.constant(v) for n, v in given.items()}, candidates=candidates).values()
    expected = np.take_along_axis(scores, wanted, axis=1)
    np.testing.assert_allclose(found.numpy()[:, :-1], expected, rtol=1e-5)
    predict = signature(runs["wide_deep"], "predict")
    unknown = {
        n: given[n] if n in given else np.full_like(v, b"" if v.dtype == object else np.nan)
        for n, v in columns.items()
    }
    (alone,) = predict(**{n: tf.constant(v) for n, v in unknown.items()}).values()
    np.testing.assert_allclose(found.numpy()[:, -1], alone.numpy(), rtol=1e-5)


def test_recommends_what_predict_scores_best(
    shop: Path, runs: dict[str, Path], columns: dict[str, Any]
) -> None:
    keys, scores = of_all_items(shop, runs["mf"], columns)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    answer = asked(signature(runs["mf"], "recommend"), columns)
    np.testing.assert_array_equal(answer["items"], keys[order])
    expected = np.take_along_axis(scores, order, axis=1)
    np.testing.assert_allclose(answer["scores"], expected, rtol=1e-5, atol=1e-6)


def test_every_row_has_its_own_k(runs: dict[str, Path], columns: dict[str, Any]) -> None:
    recommend = signature(runs["mf"], "recommend")
    whole = asked(recommend, columns, k=4)
    answer = asked(recommend, columns, k=[1, 2, 3, 4, 0, 4])
    for row, k in enumerate([1, 2, 3, 4, 0, 4]):
        np.testing.assert_array_equal(answer["items"][row, :k], whole["items"][row, :k])
        assert (answer["items"][row, k:] == b"").all()
        assert (answer["scores"][row, k:] == 0).all()
    for run in ("mf", "both"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="k is negative"):
            asked(signature(runs[run], "recommend"), columns, k=-1)


@pytest.mark.parametrize("model", ["mf", "both"])
def test_seen_and_excluded_items_do_not_come_back(
    model: str, runs: dict[str, Path], columns: dict[str, Any]
) -> None:
    recommend = signature(runs[model], "recommend")
    first = asked(recommend, columns, k=20)["items"]
    seen = columns["bought_before_product"]
    assert any(np.isin(s[s != b""], f).any() for s, f in zip(seen, first, strict=True))
    unwanted = first[0, 0]
    answer = asked(recommend, columns, k=20, seen=True, exclude=[unwanted, b"no such item", b""])
    for row in range(USERS):
        assert not np.isin(answer["items"][row], [unwanted, *seen[row][seen[row] != b""]]).any()


def spaced(names: Any, end: bytes) -> Any:
    return np.array([[b" " + name + end if name else name for name in row] for row in names])


def test_items_are_named_as_the_events_name_them(
    runs: dict[str, Path], columns: dict[str, Any]
) -> None:
    """With space around them, and ends of lines, of which keys have none."""
    product = "bought_before_product"
    for model in ("mf", "both"):
        recommend = signature(runs[model], "recommend")
        unwanted = asked(recommend, columns)["items"][:, :1]
        seen = {**columns, product: spaced(columns[product], b"\r\n")}
        answers = [
            asked(recommend, c, k=20, seen=True, exclude=e)["items"].tolist()
            for c, e in ((columns, unwanted[0]), (seen, spaced(unwanted, b"\n")[0]))
        ]
        assert answers[0] == answers[1]
    rank = signature(runs["wide_deep"], "rank")
    given = {n: columns[n] for n in rank.structured_input_signature[1] if n != "candidates"}
    named = np.repeat(unwanted[:1], USERS, axis=0)
    one, two = (
        next(iter(rank(**{n: tf.constant(v) for n, v in given.items()}, candidates=c).values()))
        for c in (tf.constant(named), tf.constant(spaced(named, b"\r\n")))
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("model", ["mf", "both", "history of the second"])
def test_seen_items_are_those_of_the_whole_history(
    model: str, runs: dict[str, Path], shop: Path, columns: dict[str, Any], tmp_path: Path
) -> None:
    """Models read its newest events, 6 here; and it may be one that the second stage alone has."""
    run = runs.get(model, tmp_path)
    if run == tmp_path:
        first, second = Run.load(runs["mf"]), Run.load(runs["wide_deep"])
        first.features = dataclasses.replace(first.features, histories=())
        export_two_stages(first, second, run / "export")
    keys = catalogue.load(shop, Features.load(shop)).keys[:20].astype(bytes)
    long = columns | {
        "bought_before_product": np.tile(keys, (USERS, 1)),
        "bought_before_colours": np.full((USERS, len(keys)), b"red"),
    }
    recommend = signature(run, "recommend")
    for seen in (False, True):
        found = asked(recommend, long, k=60, seen=seen)["items"]
        assert np.isin(found, keys).any() != seen
        assert (found != b"").any(axis=1).all()


@pytest.mark.parametrize("model", ["mf", "both"])
def test_more_than_there_is_ends_in_nothing(
    model: str, shop: Path, runs: dict[str, Path], columns: dict[str, Any]
) -> None:
    keys = catalogue.load(shop, Features.load(shop)).keys
    answer = asked(signature(runs[model], "recommend"), columns, 1_000, exclude=list(keys[2:]))
    assert (np.sort(answer["items"][:, :2]) == np.sort(keys[:2].astype(bytes))).all()
    assert (answer["items"][:, 2:] == b"").all()
    assert (answer["scores"][:, 2:] == 0).all()


def test_vectors_have_the_scores_as_their_products(
    shop: Path, runs: dict[str, Path], columns: dict[str, Any]
) -> None:
    keys, scores = of_all_items(shop, runs["mf"], columns)
    users = signature(runs["mf"], "user_vectors")
    specs = users.structured_input_signature[1]
    vectors = users(**{n: tf.constant(columns[n], s.dtype) for n, s in specs.items()})["vectors"]
    table = pq.read_table(runs["mf"] / "export" / "1" / "assets.extra" / "item_vectors.parquet")
    assert [key.encode() for key in table["item"].to_pylist()] == list(keys)
    items = np.array(table["vector"].to_pylist())
    np.testing.assert_allclose(vectors.numpy() @ items.T, scores, rtol=1e-4, atol=1e-5)
    features = Features.load(shop)
    raw = catalogue.load(shop, features).raw
    function = signature(runs["mf"], "item_vectors")
    types = function.structured_input_signature[1]
    given = {request_name(c): raw[c.name] for c in item_columns(features)}
    found = function(**{n: tf.constant(given[n], types[n].dtype) for n in types})["vectors"]
    np.testing.assert_allclose(found, items, rtol=1e-5, atol=1e-6)


def test_two_stages_rank_what_the_first_one_finds(
    shop: Path, runs: dict[str, Path], columns: dict[str, Any]
) -> None:
    """By the ranking model's own scores, histories and crosses and all."""
    keys, retrieved = of_all_items(shop, runs["mf"], columns)
    _, ranked = of_all_items(shop, runs["wide_deep"], columns)
    answer = asked(signature(runs["both"], "recommend"), columns, k=20)
    for row in range(USERS):
        candidates = np.argsort(-retrieved[row], kind="stable")[:20]
        by_key = {keys[i]: (ranked[row, i], retrieved[row, i]) for i in candidates}
        assert set(answer["items"][row]) == set(by_key)
        both = np.array([by_key[key] for key in answer["items"][row]])
        np.testing.assert_allclose(answer["scores"][row], both[:, 0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            answer["retrieval_scores"][row], both[:, 1], rtol=1e-4, atol=1e-6
        )
        assert (np.diff(answer["scores"][row]) <= 0).all()


def test_two_stages_are_measured_as_they_are_served(
    shop: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    """The second stage orders the candidates of the first, and finds no others."""
    found = {}
    for model in ("mf", "both"):
        served = ["--export", runs[model] / "export", "--data", shop]
        output = tmp_path / f"{model}.json"
        done = CliRunner().invoke(evaluate.main, [*map(str, served), "--output", str(output)])
        assert done.exit_code == 0, done.output
        found[model] = Report.load(output)
    assert found["mf"].digests == found["both"].digests
    first, both = (report.records[0]["metrics"] for report in found.values())
    for name in ("hr@20", "recall@20", "coverage@20", "novelty@20", "popularity_lift@20"):
        assert both[name] == pytest.approx(first[name]), name
    assert both["ndcg@20"] != pytest.approx(first["ndcg@20"])


def renamed(directory: Path, shop: Path, data: Path) -> Run:
    """A run on the same data set with other names of the items."""
    data.mkdir()
    for path in shop.iterdir():
        if path.name != "vocabulary":
            (data / path.name).symlink_to(path)
    shutil.copytree(shop / "vocabulary", data / "vocabulary")
    path = data / "vocabulary" / "product.tsv"
    path.write_text(path.read_text().replace("\tp", "\tКофе № "), encoding="utf-8")
    run = Run.load(directory)
    run.config = run.config.model_copy(update={"data": str(data)})
    return run


@pytest.mark.parametrize("model", ["mf", "wide_deep"])
def test_items_may_have_names_beyond_ascii(
    model: str, runs: dict[str, Path], shop: Path, tmp_path: Path
) -> None:
    run = renamed(runs[model], shop, tmp_path / "data")
    data = Path(run.config.data)
    root, signatures = servable(run, run.best_model(), tmp_path)
    named: set[bytes] = set()
    for log in warm_up(run, root, signatures):
        asked_for = prediction_log_pb2.PredictionLog.FromString(log).predict_log
        for tensors, name in (
            (asked_for.request.inputs, "candidates"),
            (asked_for.response.outputs, "items"),
        ):
            if name in tensors:
                named.update(tf.make_ndarray(tensors[name]).flat)
    assert named
    assert {name.decode() for name in named} <= set(catalogue.load(data, run.features).keys)
    assert all(name.decode().startswith("Кофе № ") for name in named)


@pytest.mark.parametrize("model", ["mf", "both"])
def test_warm_up_requests_can_be_answered(model: str, runs: dict[str, Path]) -> None:
    path = runs[model] / "export" / "1" / "assets.extra" / "tf_serving_warmup_requests"
    answered = 0
    for record in tf.data.TFRecordDataset(str(path)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        if request.model_spec.signature_name == "recommend":
            function = signature(runs[model], "recommend")
            answer = function(**{n: tf.make_ndarray(v) for n, v in request.inputs.items()})
            assert (answer["items"].numpy() != b"").all()
            answered += 1
    assert answered == (3 if model == "mf" else 2)


@pytest.mark.parametrize("model", ["mf", "both"])
def test_warm_up_requests_are_answered_as_recorded(model: str, runs: dict[str, Path]) -> None:
    found, unrecorded = replay(runs[model] / "export" / "1")
    asked = ("serving_default", "predict", "recommend", "user_vectors", "item_vectors")
    assert found == (dict.fromkeys(asked, 3) if model == "mf" else {"recommend": 2})
    assert unrecorded == 0


@pytest.mark.parametrize(
    ("retrieval", "ranking", "message"),
    [
        ("wide_deep", "wide_deep", "'wide_deep', which does not score all items"),
        ("mf", "mf", "'mf', which does not rank examples"),
    ],
)
def test_runs_of_the_wrong_kind_are_refused(
    retrieval: str, ranking: str, message: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    arguments = ["--retrieval", runs[retrieval], "--ranking", runs[ranking]]
    done = CliRunner().invoke(main, [*map(str, arguments), "--output", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert message in done.output
    assert not (tmp_path / "out").exists()


def test_runs_that_call_items_by_other_names_are_refused(
    runs: dict[str, Path], shop: Path, tmp_path: Path
) -> None:
    """The second stage would know nothing of any item."""
    retrieval = renamed(runs["mf"], shop, tmp_path / "data")
    with pytest.raises(UserError, match=r"wide_deep knows no item of .*mf; .* such as 'Кофе № "):
        export_two_stages(retrieval, Run.load(runs["wide_deep"]), tmp_path / "out")
    assert not (tmp_path / "out" / "1").exists()


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"history": "bought_before"}, "a history of int64 in .*mf"),
        ({"dtype": "string"}, "one string in .*mf"),
    ],
)
def test_runs_that_take_a_column_as_two_kinds_are_refused(
    changed: dict[str, Any], kind: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    """A request has one value of the name, which would suit one of them."""
    first = Run.load(runs["mf"])
    columns = [
        dataclasses.replace(column, **changed) if column.name == "at" else column
        for column in first.features.columns
    ]
    first.features = dataclasses.replace(first.features, columns=tuple(columns))
    with pytest.raises(UserError, match=f"'at' is {kind} and one int64 in .*deep; rename"):
        export_two_stages(first, Run.load(runs["wide_deep"]), tmp_path / "out")
    assert not (tmp_path / "out" / "1").exists()


def test_without_labels_every_event_is_positive(shop: Path, tmp_path: Path) -> None:
    values = {"data": str(shop), "model": {"id": "mf"}, "epochs": 1, "batch_size": 64, "labels": []}
    train(values, tmp_path / "run", export=False)
    done = CliRunner().invoke(evaluate.main, ["--run", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "test, 24 users\nall items, seen ones removed" in done.output
    train({**values, "labels": ["bought"]}, tmp_path / "fewer", export=False)
    steps = [
        Run.load(tmp_path / name).metrics()["history"][-1]["step"] for name in ("run", "fewer")
    ]
    assert steps[0] > steps[1]


def test_training_tells_the_protocol_of_its_figures(runs: dict[str, Path]) -> None:
    metrics, protocol = Run.load(runs["mf"]).metrics(), "all items, seen ones removed"
    best = metrics["best"]["metrics"]
    assert list(best) == [protocol]
    assert 0 < metrics["validation"]["popularity"][protocol]["ndcg@10"] < 1
    assert math.isclose(metrics["best_score"], best[protocol]["ndcg@10"])
    assert metrics["judged_by"] == f"ndcg@10 of {protocol}"


def test_an_index_of_the_vectors_finds_what_is_recommended(runs: dict[str, Path]) -> None:
    example = Path(__file__).parents[1] / "examples" / "nearest.py"
    command = [sys.executable, str(example), "--export", str(runs["mf"] / "export" / "1")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.endswith("Faiss found 10.00\n"), done.stderr
    other = subprocess.run([*command[:-1], str(runs["both"])], capture_output=True, text=True)
    assert "item_vectors.parquet is not there: only" in other.stderr.splitlines()[0]
