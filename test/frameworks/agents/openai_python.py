"""openai-python over chat completions. The environment says where: OPENAI_BASE_URL, OPENAI_API_KEY, MODEL."""

import json
import os
import sys

from openai import OpenAI

house = json.loads(sys.argv[1])
streamed = sys.argv[2] == "streamed"
client = OpenAI()


def result(name: str, arguments: str) -> str:
    where = json.loads(arguments)["where" if name == "look" else "what"]
    try:
        return house["found"][where]
    except KeyError:
        return f"Error: There is no {where}."


messages = [
    {"role": "system", "content": house["instructions"]},
    {"role": "user", "content": house["question"]},
]
while True:
    ask = {"model": os.environ["MODEL"], "messages": messages, "tools": house["tools"]}
    if streamed:
        with client.chat.completions.stream(**ask) as stream:
            message = stream.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(**ask).choices[0].message
    messages.append(message)
    if not message.tool_calls:
        print(message.content or "", end="")
        break
    for call in message.tool_calls:
        content = result(call.function.name, call.function.arguments)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
