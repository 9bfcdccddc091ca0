"""Load on a server of this machine, and what it shows. `python -m loadtest.bench` is the benchmark."""

import os

# A process that speaks gRPC starts servers. With gRPC's own handlers of fork the child ended now and then
# with signal 6 before it was one (3 of 250, none of 500 without them). Read when grpc is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
