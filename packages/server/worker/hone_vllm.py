"""vLLM's server as a child of Hone: it says when it is ready, and all of it ends when its starter does.

    python hone_vllm.py --model BASE --served-model-name NAME …

takes vLLM's own arguments and adds host and port. It keeps the contract of every child of the server
(docs/worker-contract.md): HONE_WORKER_KEY is the key that callers send, HONE_BOOT_ID goes back in the ready
line, and standard input is a pipe that only the starter holds. Before the ready line it tells what its start
is at. It runs in vLLM's environment: nothing but the standard library is imported here.

vLLM drains open streams on SIGTERM, its workers outlive a server that was killed, and it leaves sockets and
files behind. So a keeper waits beside it, in a process group of its own, for the end of the starter or of
vLLM; it then kills what is left of vLLM's group and removes the folder of its temporary files. What vLLM has
compiled by the time it is ready is kept in HONE_COMPILED, so that the next start need not compile it again.
"""

import argparse
import hashlib
import hmac
import http.client
import json
import os
import platform
import runpy
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from typing import Any, NoReturn

# A socket's path may have 107 bytes; the longest that vLLM and its libraries add have 40.
LONGEST_FOLDER = 107 - 40
ANSWER_SECONDS = 30
LOOK_SECONDS = 0.25
# What is asked before it counts as ready. What gives logprobs is compiled at first use, anew for one row, for two,
# and for any number: seconds each, and half a minute on a busy machine, in which nothing is sampled.
WARM_UP = (
    {"temperature": 0, "logprobs": 0, "prompt_logprobs": 0},
    {"temperature": 1, "logprobs": 0, "n": 4},
)
DYING_SECONDS = 5
# On a processor it is less than one MiB. What grows past this is not worth a copy at each start.
LARGEST_COMPILED = 64 * 2**20
HALF_DONE_SECONDS = 3600


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--served-model-name", required=True)
    name = parser.parse_known_args()[0].served_model_name
    key = os.environ.pop("HONE_WORKER_KEY", "")
    if not key:
        sys.exit("HONE_WORKER_KEY is not set. Set the key that vLLM shall ask for.")
    boot = os.environ.pop("HONE_BOOT_ID", "")
    held = hold_port()
    port = held.getsockname()[1]
    if sys.platform != "linux":
        held.close()
    folder = temporary_folder()
    compiled = Compiled(os.environ.pop("HONE_COMPILED", ""), os.path.join(folder, "compiled"))
    # An operator's own place stays.
    if os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", compiled.here) == compiled.here:
        compiled.bring()

    # Before vLLM is imported: what it starts must not be copied.
    leader = os.getpid()
    keeper = os.fork()
    if keeper == 0:
        held.close()
        keep(leader, folder, Start(port, name, key, boot, compiled))
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


def keep(leader: int, folder: str, start: "Start") -> NoReturn:
    group = os.getpgid(leader)
    os.setpgid(0, 0)
    failed = threading.Event()

    def announce_or_fail() -> None:
        try:
            start.announce()
        except Exception as error:
            print(json.dumps({"error": {"message": str(error)}}), file=sys.stderr, flush=True)
            failed.set()

    threading.Thread(target=announce_or_fail, daemon=True).start()
    while os.getppid() == leader and not failed.is_set():
        readable, _, _ = select.select([0], [], [], LOOK_SECONDS)
        if readable and not os.read(0, 64):
            break
        start.tell(cpu_seconds(group))
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


class Start:
    """What is told of the start: lines of what it is at, then the ready line."""

    def __init__(self, port: int, name: str, key: str, boot: str, compiled: "Compiled") -> None:
        self.port = port
        self.compiled = compiled
        self.name = name
        self.key = key
        self.boot = boot
        # vLLM does not listen before the base is loaded. The first token compiles what it needs.
        self.phase = "loading"
        self._told = ("", -1)
        self._lock = threading.Lock()

    def tell(self, progress: int) -> None:
        """A line where something has changed, until it is ready."""
        with self._lock:
            now = (self.phase, progress)
            if self.phase == "ready" or now == self._told:
                return
            self._told = now
            print(json.dumps({"phase": self.phase, "progress": progress, "boot": self.boot}), flush=True)

    def announce(self) -> None:
        """Healthy, serving the model that was named, and one token sampled: the first takes seconds."""
        while not is_healthy(self.port):
            time.sleep(LOOK_SECONDS)
        served = json.loads(ask(self.port, "GET", "/v1/models", self.key))["data"]
        if self.name not in [model["id"] for model in served]:
            raise RuntimeError("Another server answers on vLLM's port. Start it again.")
        # Told at once: with warm caches the first token is quicker than the next look.
        self.phase = "compiling"
        self.tell(max(self._told[1], 0))
        for first in WARM_UP:
            body = json.dumps({"model": self.name, "prompt": [1, 2, 3], "max_tokens": 2, **first})
            # Without a limit: the starter sees whether it makes progress.
            ask(self.port, "POST", "/v1/completions", self.key, body, seconds=None)
        with self._lock:
            self.phase = "ready"
            print(json.dumps({"ready": True, "port": self.port, "boot": self.boot}), flush=True)
            # Whoever reads vLLM's output must not wait for this process as well.
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        self.compiled.keep()


class SleepRoutes:
    """ASGI middleware for vLLM's development mode, which sleeping needs: of its routes only these, and only with the key.

    That mode also brings routes that run methods of the engine by name, and asks nobody for a key there.
    """

    OURS = frozenset({"/sleep", "/wake_up", "/is_sleeping"})
    USUAL = frozenset({"/health", "/metrics"})

    def __init__(self, app: Any) -> None:
        self.app = app
        self.expected = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] == "lifespan" or path in self.USUAL or path.startswith("/v1/"):
            await self.app(scope, receive, send)  # vLLM asks for the key itself
            return
        given = next((value for name, value in scope.get("headers", ()) if name == b"authorization"), b"")
        if scope["type"] == "http" and path in self.OURS and hmac.compare_digest(given, self.expected):
            await self.app(scope, receive, send)
            return
        if scope["type"] == "http":
            await send(
                {"type": "http.response.start", "status": 401 if path in self.OURS else 404, "headers": []}
            )
            await send({"type": "http.response.body", "body": b""})


def cpu_seconds(group: int) -> int:
    """Whole seconds of processor time that a process group has used; 0 where the system has no /proc.

    A start that loads, downloads or compiles uses some every minute. One that only waits for a part of its own
    that is stuck uses less than a second in many.
    """
    ticks = 0
    for entry in os.scandir("/proc") if os.path.isdir("/proc") else ():
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/stat", encoding="utf-8", errors="replace") as file:
                # The name, in parentheses, may hold anything.
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue  # It has just ended.
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks // os.sysconf("SC_CLK_TCK")


def is_healthy(port: int) -> bool:
    try:
        ask(port, "GET", "/health", "")
    except (OSError, http.client.HTTPException, RuntimeError):
        return False
    return True


def ask(
    port: int,
    method: str,
    path: str,
    key: str,
    body: str | None = None,
    seconds: float | None = ANSWER_SECONDS,
) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
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


class Compiled:
    """What torch compiles for vLLM. Each start has a copy of its own, and one that came to be ready replaces what is kept.

    So what a start that was killed left half written is never read, and starts at the same time do not meet.
    """

    def __init__(self, place: str, here: str) -> None:
        self.place = place
        self.here = here
        # Compiled for the very processor: a home may be shared by machines with several.
        self.kept = os.path.join(place, processor())

    def bring(self) -> None:
        try:
            if self.place and is_ours(self.place):
                shutil.copytree(self.kept, self.here)
        except OSError:
            # There is none, or it is being replaced.
            shutil.rmtree(self.here, ignore_errors=True)

    def keep(self) -> None:
        """Where there is something new. What goes wrong costs the next start its time, and nothing else."""
        try:
            files = sizes(self.here)
            if not self.place or not files or sum(files.values()) > LARGEST_COMPILED:
                return
            os.makedirs(self.place, mode=0o700, exist_ok=True)
            if not is_ours(self.place) or files.keys() <= sizes(self.kept).keys():
                return
            self._sweep()
            made = tempfile.mkdtemp(prefix=".half-", dir=self.place)
            shutil.copytree(self.here, made, dirs_exist_ok=True)
            old = tempfile.mkdtemp(prefix=".half-", dir=self.place)
            if os.path.isdir(self.kept):
                os.rename(self.kept, old)
            os.rename(made, self.kept)
            shutil.rmtree(old, ignore_errors=True)
        except OSError:
            pass

    def _sweep(self) -> None:
        for entry in os.scandir(self.place):
            if entry.name.startswith(".half-") and time.time() - entry.stat().st_mtime > HALF_DONE_SECONDS:
                shutil.rmtree(entry.path, ignore_errors=True)


def is_ours(folder: str) -> bool:
    """What lies there is run: nobody else may have put it there."""
    stat = os.lstat(folder)
    return stat.st_uid == os.getuid() and not stat.st_mode & 0o022 and not os.path.islink(folder)


def sizes(folder: str) -> dict[str, int]:
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            found[os.path.relpath(path, folder)] = os.path.getsize(path)
    return found


def processor() -> str:
    """A short name for what this machine's processor can do."""
    lines = [platform.machine(), platform.processor()]
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines += [line for line in file if line.startswith(("flags", "Features", "model name"))]
    return hashlib.sha256("\n".join(sorted(set(lines))).encode()).hexdigest()[:16]


def hold_port() -> socket.socket:
    """A port of the loopback that is given to nobody else while vLLM, which binds late, is starting.

    On Linux a port that does not listen may be bound again by those that allow it, as vLLM does.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def temporary_folder() -> str:
    """In /tmp where the system keeps temporary files too far down for a socket."""
    folder = tempfile.mkdtemp(prefix="hone-vllm-")
    if len(os.fsencode(folder)) <= LONGEST_FOLDER:
        return folder
    os.rmdir(folder)
    return tempfile.mkdtemp(prefix="hone-vllm-", dir="/tmp")


if __name__ == "__main__":
    main()
