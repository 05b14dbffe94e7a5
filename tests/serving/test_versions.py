"""Versions of a model; the last test in a process of its own."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from serving.errors import Code, ServingError
from serving.model import Model, Policy, Retries
from serving.servable import Loading, Servable
from tests.serving.loaded import answer, states
from tests.serving.process import Server, until

AVAILABLE, END = ModelVersionStatus.AVAILABLE, ModelVersionStatus.END


def half_copied(source: Path, target: Path) -> Path:
    """Without its variables, which a copy may bring last."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("variables.data*"))
    return target


def finish_copy(source: Path, target: Path) -> None:
    for path in (source / "variables").glob("variables.data*"):
        shutil.copy(path, target / "variables")


def test_the_newest_version_serves_and_the_old_one_ends(halves: Path, base: Path) -> None:
    model = Model("m", base)
    shutil.copytree(halves / "two", base / "9")
    model.poll()
    assert answer(model) == (9, 2.0)
    shutil.copytree(halves / "three", base / "10")
    model.poll()
    assert answer(model) == answer(model, 10) == (10, 3.0)
    assert states(model) == {9: END, 10: AVAILABLE}
    assert all(status.code == Code.OK for status in model.statuses.values())
    with pytest.raises(ServingError, match=r"Specific\(m, 9\)"):
        model.get(9)
    model.poll()
    assert states(model) == {9: END, 10: AVAILABLE}


def test_only_the_newest_version_is_loaded(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / "1")
    shutil.copytree(halves / "three", base / "2")
    model = Model("m", base)
    model.poll()
    assert states(model) == {2: AVAILABLE}


def test_going_back_to_an_older_version(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / "1")
    model = Model("m", base)
    model.poll()
    shutil.copytree(halves / "three", base / "2")
    model.poll()
    shutil.rmtree(base / "2")
    model.poll()
    assert answer(model) == (1, 2.0)
    assert states(model) == {1: AVAILABLE, 2: END}


def test_a_broken_version_leaves_the_old_one_serving(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / "1")
    model = Model("m", base)
    model.poll()
    broken = base / "2"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"no protobuf")
    model.poll()
    assert answer(model) == (1, 2.0)
    assert states(model) == {1: AVAILABLE, 2: END}
    assert model.statuses[2].code == Code.UNKNOWN
    assert "Error parsing message" in model.statuses[2].message
    with pytest.raises(ServingError, match=r"Specific\(m, 2\)"):
        model.get(2)


def test_a_broken_version_is_not_tried_at_every_look(
    halves: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (base / "1").mkdir()
    model = Model("m", base)
    with caplog.at_level(logging.ERROR, "serving"):
        for _ in range(3):
            model.poll()
        assert len(caplog.records) == 1
        half_copied(halves / "two", base / "2")
        for _ in range(3):
            model.poll()
        assert len(caplog.records) == 2
    assert states(model) == {1: END, 2: END}
    assert model.statuses[2].message


def test_a_half_copied_version_is_served_once_it_is_whole(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / "1")
    model = Model("m", base)
    model.poll()
    (base / "2").mkdir()
    model.poll()
    assert answer(model) == (1, 2.0)
    shutil.copytree(halves / "three", base / "2", dirs_exist_ok=True)
    (data,) = (base / "2").glob("variables/variables.data*")
    whole = data.read_bytes()
    data.write_bytes(whole[:1])
    model.poll()
    assert states(model) == {1: AVAILABLE, 2: END}
    data.write_bytes(whole)
    model.poll()
    assert answer(model) == (2, 3.0)
    assert states(model) == {1: END, 2: AVAILABLE}
    assert model.statuses[2].message == ""


def test_a_version_that_was_repaired_in_place(halves: Path, base: Path) -> None:
    """Same files and sizes, but written anew."""
    directory = shutil.copytree(halves / "two", base / "1")
    (data,) = directory.glob("variables/variables.data*")
    whole = data.read_bytes()
    data.write_bytes(bytes(len(whole)))
    index = directory / "variables" / "variables.index"
    good = index.read_bytes()
    index.write_bytes(bytes(len(good)))
    model = Model("m", base)
    model.poll()
    assert states(model) == {1: END}
    data.write_bytes(whole)
    index.write_bytes(good)
    os.utime(index, ns=(0, 10**18))
    model.poll()
    assert answer(model) == (1, 2.0)


def test_what_is_no_version(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / "1")
    for name in ("new", "2.tmp", ".3.x", "-4", "²", "٣", "1e3", str(2**63)):
        shutil.copytree(halves / "three", base / name)
    (base / "5").write_text("a file")
    model = Model("m", base)
    model.poll()
    assert answer(model) == (1, 2.0)
    assert states(model) == {1: AVAILABLE}


def test_the_largest_version(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / str(2**63 - 1))
    model = Model("m", base)
    model.poll()
    assert answer(model) == (2**63 - 1, 2.0)


def test_a_base_path_that_went_away(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / "1")
    model = Model("m", base)
    model.poll()
    shutil.rmtree(base)
    model.poll()
    assert answer(model) == (1, 2.0)


def test_versions_that_are_no_longer_wanted_end(halves: Path, base: Path) -> None:
    """Though there is none to take over: by a policy, or since their folders went."""
    shutil.copytree(halves / "two", base / "1")
    model = Model("m", base)
    model.poll()
    model.configure(base, Policy(specific={"versions": [9]}))
    model.poll()
    assert states(model) == {1: END}
    with pytest.raises(ServingError, match=r"Latest\(m\)"):
        model.get()
    model.configure(base, Policy())
    model.poll()
    assert answer(model) == (1, 2.0)
    (base / "1").rename(base / "gone")
    model.poll()
    assert states(model) == {1: END}
    (base / "gone").rename(base / "1")
    model.poll()
    assert answer(model) == (1, 2.0)


@pytest.mark.parametrize(("times", "tries"), [(0, 1), (2, 3)])
def test_a_load_that_fails_is_tried_again(base: Path, times: int, tries: int) -> None:
    (base / "1").mkdir()
    tried = []

    def load(directory: Path) -> Servable:
        tried.append(directory)
        return Servable(directory)

    model = Model("m", base, load=load, retries=Retries(times, -1.0))
    for _ in range(tries + 2):
        model.poll(look=False)
        model.poll()
    assert len(tried) == tries
    (base / "1" / "file").touch()
    for _ in range(tries + 2):
        model.poll()
    assert len(tried) == 2 * tries
    waiting = Model("m", base, load=load, retries=Retries(1, 3600))
    for _ in range(3):
        waiting.poll()
    assert len(tried) == 2 * tries + 1


def test_a_model_without_the_serving_tag(base: Path) -> None:
    builder = tf.compat.v1.saved_model.Builder(str(base / "1"))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("v", [])
        session.run(tf.compat.v1.global_variables_initializer())
        builder.add_meta_graph_and_variables(session, ["train"])
    builder.save()
    model = Model("m", base)
    model.poll()
    assert states(model) == {1: END}
    assert "serve" in model.statuses[1].message
    Servable(base / "1", Loading(tags=("train",)))


def test_a_server_follows_its_base_path_until_sigint(
    halves: Path, base: Path, start: Callable[..., Server]
) -> None:
    server = start(base)
    server.wait_for("serving model")
    assert server.call("GET", "/v1/models/model")[0] == 404
    assert server.predict({"instances": [0]})[0] == 404

    def serves(offset: float) -> bool:
        return server.predict({"instances": [0]}) == (200, {"predictions": [offset]})

    shutil.copytree(halves / "two", base / "1")
    until(lambda: serves(2.0))

    def state(number: int) -> tuple[str, str, str]:
        _, body = server.call("GET", f"/v1/models/model/versions/{number}")
        status = body["model_version_status"][0]
        return status["state"], status["status"]["error_code"], status["status"]["error_message"]

    half_copied(halves / "three", base / "2")
    server.wait_for("version 2 failed to load")
    until(lambda: state(2)[0] == "END" and "variables.data" in state(2)[2])
    assert state(2)[1] != "OK"
    assert serves(2.0)
    finish_copy(halves / "three", base / "2")
    until(lambda: serves(3.0))
    until(lambda: state(1) == ("END", "OK", ""))
    assert state(2) == ("AVAILABLE", "OK", "")
    assert server.predict({"instances": [0]}, "/v1/models/model/versions/1")[0] == 404
    assert server.stop(signal.SIGINT) == 0
    assert "Traceback" not in server.log.read_text()
