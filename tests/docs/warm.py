"""Runs commands of Python in forks of a process that has imported what takes long.

A reader's command spends most of its time on importing TensorFlow, and pages have many of them.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path

SLOW = ("tfrec", "tensorflow", "tf_keras", "tensorflow_transform.beam", "sklearn.metrics")
MESSAGE = 2**20


def serve(path: str) -> None:
    """Takes commands at a socket until the process is ended."""
    for name in SLOW:  # libraries, and which Keras it is; the project's modules are the command's
        importlib.import_module(name)
    from tests import fast_beam

    fast_beam.apply()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            client, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                server.close()
                _answer(client)
                return
            client.close()


def _answer(client: socket.socket) -> None:
    """Runs a command in one more fork, and tells its exit status."""
    message, files, _, _ = socket.recv_fds(client, MESSAGE, 3)
    if os.fork():
        _, status = os.wait()
        client.send(bytes([os.waitstatus_to_exitcode(status) % 256]))
        return
    client.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    command = json.loads(message)
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["environment"])
    kind, *sys.argv = command["arguments"]
    sys.path[0] = command["cwd"]
    if kind == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv[0] = kind
        exec(compile(command["arguments"][1], "<block>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [kind, *sys.argv]
        sys.path[0] = str(Path(kind).resolve().parent)
        runpy.run_path(kind, run_name="__main__")


def ask(path: str, arguments: list[str]) -> int:
    """Exit status of `python` with these arguments, run by the process at a socket."""
    command = {"arguments": arguments, "cwd": str(Path.cwd()), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        socket.send_fds(client, [json.dumps(command).encode()], [0, 1, 2])
        return (client.recv(1) or b"\xff")[0]


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(ask(os.environ["WARM"], sys.argv[1:]))
