"""Peak memory and examples/s of the models whose memory grows with the square of the fields.

    python -m benchmarks.memory --model ffm --model xdeepfm

The work is that of throughput.py, 26 categories and 13 numbers, embeddings of 16, batches of
4,096, but with tables of 100 rows, so that next to none of the memory is theirs. Every model is
measured in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys

import click

from benchmarks.throughput import CATEGORIES, SETTINGS, measured

WORK = {
    "ffm": {"dim": 16},
    "onn": SETTINGS,
    "pnn": {**SETTINGS, "product": "both"},
    "xdeepfm": SETTINGS,
}


@click.command()
@click.option(
    "--model", "models", multiple=True, default=tuple(WORK), type=click.Choice(list(WORK))
)
@click.option("--seconds", default=10.0, show_default=True, help="Measured, after a warm-up.")
@click.option("--measure", is_flag=True, hidden=True)
def main(models: tuple[str, ...], seconds: float, measure: bool) -> None:
    """Measure the memory of training."""
    if measure:
        rows, model = 100 * CATEGORIES, models[0]
        found = measured(model, WORK[model], rows, "memory", seconds=seconds, warm_up=2)
        click.echo(json.dumps(found))
        return
    click.echo("| model | peak memory | examples/s |")
    click.echo("| --- | --- | --- |")
    for model in models:
        command = [sys.executable, "-m", "benchmarks.memory", "--measure", "--model", model]
        done = subprocess.run([*command, "--seconds", str(seconds)], capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
            raise click.ClickException(f"{model}: {lines[-1]}")
        found = json.loads(done.stdout.strip().splitlines()[-1])
        memory = found["peak_memory_bytes"] / 2**30
        click.echo(f"| `{model}` | {memory:.2f} GiB | {found['examples_per_second']:,} |")


if __name__ == "__main__":
    main()
