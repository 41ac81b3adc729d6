"""How a request becomes a whole answer, text or events: through the layers, and folded by one assembler."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, cast

from .costs import attempts_of
from .exceptions import LLMProviderError, PluginError
from .failures import MISTAKES, error_data
from .layers.pricing import Priced
from .life import Life
from .parameters import report_left_out
from .pipeline import Assembler, Handler, WholeHandler, attach
from .text_stream import Outcome
from .types import LLMResponse, Request, StreamEvent, StreamEventType

_TOKEN: Final = StreamEventType.TOKEN


class Calls:
    """Runs requests through a handler and gives whole answers, text or events.

    Args:
        provider: the provider's name.
        former: in whose place these come: a call that it was asked for, and that has not begun, begins here.

    Attributes:
        handler: what answers a request: the provider's `generate` with its layers around it.
        whole: the same for whole answers.
        life: the provider's life, which each call is a part of.
        priced: what gives costs to the usages, where that is to be done here: as the outermost layer it would see no
            more than this class does, and cost a step for each piece of a stream.
    """

    def __init__(
        self,
        provider: str,
        handler: Handler,
        whole: WholeHandler,
        life: Life,
        priced: Priced | None = None,
        former: Calls | None = None,
    ) -> None:
        self._heir: Calls | None = None
        if former is not None:
            former._heir = self
        self.priced = priced
        self._provider = provider
        self.handler = handler
        self.whole = whole
        self.life = life

    async def answer(self, request: Request) -> LLMResponse:
        """The whole answer."""
        if self._heir is not None:
            return await self._heir.answer(request)
        life = self.life
        if not life.count():
            await life.begin()
        assembler: Assembler | None = None
        try:
            events = await self.whole(request)
            assembler = Assembler(request, self._provider)
            feed = assembler.feed
            for event in events:
                feed(event)
            return self._finish(request, assembler)
        except LLMProviderError as error:
            self._attach(error, request, assembler or Assembler(request, self._provider))
            raise
        except AssertionError:
            raise
        except Exception as error:
            raise self.bug(error) from error
        finally:
            if life.discount():
                await life.settle()

    async def text(self, request: Request, outcome: Outcome) -> AsyncGenerator[str, None]:
        """The answer's text, piece by piece; the whole answer goes into `outcome` at the end."""
        if self._heir is not None:
            async with aclosing(self._heir.text(request, outcome)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        life = self.life
        if not life.count():
            await life.begin()
        outcome.under_way = True
        assembler = Assembler(request, self._provider)
        add_text, feed = assembler.add_text, assembler.feed
        try:
            async with aclosing(cast(Any, self.handler(request))) as events:
                async for event in events:
                    if event.type is _TOKEN:
                        add_text(event.data)
                        yield event.data
                    else:
                        feed(event)
            outcome.response = self._finish(request, assembler)
        except LLMProviderError as error:
            self._attach(error, request, assembler)
            raise
        except AssertionError:
            raise
        except Exception as error:
            raise self.bug(error) from error
        finally:
            if life.discount():
                await life.settle()
            outcome.under_way = False

    async def events(self, request: Request) -> AsyncGenerator[StreamEvent, None]:
        """The answer's events, with DONE and the whole answer at the end; or ERROR, where the backend failed.

        Raises:
            LLMProviderError: of a class in `failures.MISTAKES`: no failure of the backend.
        """
        if self._heir is not None:
            async with aclosing(self._heir.events(request)) as found:
                async for event in found:
                    yield event
            return
        life = self.life
        if not life.count():
            await life.begin()
        assembler = Assembler(request, self._provider)
        add_text, push, priced = assembler.add_text, assembler.push, self.priced
        events: Any = None
        try:
            # Handlers are generators by contract, so that they can be closed; only their type is the wider one.
            events = self.handler(request)
            async for event in events:
                if event.type is _TOKEN:
                    add_text(event.data)
                    yield event
                else:
                    if priced is not None:
                        priced.see(request, event)
                    for shown in push(event):
                        yield shown
            for shown in assembler.flush():
                yield shown
            yield StreamEvent(StreamEventType.DONE, self._finish(request, assembler))
        except (*MISTAKES, AssertionError):
            raise
        except Exception as error:
            ours = error if isinstance(error, LLMProviderError) else self.bug(error)
            self._attach(ours, request, assembler)
            yield StreamEvent(StreamEventType.ERROR, error_data(ours))
        finally:
            try:
                if events is not None:
                    await events.aclose()
            finally:
                if life.discount():
                    await life.settle()

    def _finish(self, request: Request, assembler: Assembler) -> LLMResponse:
        response = assembler.response()
        if self.priced is not None:
            self.priced.settle(request, response)
        if request.given and "params" not in response.metadata:
            report_unsaid(request, response)
        return response

    def _attach(self, error: LLMProviderError, request: Request, assembler: Assembler) -> None:
        """Put what came of the answer into the error that ended it, with its costs."""
        attach(error, assembler)
        told = attempts_of(error.response.metadata) if isinstance(error.response, LLMResponse) else []
        if told:
            # What a stream has told of already; some of it may be the error's own.
            own = [item for item in error.failed_attempts or () if not any(item is other for other in told)]
            error.failed_attempts = [*told, *own]
        if self.priced is not None:
            self.priced.fail(request, error)

    def bug(self, error: Exception) -> LLMProviderError:
        """What comes out of a provider and is no error of ours: a mistake in its code. (An assertion is a test's.)"""
        return PluginError(
            f"the provider's own code failed: {type(error).__name__}: {error}", provider=self._provider, code="bug"
        )


def report_unsaid(request: Request, response: LLMResponse) -> None:
    """Report given parameters of which the provider did not say what became of them, in the way that was asked for."""
    left_out = dict.fromkeys(sorted(request.given), "the provider does not say whether it took it")
    response.metadata["params"] = {"sent": {}, "left_out": left_out}
    report_left_out(request, left_out)
