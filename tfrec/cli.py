"""What all commands share."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import click

from tfrec.strict import UserError


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Ends a command with one clear line for anything that the user can mend."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except UserError as error:
            raise click.ClickException(str(error)) from None
        except BrokenPipeError:  # of `| head`, which has read enough: click ends in silence
            raise
        except OSError as error:  # a path that cannot be read or written
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise click.ClickException(what) from None

    return wrapper


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Keeps what TensorFlow's C++ prints while it is imported off the terminal.

    Nothing that it says there concerns the user, and no logging option reaches it. Should the
    import fail, all of it is shown.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            sink.seek(0)
            sys.stderr.write(sink.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
