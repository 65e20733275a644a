"""Says whether this interpreter's environment is whole: `check_environment.py [--import MODULE]... REQUIREMENTS...`

Prints one JSON object. Every pinned package must be there in its version, and every installed file must have
the digest that its package recorded for it. Runs with `python -I`, and imports nothing that could be broken
before it has looked.
"""

import argparse
import base64
import hashlib
import importlib
import importlib.metadata
import json
import re
from pathlib import Path

PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--import", dest="modules", action="append", default=[])
    parser.add_argument("requirements", nargs="*", type=Path)
    arguments = parser.parse_args()

    problems: list[str] = []
    installed, damaged = look_at_files()
    problems += damaged
    for path in arguments.requirements:
        for name, version in PIN.findall(path.read_text(encoding="utf-8")):
            found = installed.get(normalised(name))
            if found is None:
                problems.append(f"{name} is missing")
            elif found != version:
                problems.append(f"{name} is {found}, not {version}")
    torch = installed.get("torch")
    if torch is None:
        problems.append("torch is missing")
    cuda = None
    # A damaged package may crash the interpreter: what has been found is reported first.
    if not problems:
        for module in arguments.modules:
            try:
                loaded = importlib.import_module(module)
            except Exception as error:
                problems.append(f"{module} cannot be imported ({type(error).__name__}: {error})")
            else:
                if module == "torch":
                    cuda = {"version": loaded.version.cuda, "available": loaded.cuda.is_available()}
    report = {"problems": problems, "packages": len(installed), "torch": torch, "cuda": cuda}
    print(json.dumps(report))


def look_at_files() -> tuple[dict[str, str], list[str]]:
    """The version of each package, by normalised name; a sentence for each package that is damaged."""
    installed: dict[str, str] = {}
    problems: list[str] = []
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"] if distribution.metadata else None
        if not name or not distribution.files:
            where = getattr(distribution, "_path", "a package")
            problems.append(f"{Path(where).name} has lost its record of files")
            continue
        installed.setdefault(normalised(name), distribution.version)
        wrong = [file for file in distribution.files if not is_as_recorded(distribution, file)]
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            problems.append(f"{name} is damaged ({wrong[0]}{more})")
    return installed, problems


def is_as_recorded(
    distribution: importlib.metadata.Distribution, file: importlib.metadata.PackagePath
) -> bool:
    # Python writes compiled modules again, also those few that a package recorded with a digest.
    if file.hash is None or file.suffix == ".pyc":
        return True
    try:
        with open(str(distribution.locate_file(file)), "rb") as content:
            digest = hashlib.file_digest(content, file.hash.mode).digest()
    except OSError:
        return False
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
