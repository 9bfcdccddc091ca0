"""Requests become streams, or are refused for what this model cannot do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.batch import Sequence
from engine.beams import BeamSearch
from engine.errors import InvalidArgument
from engine.outbox import Responder
from engine.request import Request
from engine.sampler import TokenChooser, check_ids, check_prompt
from engine.scheduler import Scheduler
from engine.stops import TextStream
from engine.stream import Stream
from engine.tokens import TokenTable, Vocabulary


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder reads ids below `vocab`. Answers begin after `decoder_start`, if the model has one and the
    request names no other. With `leading_space` they are spelled with one space too many.
    """

    vocab: int
    decoder_start: int | None
    leading_space: bool = False


class Intake:
    """Turns requests into streams; `vocab` is the decoder's."""

    def __init__(self, scheduler: Scheduler, table: TokenTable, vocab: int, encoder: Encoder | None) -> None:
        self._scheduler = scheduler
        self._vocabulary = Vocabulary(vocab, scheduler.eos, table)
        self._encoder = encoder

    def open(self, key: int, request: Request, responder: Responder, handle: Callable[[int], str]) -> Stream:
        """Raises InvalidArgument for what the model cannot do."""
        self._scheduler.check(request)
        check_ids(request.sampling, self._vocabulary.size)
        check_prompt(request.prompt, self._encoder.vocab if self._encoder else self._vocabulary.size)
        given = self._given(request)
        words = tuple(word.encode() for word in request.sampling.stop_words)
        drop_space = self._encoder is not None and self._encoder.leading_space
        sequence = Sequence(key, request, TextStream(self._vocabulary.table, words, drop_space), list(given))
        chooser, search = self._decider(request, given)
        return Stream(sequence, chooser, search, responder, handle(key))

    def _decider(
        self, request: Request, given: tuple[int, ...]
    ) -> tuple[TokenChooser | None, BeamSearch | None]:
        sampling = request.sampling
        longest = min(len(given) + sampling.max_tokens, self._scheduler.slots.capacity)
        if sampling.num_beams > 1:
            return None, BeamSearch(sampling, given, longest, self._vocabulary)
        return TokenChooser(sampling, given, longest, self._vocabulary), None

    def _given(self, request: Request) -> tuple[int, ...]:
        """The tokens that the decoder begins with."""
        start = request.sampling.decoder_start_token_id
        if self._encoder is None:
            if start is not None:
                problem = f"{start}, must be left out: this model has no encoder"
                raise InvalidArgument("decoder_start_token_id", problem)
            return request.prompt
        if start is None:
            start = self._encoder.decoder_start
        if start is None:
            raise InvalidArgument("decoder_start_token_id", "left out, must be given: this model names none")
        return (start,)
