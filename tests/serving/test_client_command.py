"""`python -m serving.client` from end to end."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.serving.process import Server, free_port
from tests.serving.test_client import ANSWER, APIS, ROW, address

BINARY = {"b64": "YW5u"}
LINE = {**ANSWER, "raw_bytes": BINARY}


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.client", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True)


def asked(server: Server, *arguments: str, text: Any = "", api: str = "grpc") -> list[Any]:
    """What a command prints, read; it has to succeed."""
    done = run(f"--address={address(server, api)}", "--model=model", f"--api={api}", *arguments,
               text=text if isinstance(text, str) else lines(text))  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def failed(server: Server, *arguments: str, text: str = "") -> tuple[int, str]:
    """How many answers a command prints, and the one line of its error."""
    done = run(f"--address={address(server, 'grpc')}", "--model=model", *arguments, text=text)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    return len(done.stdout.splitlines()), done.stderr.strip()


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("api", APIS)
def test_predict(recommender: Server, api: str) -> None:
    rows = [{**ROW, "liked": ["x"] * n, "liked_price": [0.0] * n} for n in range(5)]
    answers = asked(recommender, "predict", "--batch-size=2", text=rows, api=api)
    assert [answer["events"] for answer in answers] == [0, 1, 2, 3, 4]
    assert asked(recommender, "predict", text=[ROW], api=api) == [LINE]


def test_bytes_are_read_as_they_are_printed(recommender: Server) -> None:
    answers = asked(recommender, "predict", text=[{**ROW, "user": {"b64": "/wA="}}])
    assert answers[0]["raw_bytes"] == {"b64": "/wA="}
    _, error = failed(recommender, "predict", text=lines([{**ROW, "user": {"b64": "?"}}]))
    assert "column 'user' takes values of string, not {'b64': '?'}" in error


def test_predict_by_examples(recommender: Server, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    raw = {("unit price" if name == "unit_price" else name): ROW[name] for name in ROW}
    file.write_text(lines([raw, {"at": 1, "user": "ann"}]))
    whole, bare = asked(recommender, "predict", "--examples", str(file))
    assert whole == LINE
    assert bare["score"] == -1.0


def test_another_signature(server: Server) -> None:
    arguments = ("predict", "--signature=two")
    answers = asked(server, *arguments, text=[{"pair": [0.1, 0.2], "name": "a"}])
    assert answers == [{"greeting": "hello a", "total": 0.3}]


@pytest.mark.parametrize("api", APIS)
def test_numbers_that_json_lacks_are_printed_as_the_server_writes_them(
    recommender: Server, api: str
) -> None:
    row = {**ROW, "liked": ["x"], "liked_price": [math.nan], "place": [-math.inf, 1.0]}
    done = run(f"--address={address(recommender, api)}", "--model=model", f"--api={api}", "predict",
               text=lines([row]))  # fmt: skip
    assert '"score":NaN' in done.stdout
    assert '"vectors":[-Infinity,0.1]' in done.stdout
    assert json.loads(done.stdout)["raw_bytes"] == BINARY


@pytest.mark.parametrize("api", APIS)
def test_recommend(recommender: Server, api: str) -> None:
    users = [{"user": "ann", "liked": ["a"]}, {"user": "bob", "liked": [], "k": 1}]
    first, second = asked(recommender, "recommend", "--k=2", "--exclude=b", text=users, api=api)
    assert [item["item"] for item in first] == ["c", "d"]
    assert second == [{"item": "a", "score": 0.9, "retrieval_score": 1.8}]
    (first,) = asked(recommender, "recommend", "--k=2", "--seen", text=users[:1], api=api)
    assert [item["item"] for item in first] == ["a", "b"]


@pytest.mark.parametrize("api", APIS)
def test_status_and_metadata(recommender: Server, api: str) -> None:
    (version,) = asked(recommender, "status", api=api)
    assert version == {"version": 3, "state": "AVAILABLE", "code": "OK", "message": ""}
    signatures = asked(recommender, "metadata", api=api)
    assert [line["signature"] for line in signatures] == [
        "predict",
        "recommend",
        "serving_default",
    ]
    assert signatures[0]["inputs"]["liked"] == {"dtype": "string", "shape": [-1, -1]}
    assert signatures[0]["version"] == 3


def test_the_line_that_is_wrong_is_told(recommender: Server) -> None:
    good, bad = lines([ROW]), lines([{**ROW, "at": 0}])
    text = good + "\n" + good + bad + good  # blank lines count
    printed, error = failed(recommender, "predict", text=text)
    assert printed == 2
    assert error.startswith("Error: line 4: INVALID_ARGUMENT: ")
    assert "at is not above 0" in error
    unknown = good + lines([{**ROW, "usr": 1}])
    assert failed(recommender, "predict", text=unknown) == (
        1,
        "Error: line 2: INVALID_ARGUMENT: the row has 'usr', which the signature does not take; "
        "did you mean 'user'?",
    )
    printed, error = failed(recommender, "predict", text=good + "{oh\n" + good)
    assert printed == 1
    assert error.startswith("Error: line 2: not JSON: ")
    printed, error = failed(recommender, "predict", text=good + "[" * 10**5)
    assert (printed, error[:24]) == (1, "Error: line 2: not JSON:")
    printed, error = failed(recommender, "recommend", text="[1, 2]\n")
    assert error.startswith("Error: line 1: INVALID_ARGUMENT: the row is of type list; ")


def test_other_errors_name_the_lines_that_were_sent(recommender: Server) -> None:
    text = lines([ROW, ROW, ROW])
    printed, error = failed(recommender, "--version=9", "predict", "--batch-size=2", text=text)
    assert printed == 0
    assert error.startswith("Error: lines 1 to 2: NOT_FOUND: ")


def test_no_server() -> None:
    done = run(f"--address=127.0.0.1:{free_port()}", "--retries=0", "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: UNAVAILABLE: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["--address=here", "status"], 1, "Error: INVALID_ARGUMENT: address 'here' is not host:po"),
        (["status"], 2, "Missing option '--address'"),
        (["--address=a:1", "predict", "/none.jsonl"], 2, "'/none.jsonl': No such file"),
    ],
)
def test_arguments_that_are_wrong(arguments: list[str], code: int, error: str) -> None:
    done = run(*arguments)
    assert done.returncode == code
    assert error in done.stderr
    assert "Traceback" not in done.stderr


def test_authorities_that_are_no_certificates(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("none")
    done = run("--address=a:1", "--api=rest", f"--tls-ca={tmp_path / 'ca.pem'}", "status")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: --tls-ca {tmp_path / 'ca.pem'}: ")
    assert len(done.stderr.splitlines()) == 1


def test_certificates_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("none")
    files = [str(tmp_path / "a.pem")] * 2
    done = run("--address=a:1", "--api=rest", "--tls-certificate", *files, "status")
    assert done.stderr.startswith(f"Error: --tls-certificate {files[0]} {files[1]}: ")
    assert len(done.stderr.splitlines()) == 1
