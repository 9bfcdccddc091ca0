from __future__ import annotations

import threading

import pytest

from engine.core.errors import InvalidArgument, NotFinite, Unavailable
from engine.core.pacing import APART_EVERY
from tests.fakes.loop import GARBAGE, VOCAB, ToyEngine, ToyModel, text_of


@pytest.mark.parametrize("prompt", [[VOCAB], [1, -1], [10**9]])
def test_a_token_id_out_of_the_vocabulary_is_refused(prompt: list[int]) -> None:
    """It would fail a step, or read another row of the embedding."""
    engine = ToyEngine()
    wrong = prompt[-1]
    with pytest.raises(InvalidArgument) as caught:
        engine.ask(prompt, repetition_penalty=1.5)
    assert str(caught.value) == f"INVALID_ARG: input_ids: {wrong}, must be a token id in [0, {VOCAB - 1}]"
    assert not engine.step()


def test_a_bias_out_of_the_vocabulary_is_refused() -> None:
    engine = ToyEngine()
    with pytest.raises(InvalidArgument, match=r"^INVALID_ARG: logit_bias: .*must be a token id in \[0, "):
        engine.ask([1], logit_bias=((VOCAB, 1.0),))


@pytest.mark.parametrize("operation", ["verify", "prefill"])
def test_a_failed_step_ends_its_own_requests_and_no_others(operation: str) -> None:
    engine = ToyEngine(slots=2, chunk=4)
    decoding = engine.ask([1], max_tokens=20)
    engine.step()
    prefilling, waiting = engine.ask([2] * 20), engine.ask([3])
    engine.step()
    # Both in one call fail first, and are then tried apart.
    engine.runner.faults = {name: MemoryError("no memory") for name in ("both", operation)}
    engine.step()
    failed, well = (decoding, prefilling) if operation == "verify" else (prefilling, decoding)
    assert failed.error == "INTERNAL: engine: the step failed (MemoryError); the request was ended"
    assert not well.done
    engine.run()
    assert [str(fault) for fault in engine.faults] == ["no memory"] * 2
    assert well.errors == waiting.errors == []
    for client, prompt in ((well, [1] if well is decoding else [2] * 20), (waiting, [3])):
        assert client.text == text_of(ToyModel().greedy(prompt, client.tokens))
    assert engine.counter("requests_rejected_total", reason="internal") == 1


def test_a_step_whose_parts_run_apart_ends_nobody() -> None:
    engine = ToyEngine(slots=2, chunk=4)
    first = engine.ask([1], max_tokens=20)
    engine.step()
    second = engine.ask([2] * 20)
    engine.runner.faults["both"] = MemoryError("too much at once")
    engine.run()
    assert [str(fault) for fault in engine.faults] == ["too much at once"]
    for client, prompt in ((first, [1]), (second, [2] * 20)):
        assert client.text == text_of(ToyModel().greedy(prompt, client.tokens))


def test_between_two_tokens_of_a_stream_there_is_one_chunk() -> None:
    """Also where the two are timed: the chunk is the first then."""
    engine = ToyEngine(slots=2, chunk=4, capacity=256)
    engine.ask([1], max_tokens=100)
    engine.step()
    engine.step()
    engine.ask([2] * 4 * 2 * APART_EVERY)
    engine.runner.calls.clear()
    for _ in range(2 * APART_EVERY):
        engine.step()
    assert engine.runner.calls == ([*["verify"] * (APART_EVERY - 1), "prefill", "verify"]) * 2


def test_a_failed_move_ends_the_requests_of_its_step() -> None:
    engine = ToyEngine(slots=2, chunk=64, min_reuse=4)
    running = engine.ask([1] * 10, max_tokens=20)
    engine.step()
    newcomer, waiting = engine.ask([*[1] * 8, 2]), engine.ask([*[1] * 8, 3])
    engine.runner.faults["copy"] = RuntimeError("bad copy")
    engine.step()
    assert [running.done, newcomer.done, waiting.done] == [True, True, False]
    engine.run()
    assert waiting.text == text_of(ToyModel().greedy([*[1] * 8, 3], 8))


def test_what_a_failed_move_wrote_is_never_reused() -> None:
    """What slot 0 held was to be saved in slot 1, which holds garbage now."""
    engine = ToyEngine(slots=2, chunk=64, min_reuse=2)
    prompt = [1, 2, 3, 4, 5, 6]
    engine.ask(prompt, max_tokens=1)
    engine.run()
    engine.runner.faults["copy"] = RuntimeError("bad copy")
    failed = engine.ask([1, 2, 3, 9, 9])
    engine.run()
    assert failed.error.startswith("INTERNAL: engine: ")
    again = engine.ask([*prompt, 7, 7])
    engine.run()
    assert again.text == text_of(ToyModel().greedy([*prompt, 7, 7], 8))


def test_logits_that_are_not_finite_end_the_request() -> None:
    engine = ToyEngine()
    client = engine.ask([1], max_tokens=20)
    engine.step()
    engine.runner.poison = {0}
    engine.step()
    assert client.error == str(NotFinite())
    engine.runner.poison = set()
    after = engine.ask([1], max_tokens=4)
    engine.run()
    assert after.text == text_of(ToyModel().greedy([1], 4))


def test_what_a_failed_step_wrote_is_never_reused() -> None:
    engine = ToyEngine(slots=1, chunk=4, min_reuse=2)
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    failed = engine.ask(prompt)
    engine.step()
    engine.runner.faults["prefill"] = RuntimeError("x")
    engine.step()
    assert failed.done
    engine.runner.rows[:] = GARBAGE
    again = engine.ask(prompt)
    engine.run()
    assert again.text == text_of(ToyModel().greedy(prompt, 8))


def running_thread(engine: ToyEngine) -> threading.Thread:
    thread = threading.Thread(target=engine.loop.run, daemon=True)
    thread.start()
    return thread


def test_requests_of_many_threads_are_all_answered() -> None:
    engine = ToyEngine(slots=3, max_queue=1000)
    sender = threading.Thread(target=engine.outbox.run, daemon=True)
    sender.start()
    loop = running_thread(engine)

    def ask(first: int) -> None:
        for second in range(20):
            engine.ask([first, second], max_tokens=5)

    threads = [threading.Thread(target=ask, args=[first]) for first in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    while engine.loop.keys():
        pass
    engine.loop.stop()
    loop.join(60)
    engine.outbox.close()
    sender.join(60)
    assert len({client.key for client in engine.clients}) == 80
    assert [client.finals for client in engine.clients] == [1] * 80
    assert all(client.tokens == 5 for client in engine.clients)
    assert not engine.faults


def test_stop_leaves_nothing() -> None:
    engine = ToyEngine(slots=2)
    clients = [engine.ask([start + 1], max_tokens=50) for start in range(5)]
    engine.step()
    engine.loop.stop()
    engine.loop.run()
    engine.outbox.send_pending()
    for client in clients:
        assert client.error == "UNAVAILABLE: server: stopped before the answer was complete"
        assert (client.finals, client.late) == (1, 0)
    assert engine.loop.keys() == []
    assert len(engine.scheduler.slots.free) == 2
    with pytest.raises(Unavailable, match=r"^UNAVAILABLE: server: stopping, accepts no more requests$"):
        engine.ask([1])


def test_an_idle_loop_wakes_up_to_stop() -> None:
    engine = ToyEngine()
    thread = running_thread(engine)
    engine.loop.stop()
    thread.join(30)
    assert not thread.is_alive()


def test_a_bug_in_the_loop_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ToyEngine()
    client = engine.ask([1])

    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(engine.scheduler, "schedule", broken)
    engine.loop.run()
    engine.outbox.send_pending()
    assert client.error.startswith("UNAVAILABLE: server: stopped")
    assert [type(fault) for fault in engine.faults] == [ZeroDivisionError]
    with pytest.raises(Unavailable):
        engine.ask([2])
