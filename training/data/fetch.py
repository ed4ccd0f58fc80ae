"""Brings a log that lives elsewhere, in an object store or a database, into a local folder, where `read` reads it."""

import importlib
import logging
import re
from pathlib import Path, PurePosixPath

import polars as pl

from training.data.log import LogError, brief

logger = logging.getLogger(__name__)
STORES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}  # object stores, each with the package that reads it
DATABASES = {"postgresql": "adbc_driver_postgresql", "postgres": "adbc_driver_postgresql"}


def local(place: str, query: str | None, folder: Path) -> Path:
    """The path of a log or a label table on this machine.

    Args:
        place: a path, which stays as it is; a file or folder of an object store, which is copied; or a database.
        query: what to ask the database; the answer becomes a Parquet file.
        folder: for what is copied.

    Raises:
        LogError: an unknown scheme, a query without a database or the reverse, or what cannot be fetched.
        ModuleNotFoundError: a package of an extra is not installed.
    """
    scheme, separator, rest = place.partition("://")
    if query is not None and scheme not in DATABASES:
        raise LogError(f"--query is for a database, and {place} is none; give --events postgresql://user@host/name")
    if not separator:
        return Path(place)
    if scheme not in STORES and scheme not in DATABASES:
        raise LogError(f"{place}: unknown scheme {scheme!r}; there are {', '.join([*STORES, *DATABASES])}, and paths")
    importlib.import_module({**STORES, **DATABASES}[scheme])  # says which package is missing, if it is
    shown = re.sub(r"//[^/@]*@", "//", place)  # without user and password
    try:
        found = _copied(scheme, rest, folder) if scheme in STORES else _answer(place, query, folder)
    except LogError:
        raise
    except Exception as error:  # each store and each driver has errors of its own
        raise LogError(f"{shown}: cannot be fetched: {type(error).__name__}: {brief(error)}") from error
    logger.info("%s is copied to %s", shown, found)
    return found


def _copied(scheme: str, rest: str, folder: Path) -> Path:
    """Copies an object, or all Parquet files below a prefix."""
    import fsspec

    store, root = fsspec.filesystem(scheme, skip_instance_cache=True), PurePosixPath(rest)
    target = folder / scheme / root
    if store.isfile(str(root)):
        objects = [root]
    else:
        objects = [PurePosixPath(name) for name in store.find(str(root)) if name.endswith(".parquet")]
        if not objects:
            raise LogError(f"{scheme}://{rest}: no such file, and no folder with Parquet files in it")
    for one in objects:
        if ".." in one.parts:
            raise LogError(f"{scheme}://{one}: a name with .. in it cannot be copied; rename it")
        file = target / one.relative_to(root)
        file.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(str(one), str(file))
    return target


def _answer(uri: str, query: str | None, folder: Path) -> Path:
    """Asks a database, and writes what it answers as a Parquet file."""
    if query is None:
        raise LogError("a database needs --query: which rows are the log? For example --query 'select * from events'")
    file = folder / "query.parquet"
    pl.read_database_uri(query, uri, engine="adbc").write_parquet(file)
    return file
