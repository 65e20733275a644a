"""In a vLLM's PYTHONPATH: while the file HONE_TEST_SILENCE exists, it answers completions with 200 and no token.

vLLM has been seen to do so by itself; how to make it do so on purpose is not known. Hone takes no --middleware for
vLLM, so this stands around the application that is given to uvicorn.
"""

import json
import os
import sys

NOTHING = json.dumps(
    {
        "id": "cmpl-nothing",
        "object": "text_completion",
        "created": 0,
        "model": "",
        "choices": [
            {
                "index": 0,
                "text": "",
                "finish_reason": "length",
                "token_ids": [],
                "logprobs": {
                    "token_logprobs": [],
                    "tokens": [],
                    "text_offset": [],
                    "top_logprobs": [],
                },
            }
        ],
    }
)


class Silence:
    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        asks = scope["type"] == "http" and scope["path"] == "/v1/completions"
        if not asks or not os.path.exists(os.environ["HONE_TEST_SILENCE"]):
            await self.app(scope, receive, send)
            return
        body = b""
        more = True
        while more:
            part = await receive()
            body += part.get("body", b"")
            more = part.get("more_body", False)
        streams = json.loads(body).get("stream", False)
        kind, text = (
            ("text/event-stream", f"data: {NOTHING}\n\ndata: [DONE]\n\n")
            if streams
            else ("application/json", NOTHING)
        )
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})


if any(part.endswith("hone_vllm.py") for part in sys.orig_argv):
    import uvicorn

    configure = uvicorn.Config.__init__

    def around(self, app, *args, **kwargs):
        configure(self, Silence(app), *args, **kwargs)

    uvicorn.Config.__init__ = around
