"""Compiles the project's .pyx files when it is installed; `python hatch_build.py` does so by itself.

Where the machine has no C compiler, that of the wheel `ziglang` is used, which the build then asks for.
"""

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # when it runs by itself, where hatchling is not installed
    BuildHookInterface = object  # type: ignore[assignment,misc]

ROOT = Path(__file__).parent
NO_HEADERS = (
    "recguard compiles a part of itself, for which the header files of Python are missing: there is no {path}. "
    "Install those of {version} (Debian and Ubuntu: apt-get install python{version}-dev), then install again"
)
# without contraction, each operation rounds by itself on every machine
OPTIONS = ("-O2", "-g0", "-ffp-contract=off", "-Wno-unused-function")


class Compiled(BuildHookInterface):  # type: ignore[misc]
    """Hatchling's hook: compiles in place, as an editable install needs it, and names what a wheel takes along."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        return [] if compiler() else ["ziglang==0.17.1"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name == "wheel":
            made = compile_all(Path(self.root))
            build_data["artifacts"] += [f"/{path.relative_to(self.root).as_posix()}" for path in made]
            build_data["infer_tag"], build_data["pure_python"] = True, False


def compiler() -> str | None:
    """The C compiler of this machine: that of the variable CC, that which Python was built by, or cc."""
    of_python = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    return os.environ.get("CC") or next((name for name in (of_python, "cc") if shutil.which(name)), None)


def compile_all(root: Path = ROOT) -> list[Path]:
    """Compiles each .pyx of the project beside itself; returns the libraries."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if not headers.exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SystemExit(NO_HEADERS.format(path=headers, version=version))
    if not compiler():
        os.environ["CC"] = f"{sys.executable} -m ziglang cc"
        os.environ["LDSHARED"] = f"{sys.executable} -m ziglang cc -shared"
    sources = sorted(path for half in ("service", "training") for path in (root / half).rglob("*.pyx"))
    work = root / "build" / "compiled"
    before = Path.cwd()
    os.chdir(root)  # both take names of modules from paths
    try:
        names = [path.relative_to(root) for path in sources]
        extensions = [
            Extension(".".join(name.with_suffix("").parts), [str(name)], extra_compile_args=list(OPTIONS))
            for name in names
        ]
        directives = {"language_level": 3, "boundscheck": False, "wraparound": False, "cdivision": True}
        made = cythonize(extensions, build_dir=str(work), compiler_directives=directives, quiet=True)
        command = build_ext(Distribution({"name": "recguard", "ext_modules": made}))
        command.inplace, command.build_temp, command.parallel = True, str(work), os.cpu_count()
        command.ensure_finalized()
        command.run()
        return [root / command.get_ext_fullpath(extension.name) for extension in made]
    finally:
        os.chdir(before)


if __name__ == "__main__":
    compile_all()
