"""Servers are started by processes that speak gRPC meanwhile."""

from __future__ import annotations

import subprocess
import sys

from tests.paths import ROOT

_SPEAKS = """
import subprocess, sys, threading
from concurrent.futures import ThreadPoolExecutor
from loadtest.launched import die_with_us
import grpc

class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

server = grpc.server(ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((Echo(),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
over = threading.Event()

def speak():
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/a/b")
        while not over.is_set():
            call(b"x")

threads = [threading.Thread(target=speak) for _ in range(4)]
for thread in threads:
    thread.start()
command = [sys.executable, "-I", "-S", "-c", ""]
codes = [subprocess.Popen(command, preexec_fn=die_with_us).wait() for _ in range(200)]
over.set()
for thread in threads:
    thread.join()
sys.exit(f"ended with {set(codes)}" if any(codes) else 0)
"""


def test_a_process_that_speaks_grpc_starts_others_whole() -> None:
    """With gRPC's handlers of fork some children end with signal 6, or the program hangs."""
    command, root = [sys.executable, "-c", _SPEAKS], ROOT
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
