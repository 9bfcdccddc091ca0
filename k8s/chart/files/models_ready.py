"""Exit code 0 where the server on this machine has every named model ready: models_ready.py NAME..."""

import http.client
import sys

PORT = 8000


def is_ready(name: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=2)
    try:
        connection.request("GET", f"/v2/models/{name}/ready")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


missing = [name for name in sys.argv[1:] if not is_ready(name)]
if missing:
    sys.exit(f"not ready: {', '.join(missing)}")
