"""One token over HTTP: generate_http.py HOST:PORT MODEL [HEADER], the header's value in HALIMEDE_API_KEY."""

import json
import os
import sys
import urllib.request

address, model, *header = sys.argv[1:]
request = urllib.request.Request(
    f"http://{address}/v2/models/{model}/generate",
    data=json.dumps({"text_input": "Good morning", "max_tokens": 1}).encode(),
    headers=dict.fromkeys(header, os.environ["HALIMEDE_API_KEY"]),
)
with urllib.request.urlopen(request, timeout=60) as response:
    answer = json.load(response)
if "text_output" not in answer:
    sys.exit(f"{model} at {address}: no text_output in {answer}")
print(f"{model} over HTTP: {answer['text_output']!r}")
