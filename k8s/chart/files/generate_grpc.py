"""One token over gRPC: generate_grpc.py HOST:PORT MODEL [--header NAME] [--ca FILE] [--cert FILE --key FILE].

The header's value is in HALIMEDE_API_KEY. Triton adds its own prefix to the header's name.
"""

import argparse
import os
import queue
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

PREFIX = "triton-grpc-protocol-"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("model")
    for name in ("--header", "--ca", "--cert", "--key"):
        parser.add_argument(name)
    return parser.parse_args()


def inputs() -> list[triton.InferInput]:
    text = triton.InferInput("text_input", [1, 1], "BYTES")
    text.set_data_from_numpy(np.array([[b"Good morning"]], dtype=np.object_))
    tokens = triton.InferInput("max_tokens", [1, 1], "INT32")
    tokens.set_data_from_numpy(np.array([[1]], dtype=np.int32))
    return [text, tokens]


def main() -> None:
    options = parse()
    answers: queue.Queue[tuple[triton.InferResult, Exception | None]] = queue.Queue()
    headers = {f"{PREFIX}{options.header}": os.environ["HALIMEDE_API_KEY"]} if options.header else None
    secure = {"root_certificates": options.ca, "private_key": options.key, "certificate_chain": options.cert}
    read = {name: file if file and Path(file).exists() else None for name, file in secure.items()}
    with triton.InferenceServerClient(options.address, ssl=bool(options.ca), **read) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
        client.async_stream_infer(options.model, inputs())
        result, error = answers.get(timeout=60)
        client.stop_stream()
    if error is not None:
        sys.exit(f"{options.model} at {options.address}: {error}")
    print(f"{options.model} over gRPC: {result.as_numpy('text_output').flat[0].decode()!r}")


main()
