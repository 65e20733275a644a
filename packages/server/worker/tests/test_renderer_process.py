"""The renderer as the server runs it: a process, a ready line, a key, JSON over loopback."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from engine_process import LIMIT
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from hone_worker.render.base import load
from hone_worker.renderer import Service

WORKER = Path(__file__).parents[1]
BASE = str(Path(__file__).parents[4] / "models" / "hone-2048-1m")


def start(*options: str) -> subprocess.Popen:
    environment = {
        **os.environ,
        "PYTHONPATH": str(WORKER),
        "HONE_WORKER_KEY": "secret",
        "HONE_BOOT_ID": "boot-1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "hone_worker.renderer", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="module")
def process():
    child = start("--base", BASE)
    yield child
    child.kill()
    child.wait()


@pytest.fixture(scope="module")
def client(process):
    line = json.loads(process.stdout.readline())
    assert line["ready"] is True and line["boot"] == "boot-1"
    with httpx.Client(
        base_url=f"http://127.0.0.1:{line['port']}", headers={"Authorization": "Bearer secret"}, timeout=LIMIT
    ) as client:
        yield client


def test_needs_the_key(client):
    assert httpx.get(client.base_url.join("/info"), timeout=LIMIT).status_code == 401


def test_a_turn_from_messages_to_the_next_prompt(client):
    info = client.get("/info").json()
    assert info["renderer"] == "lean" and info["bridges"] is True and info["max_model_len"] == 8192
    messages = [{"role": "user", "content": "Say a word."}]
    prompt = client.post("/render", json={"messages": messages}).json()["ids"]
    pieces = client.post("/tokens", json={"ids": prompt}).json()["tokens"]
    assert [piece["token"] for piece in pieces] == ["<|user|>", "Say", " a", " word", ".", "<|assistant|>"]
    assert all(bytes(piece["bytes"]).decode() == piece["token"] for piece in pieces)
    vocabulary = client.post("/tokens", json={"ids": list(range(info["vocab_size"]))}).json()["tokens"]
    (yes,) = [i for i, piece in enumerate(vocabulary) if piece["token"] == "yes"]
    completion = [yes, info["stop_token_ids"][0]]
    assert client.post("/parse", json={"ids": completion}).json() == {
        "content": "yes",
        "reasoning": None,
        "tool_calls": [],
    }
    body = {
        "prompt_ids": prompt,
        "completion_ids": completion,
        "messages": [{"role": "user", "content": "why"}],
    }
    bridged = client.post("/bridge", json=body).json()["ids"]
    assert bridged[: len(prompt) + 2] == prompt + completion
    whole = [*messages, {"role": "assistant", "content": "yes"}, *body["messages"]]
    assert bridged == client.post("/render", json={"messages": whole}).json()["ids"]
    assert client.get("/health").json()["status"] == "ok"


def test_a_schema_that_engines_can_hold(client):
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"type": "number"}},
    }
    assert client.post("/schema", json={"schema": schema}).json() == {"supported": True, "schema": schema}


def test_a_long_text_holds_nobody_up(client):
    """4 MB are tokenised while others are answered: before, they waited to the end of it."""
    ended = threading.Event()

    def long() -> None:
        headers = {"Authorization": "Bearer secret"}
        body = {"messages": [{"role": "user", "content": "Say a word. " * 350_000}]}
        httpx.post(client.base_url.join("/render"), json=body, headers=headers, timeout=LIMIT)
        ended.set()

    thread = threading.Thread(target=long)
    thread.start()
    answered = 0
    while not ended.is_set():
        body = {"messages": [{"role": "user", "content": "Say a word."}]}
        assert len(client.post("/render", json=body).json()["ids"]) == 6
        assert client.get("/health").json()["status"] == "ok"
        answered += 1
    thread.join()
    assert answered > 20


def test_tells_how_much_of_a_text_a_token_may_be(client):
    info = client.get("/info").json()
    text = "".join(chr(32 + i % 95) for i in range(5000)) + "aeiou" * 1000 + "éあ😀" * 100
    ids = client.post("/encode", json={"text": text}).json()["ids"]
    seen = sum(1 for c in text if "!" <= c <= "~")
    assert 1 <= seen / info["longest_token"] <= len(ids)


def test_a_plain_prompt_is_what_the_tokenizer_makes_of_it(client):
    text = "Say a word.\n<|user|>é"
    ids = client.post("/encode", json={"text": text}).json()["ids"]
    pieces = client.post("/tokens", json={"ids": ids}).json()["tokens"]
    assert b"".join(bytes(piece["bytes"]) for piece in pieces).decode() == text
    # No template, and a special token that the text spells is that token, as in vLLM.
    assert [piece["token"] for piece in pieces].count("<|user|>") == 1
    assert client.post("/encode", json={"text": ""}).json() == {"ids": []}
    refused = client.post("/encode", json={"text": ["a"]})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "text"


@pytest.mark.parametrize(
    ("path", "body", "param", "said"),
    [
        ("/render", {"messages": []}, "messages", "at least one"),
        ("/render", {"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "wizard"),
        ("/render", {"messages": [{"role": "user"}]}, "messages[0].content", "string"),
        (
            "/render",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
            "image_url",
        ),
        (
            "/render",
            {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "web_search"}]},
            "tools[0].type",
            "web_search",
        ),
        (
            "/render",
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
            "JSON",
        ),
        ("/render", {"messages": [{"role": "tool", "content": "4"}]}, "messages[0].tool_call_id", "call"),
        ("/render", {"messages": [{"role": "user", "content": "x"}], "colour": 1}, "colour", "colour"),
        (
            "/bridge",
            {"prompt_ids": [99999], "completion_ids": [], "messages": [{"role": "user", "content": "x"}]},
            "prompt_ids",
            "99999",
        ),
        ("/parse", {"ids": [-1]}, "ids", "-1"),
        (
            "/schema",
            {"schema": {"type": "array", "uniqueItems": True}},
            "response_format.json_schema.schema",
            "uniqueItems",
        ),
        ("/schema", {"schema": ["string"]}, "schema", "object"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(client, path, body, param, said):
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param and said in error["message"]


def test_torch_is_not_in_the_process(client, process):
    """What is mapped into the process, not what Python says of itself."""
    maps = Path(f"/proc/{process.pid}/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    mapped = maps.read_text()
    assert "tokenizers" in mapped  # the check sees native libraries
    assert "libtorch" not in mapped


def test_ends_with_its_parent():
    child = start("--base", BASE)
    assert json.loads(child.stdout.readline())["ready"] is True
    child.stdin.close()
    assert child.wait(timeout=LIMIT) == 0


def test_says_why_it_cannot_start():
    child = start("--base", BASE, "--renderer", "gpt-oss")
    _, errors = child.communicate(timeout=LIMIT)
    assert child.returncode == 1
    assert json.loads(errors.strip().splitlines()[-1])["error"]["code"] == "renderer_mismatch"


def test_a_folder_may_not_name_code_to_run(tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((Path(BASE) / name).read_bytes())
    (tmp_path / "hone.json").write_text(
        '{"renderer": "custom", "renderer_options": {"import_path": "evil.Code"}}'
    )
    child = start("--base", str(tmp_path))
    _, errors = child.communicate(timeout=LIMIT)
    assert child.returncode == 1
    assert json.loads(errors.strip().splitlines()[-1])["error"]["code"] == "unknown_renderer"


def test_a_tokenizer_that_begins_texts_begins_plain_prompts(tmp_path):
    folder = tmp_path / "begins"
    shutil.copytree(BASE, folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    begin = tokenizer.token_to_id("<|endoftext|>")
    tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", begin)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    service = Service(load(str(folder)))
    assert service.encode("Say") == [begin, *Service(load(BASE)).encode("Say")]
