"""Finds a Python that has what requirements.txt names: the one that runs, or a virtual environment outside the repository.

Imports nothing from outside Python's own library, so that `run.py` starts on a bare interpreter.
"""

import fcntl
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
import sys

REQUIREMENTS = pathlib.Path(__file__).resolve().parent / "requirements.txt"
LEAST = (3, 11)  # what the versions in requirements.txt run on
MARKER = "gradus-peers.txt"  # in a folder that was made here; says what is installed, and is empty until all of it is
GUARD = "GRADUS_PEERS_PYTHON"  # set across the restart


def lacking(requirements: pathlib.Path = REQUIREMENTS) -> list[str]:
    """The lines `name==version` that this interpreter does not have. A build's label (`2.15.0+cpu`) makes no difference."""
    lines = [line for line in requirements.read_text().splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    return [f"{name}=={version}" for name, version in pairs if installed(name) != version]


def installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def contents(requirements: pathlib.Path) -> str:
    """What a whole environment holds, as its marker says it."""
    return f"Python {platform.python_version()}\n{requirements.read_text()}"


def default_folder(requirements: pathlib.Path = REQUIREMENTS) -> pathlib.Path:
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return cache / "gradus-peers" / hashlib.sha256(contents(requirements).encode()).hexdigest()[:12]


def install(folder: pathlib.Path, requirements: pathlib.Path) -> pathlib.Path:
    """Makes the environment if it is not there as a whole, and returns its interpreter."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).exists()):
        sys.exit(
            f"run: {folder} is there and was not made by run.py: give --python-env another place, or, "
            "if it is an environment with everything in requirements.txt, start run.py with its interpreter"
        )
    folder.mkdir(parents=True, exist_ok=True)
    python, whole = folder / "bin/python", contents(requirements)
    with (folder / MARKER).open("a+") as marker:
        fcntl.flock(marker, fcntl.LOCK_EX)  # a second run waits for the first one's installation
        marker.seek(0)
        if marker.read() == whole and python.exists():  # false when it links to an interpreter that is gone
            return python
        # What an interrupted installation left cannot be told from what is whole: it goes. The marker stays, emptied
        # first and filled last: an environment cannot be made elsewhere and moved, as its scripts hold its path.
        marker.truncate(0)
        for entry in folder.iterdir():
            if entry.name != MARKER:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        print(f"run: installing {requirements} in {folder}: once, and PyTorch is large", file=sys.stderr, flush=True)
        for command in (
            # -I: what PYTHONPATH or the user's packages offer would not be installed, and may be gone tomorrow.
            [sys.executable, "-I", "-m", "venv", str(folder)],
            [str(python), "-I", "-m", "pip", "install", "--disable-pip-version-check", "-r", str(requirements)],
        ):
            # Standard output is the table's.
            if code := subprocess.run(command, stdout=sys.stderr).returncode:
                sys.exit(f"run: `{' '.join(command)}` failed with exit code {code}; the next run starts it afresh")
        marker.write(whole)
    return python


def ensure(folder: pathlib.Path | None = None, requirements: pathlib.Path = REQUIREMENTS) -> None:
    """Returns in an interpreter that has everything: this one, or else the program starts again in the environment's."""
    restarted = os.environ.pop(GUARD, None)
    if not (missing := lacking(requirements)):
        return
    if restarted:  # once is enough: the environment was changed by hand, or PYTHONHOME leads away from it
        sys.exit(f"run: {restarted} lacks {', '.join(missing)} though it was installed there: remove the folder")
    if sys.version_info < LEAST:
        least, this = ".".join(map(str, LEAST)), platform.python_version()
        sys.exit(f"run: Python {this} is too old for requirements.txt: start run.py with {least} or newer")
    folder = (folder or default_folder(requirements)).absolute()
    python = install(folder, requirements)
    os.environ[GUARD] = str(folder)
    os.execv(python, [str(python), *sys.orig_argv[1:]])
