"""Worker processes of Beam's own runner, which may end in mid run."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

import grpc
from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.portability.local_job_service import SubprocessSdkWorker

from tfrec.strict import UserError

CLOSED = "Channel closed prematurely"  # what Beam says where it waits for a worker's data

_READERS = ("beam_control_read", "read_grpc_client_inputs")  # threads that read from a worker
_LOGGERS = ("worker.data_plane", "portability.fn_api_runner.worker_handlers")


def worker_ended() -> UserError:
    """What the user is told."""
    return UserError(
        "a worker process of the run has ended, killed or out of memory; run it again, with a "
        "smaller --direct_num_workers if memory was short"
    )


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Keeps what threads and loggers say of a connection that is gone, with tracebacks, from users.

    What it means is raised where a worker's answer is waited for.
    """
    before = threading.excepthook
    loggers = [logging.getLogger(f"apache_beam.runners.{name}") for name in _LOGGERS]

    def hook(raised: threading.ExceptHookArgs) -> None:
        if not isinstance(raised.exc_value, grpc.RpcError):
            before(raised)

    threading.excepthook = hook
    for logger in loggers:
        logger.addFilter(_of_no_connection)
    try:
        yield
    except BaseException:
        for thread in threading.enumerate():
            if thread.name in _READERS:
                thread.join(timeout=5)  # it would speak after this
        raise
    finally:
        threading.excepthook = before
        for logger in loggers:
            logger.removeFilter(_of_no_connection)


def _of_no_connection(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], grpc.RpcError))


class _Gone(worker_handlers.ControlConnection):
    """The connection to a worker that has ended."""

    def push(self, req: object) -> None:
        raise worker_ended()


# Beam's own would wait without end for the answer of a worker that has ended.
@worker_handlers.WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class _Worker(worker_handlers.SubprocessSdkWorkerHandler):
    control_conn: Any

    def start_worker(self) -> None:
        self.worker = SubprocessSdkWorker(
            self._worker_command_line, self.control_address, self.provision_info, self.worker_id
        )
        self.worker_thread = threading.Thread(name="run_worker", target=self._run)
        self.worker_thread.start()

    def _run(self) -> None:
        try:
            self.worker.run()
        except RuntimeError:  # it did not end by itself
            connection, self.control_conn = self.control_conn, _Gone()
            connection.abort(worker_ended())
            connection.push(worker_handlers.BeamFnControlServicer._DONE_MARKER)
