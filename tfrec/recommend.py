"""`python -m tfrec.recommend`: a retrieval and a ranking run as one exported model.

Its signature `recommend` takes what those of both runs take, but for the item's columns, with the
options `k`, `exclude_seen` and `exclude`. The first stage finds candidates among all items, the
second one scores them with all that it knows of user, context and item; the best k come back.
`explain` is that of the ranking run, if its model has attention.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tfrec.cli import command, quiet_import
from tfrec.strict import UserError

if TYPE_CHECKING:
    from tfrec.runs import Run

CANDIDATES = 500


def export_two_stages(
    retrieval: Run, ranking: Run, output: Path, candidates: int = CANDIDATES
) -> Path:
    """Writes the next version of a model that retrieves, then ranks.

    Args:
        retrieval: run of a model that scores all items.
        ranking: run of a model that scores one example.
        output: directory of the numbered versions.
        candidates: how many items the first stage hands to the second.

    Returns:
        The version's directory.

    Raises:
        UserError: a run is of the wrong kind, the two take a column of one name as two kinds or
            call all items by other names, or the data set of one is no longer there.
    """
    from tfrec import demo
    from tfrec.export import check_data, next_version, save
    from tfrec.models.registry import find
    from tfrec.two_stages import TwoStages

    for run, wanted in ((retrieval, True), (ranking, False)):
        model = run.config.model.id
        if find(model).scores_items != wanted:
            kind = "score all items" if wanted else "rank examples"
            raise UserError(f"{run.directory} is a run of {model!r}, which does not {kind}")
        check_data(run)
    with next_version(output) as (place, version), tempfile.TemporaryDirectory() as files:
        root = TwoStages(retrieval, ranking, candidates, Path(files))
        logs = root.warm_up(output.resolve().parent.name)
        extra = save(place, version, root, root.functions, logs)
        retrieval.features.save(extra)  # whose label tells what is worth being recommended
        demo.write(extra, (retrieval, ranking), root.retriever.keys.numpy())
    click.echo(f"exported {version}, which ranks by {root.ranked_by!r}")
    return version


@click.command()
@click.option("--retrieval", required=True, type=Path, help="Run that finds candidates.")
@click.option("--ranking", required=True, type=Path, help="Run that ranks them.")
@click.option("--output", required=True, type=Path, help="Directory of the numbered versions.")
@click.option(
    "--candidates", default=CANDIDATES, show_default=True, type=click.IntRange(1), help="How many."
)
@command
def main(retrieval: Path, ranking: Path, output: Path, candidates: int) -> None:
    """Join a retrieval and a ranking run into one model for serving."""
    with quiet_import():
        import tensorflow  # noqa: F401

        from tfrec.runs import Run

    runs = Run.load(retrieval), Run.load(ranking)
    export_two_stages(*runs, output, candidates)


if __name__ == "__main__":
    main()
