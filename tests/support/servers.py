"""Databases of the tests' own, which can be stopped or killed, and started again."""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import redis

from tests.support.processes import alive, children, free_port, start, wait_until


class Postgres:
    """A PostgreSQL that can be stopped and started again.

    Args:
        programs: the folder of `initdb` and `pg_ctl`.
        folder: an empty one, for its data.

    Attributes:
        url: as SQLAlchemy takes it.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.data = programs, folder / "data"
        self.user: str | None = None
        if os.getuid() == 0:  # it refuses to run as root
            self.user = "postgres"
            for parent in (folder, *folder.parents[:3]):
                parent.chmod(0o755)
            shutil.chown(folder, pwd.getpwnam("postgres").pw_uid)
        port = free_port()
        self.url = f"postgresql+psycopg://recguard@127.0.0.1:{port}/postgres"
        self.options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"
        self._run("initdb", "-U", "recguard", "-A", "trust")
        self.start()

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [self.programs / program, "-D", self.data, *arguments]
        subprocess.run(command, check=True, capture_output=True, user=self.user)

    def start(self) -> None:
        if (main := self._main()) and not alive(main):  # a zombie would be taken for a server that runs
            wait_until(lambda: not Path(f"/proc/{main}").exists())
        self._run("pg_ctl", "-o", self.options, "-l", self.data.with_name("log"), "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-m", "fast", "-w", "stop")

    def processes(self) -> list[int]:
        """Ids of its processes, the first one first; none while it does not run."""
        main = self._main()
        return [main, *children(main)] if main and alive(main) else []

    def _main(self) -> int | None:
        with suppress(FileNotFoundError):
            return int((self.data / "postmaster.pid").read_text().splitlines()[0])
        return None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """While it takes connections and answers nothing."""
        processes = self.processes()
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in processes:
                os.kill(pid, signal.SIGCONT)


class RedisServer:
    """A Redis that can be killed and started again.

    Args:
        folder: for its log and its data.
        durable: whether each write is on disk before it is answered; else nothing is written.
        options: more of its own, as on its command line.

    Attributes:
        url: as Redis clients take it.
    """

    def __init__(self, folder: Path, durable: bool = True, options: Sequence[str] = ()) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self.command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        if durable:
            self.command += ["--appendonly", "yes", "--appendfsync", "always"]
        self.command += options
        self.log = folder / "log"
        self.start()

    def launch(self) -> None:
        """Starts it without waiting until it has loaded its data."""
        self.process = start(self.command, self.log)

    def start(self) -> None:
        self.launch()
        client = redis.Redis.from_url(self.url)

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.ConnectionError:  # of which "still loading" is one
                return False

        wait_until(answers)
        client.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
