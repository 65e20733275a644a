"""Adds up what pip would fetch: `python -m hone_worker.tools.download_sizes [REQUIREMENTS] < REPORT`,
the report of `pip install --dry-run`.

Prints {"files", "remote", "local"}: bytes from an index, bytes from this machine's disk. What REQUIREMENTS pins
is not counted. It asks for the headers of each file with pip's own HTTP library, which knows the machine's proxy
and certificates.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pip._vendor import requests

from hone_worker.tools.check_environment import PIN, normalised


def main() -> None:
    pinned = {
        name for path in sys.argv[1:] for name, _ in PIN.findall(Path(path).read_text(encoding="utf-8"))
    }
    known = {normalised(name) for name in pinned}
    urls = [
        item["download_info"]["url"]
        for item in json.load(sys.stdin)["install"]
        if normalised(item["metadata"]["name"]) not in known
    ]
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(size, urls))
    local = sum(n for url, n in zip(urls, sizes, strict=True) if is_local(url))
    print(json.dumps({"files": len(urls), "local": local, "remote": sum(sizes) - local}))


def is_local(url: str) -> bool:
    return urlsplit(url).scheme == "file"


def size(url: str) -> int:
    if is_local(url):
        return Path(url2pathname(urlsplit(url).path)).stat().st_size
    certificates = os.environ.get("PIP_CERT") or True
    answer = requests.head(url, timeout=10, allow_redirects=True, verify=certificates)
    answer.raise_for_status()
    return int(answer.headers["content-length"])


if __name__ == "__main__":
    main()
