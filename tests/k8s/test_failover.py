"""Three real servers behind nginx and Envoy: restarted one by one and killed, under load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.k8s.balancers import BALANCERS, balancing
from tests.k8s.failover_account import Account, account, served
from tests.k8s.failover_play import Fleet, Play, fleet, play

# Minutes of real restarts; the limit is there for a machine that is shared.
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]
Accounts = Mapping[Play, list[Account]]


def played(balancer: str, replicas: Fleet, folder: Path, *plays: Play) -> Accounts:
    """For each play the accounts of gRPC and HTTP."""
    with balancing(balancer, folder / balancer, replicas.servers) as found:
        outcomes = {one: play(one, replicas, found) for one in plays}
    log = served(found.access_log)
    return {
        one: [account(requests, log, outcome.death) for requests in outcome.requests.values()]
        for one, outcome in outcomes.items()
    }


@pytest.fixture(scope="module")
def accounts(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Accounts:
    """Both balancers in front of one fleet: a rolling restart that they learn of late, and a kill."""
    folder = tmp_path_factory.mktemp("failover")
    plays = (Play.LATE, Play.KILL)
    with fleet(folder, 3) as replicas:
        found = [played(name, replicas, folder, *plays) for name in BALANCERS]
    return {one: [account for accounts in found for account in accounts[one]] for one in plays}


def test_a_rolling_restart_loses_no_request(accounts: Accounts) -> None:
    restarted = accounts[Play.LATE]
    assert len(restarted) == 4, restarted  # two balancers, two protocols
    for found in restarted:
        assert found.sent > 10, restarted
        assert found.completed == found.sent, restarted


def test_a_kill_fails_streams_past_their_first_token_on_that_server_alone(accounts: Accounts) -> None:
    killed = accounts[Play.KILL]
    assert len(killed) == 4, killed
    for found in killed:
        assert found.completed, killed
        assert found.failed_otherwise == 0, killed
        assert found.failed_after_first <= found.on_victim_streaming, killed
    # It was killed with its slots and its queue in use, and both kinds of requests noticed.
    assert sum(account.failed_after_first for account in killed) > 0, killed
    assert sum(account.moved + account.retried for account in killed) > 0, killed


def test_without_the_hook_requests_are_refused(tools: Path, tmp_path: Path) -> None:
    """A restart again, so that the tests before are known to be able to fail."""
    with fleet(tmp_path, 2) as replicas:
        found = played("nginx", replicas, tmp_path, Play.CARELESS)
    assert sum(sum(account.errors.values()) for account in found[Play.CARELESS]) > 0, found
