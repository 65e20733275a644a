"""vLLM's server as a child of Hone: it says when it is ready, and all of it ends when its starter does.

    python hone_vllm.py --model BASE --served-model-name NAME …

takes vLLM's own arguments and adds host and port. It keeps the contract of every child of the server
(docs/worker-contract.md): HONE_WORKER_KEY is the key that callers send, HONE_BOOT_ID goes back in the ready
line, and standard input is a pipe that only the starter holds. It runs in vLLM's environment: nothing but the
standard library is imported here.

vLLM drains open streams on SIGTERM, its workers outlive a server that was killed, and it leaves sockets and
files behind. So a keeper waits beside it, in a process group of its own, for the end of the starter or of
vLLM; it then kills what is left of vLLM's group and removes the folder of its temporary files.
"""

import argparse
import http.client
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import NoReturn

# A socket's path may have 107 bytes; the longest that vLLM and its libraries add have 40.
LONGEST_FOLDER = 107 - 40
# The first sampled tokens take seconds, and much longer where kernels are compiled for them.
ANSWER_SECONDS = 300
LOOK_SECONDS = 0.25
DYING_SECONDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--served-model-name", required=True)
    name = parser.parse_known_args()[0].served_model_name
    key = os.environ.pop("HONE_WORKER_KEY", "")
    if not key:
        sys.exit("HONE_WORKER_KEY is not set. Set the key that vLLM shall ask for.")
    boot = os.environ.pop("HONE_BOOT_ID", "")
    port = free_port()
    folder = temporary_folder()

    # Before vLLM is imported: what it starts must not be copied.
    leader = os.getpid()
    keeper = os.fork()
    if keeper == 0:
        ready = json.dumps({"ready": True, "port": port, "boot": boot})
        keep(leader, folder, lambda: announce(port, name, key, ready))
    # Here as well as in the child: the group may be killed before the child runs at all.
    os.setpgid(keeper, keeper)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # The ready line is the only one on standard output.
    os.dup2(2, 1)

    # Not on the command line, which every user of the machine can read.
    os.environ.update(VLLM_API_KEY=key, TMPDIR=folder, VLLM_RPC_BASE_PATH=folder)
    tempfile.tempdir = None
    sys.argv += ["--host", "127.0.0.1", "--port", str(port)]
    # The `vllm` command of the CPU build looks for a distribution of another name; the module works for both.
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)


def keep(leader: int, folder: str, announcement: Callable[[], None]) -> NoReturn:
    group = os.getpgid(leader)
    os.setpgid(0, 0)
    failed = threading.Event()

    def announce_or_fail() -> None:
        try:
            announcement()
        except Exception as error:
            print(json.dumps({"error": {"message": str(error)}}), file=sys.stderr, flush=True)
            failed.set()

    threading.Thread(target=announce_or_fail, daemon=True).start()
    while os.getppid() == leader and not failed.is_set():
        readable, _, _ = select.select([0], [], [], LOOK_SECONDS)
        if readable and not os.read(0, 64):
            break
    deadline = time.monotonic() + DYING_SECONDS
    try:
        os.killpg(group, signal.SIGKILL)
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.02)
    except ProcessLookupError:
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def announce(port: int, name: str, key: str, ready: str) -> None:
    """Healthy, serving the model that was named, and one token sampled: the first takes seconds."""
    while not is_healthy(port):
        time.sleep(LOOK_SECONDS)
    served = json.loads(ask(port, "GET", "/v1/models", key))["data"]
    if name not in [model["id"] for model in served]:
        raise RuntimeError("Another server answers on vLLM's port. Start it again.")
    first = {"model": name, "prompt": [1, 2, 3], "max_tokens": 2}
    ask(port, "POST", "/v1/completions", key, json.dumps(first))
    print(ready, flush=True)
    # Whoever reads vLLM's output must not wait for this process as well.
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def is_healthy(port: int) -> bool:
    try:
        ask(port, "GET", "/health", "")
    except (OSError, http.client.HTTPException, RuntimeError):
        return False
    return True


def ask(port: int, method: str, path: str, key: str, body: str | None = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise RuntimeError(
            f"vLLM answered {method} {path} with {response.status}: {text.decode(errors='replace')[:500]}"
        )
    return text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def temporary_folder() -> str:
    """In /tmp where the system keeps temporary files too far down for a socket."""
    folder = tempfile.mkdtemp(prefix="hone-vllm-")
    if len(os.fsencode(folder)) <= LONGEST_FOLDER:
        return folder
    os.rmdir(folder)
    return tempfile.mkdtemp(prefix="hone-vllm-", dir="/tmp")


if __name__ == "__main__":
    main()
