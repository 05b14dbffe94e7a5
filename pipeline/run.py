"""The whole pipeline: source to data set directory."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.declaration import Declaration
from pipeline.finish import Finish, Report
from pipeline.flow import Flow
from tfrec.strict import UserError


def run(
    declaration: Declaration, output: Path, options: PipelineOptions, *, overwrite: bool = False
) -> Report:
    """Makes the data set directory of a declaration.

    It is made in a temporary place beside `output` and renamed when whole.

    Args:
        declaration: of the data set.
        output: directory to make.
        options: of Beam.
        overwrite: replaces a data set that is there already.

    Raises:
        UserError: the output exists, the source does not fit the declaration, too many rows are
            rejected, or a split or a vocabulary turned out empty.
    """
    with _replaced(output, overwrite) as place:
        work = place / "work"
        work.mkdir()
        (place / "examples").mkdir()
        pipeline = beam.Pipeline(options=options)
        Flow(declaration, place, work).build(pipeline)
        try:
            pipeline.run().wait_until_finish()
        except (UserError, RuntimeError) as error:
            raise _of_step(error) from error
        report = Finish(declaration, place, work).finish()
        shutil.rmtree(work)
    return report


def _of_step(error: Exception) -> Exception:
    """What a step has raised, without the name of the step that Beam adds.

    Most runners hand it over as the text of a traceback.
    """
    start = "" if isinstance(error, UserError) else r"^tfrec\.strict\.UserError: "
    found = re.search(rf"{start}(.*?) \[while running '", str(error), re.MULTILINE)
    return UserError(found[1]) if found else error


@contextmanager
def _replaced(output: Path, overwrite: bool) -> Iterator[Path]:
    """A new directory that takes the place of `output` when the body succeeds."""
    if output.exists() and not overwrite:
        raise UserError(f"{output} exists; name another --output, or pass --overwrite")
    if output.exists() and not (output / "features.json").is_file():
        raise UserError(f"{output} is no data set, so it is not overwritten")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise UserError(f"{output} cannot be made: {error.filename}: {error.strerror}") from None
    place.chmod(0o755)
    try:
        yield place
        if output.exists():
            old = place.with_name(place.name + ".old")
            output.rename(old)
            place.rename(output)
            shutil.rmtree(old)
        else:
            place.rename(output)
    finally:
        shutil.rmtree(place, ignore_errors=True)
