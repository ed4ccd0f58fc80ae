"""The command that makes vectors of a column; `main` puts it into the command line."""

import shutil
from pathlib import Path
from typing import Annotated, Literal

import typer

from training.cli.common import EventsFile, Quiet, bar, console, session
from training.cli.options import Missing, reads_log
from training.config import FitConfig
from training.data.read import AS_FOUND, ReadOptions


@reads_log
def embed(
    events: EventsFile,
    column: Annotated[str, typer.Option("--column", help="Column of texts, or of paths to images or sounds.")],
    model: Annotated[Path, typer.Option("--model", help="Directory of a model that transformers loads.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file: the log with one more column.")],
    into: Annotated[str | None, typer.Option("--into", help="The new column; by default COLUMN_vector.")] = None,
    kind: Annotated[
        Literal["text", "image", "sound"], typer.Option("--kind", help="What is embedded; sounds are .wav of 16 bits.")
    ] = "text",
    missing: Missing = FitConfig.missing,
    how: ReadOptions = AS_FOUND,
    quiet: Quiet = False,
) -> None:
    """Turns texts, images or sounds into vectors, a column that `fit` reads; after an interruption it goes on."""
    with session(quiet) as show:
        from service.model.files import write_whole
        from training.apply.embeddings import BATCH, embed_column, parts_of, values_of
        from training.data.log import LogError
        from training.data.read import read_table

        name = into or f"{column}_vector"
        if out.suffix != ".parquet":
            raise LogError(f"--out {out}: vectors are written as Parquet; call it {out.with_suffix('.parquet')}")
        if not model.is_dir():
            raise LogError(f"--model {model}: no such directory")
        table = read_table(events, how=how)
        if column not in table.columns or name in table.columns:
            wrong = f"no column {column!r}" if column not in table.columns else f"has a column {name!r} already"
            raise LogError(f"{events}: {wrong}; present: {', '.join(table.columns)}")
        reading = FitConfig(missing=missing).reading
        count = -(-len(values_of(table, column, reading)) // BATCH)
        with bar(show, "embedding", count) as advance:
            found = embed_column(table, column, model, out, kind, name, events.parent, reading, advance)
        write_whole(out, found.write_parquet)
        shutil.rmtree(parts_of(out))
        console.print(f"wrote {out}: {found.height:,} rows with {name}", soft_wrap=True)
