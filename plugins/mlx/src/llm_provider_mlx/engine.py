"""A loaded model and the calls that share it: they join and leave one continuous run on MLX's thread."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from providers.exceptions import (
    LLMProviderConfigurationError,
    LLMProviderError,
    LLMProviderServerError,
    LLMProviderTokenLimitError,
    ProviderClosedError,
)
from providers.local import (
    TOOL_MARKS,
    AnswerReader,
    Detokenizers,
    Grammars,
    Thinking,
    ToolCallStream,
    Work,
    answer_room,
)
from providers.profiles import ModelProfile

from .calls import MarkedCalls
from .choice import Chooser, Mask
from .codec import Job
from .decoders import Decoder, decoder
from .library import Library, library
from .load import Loaded, find_folder, load_model
from .pace import Pace
from .row import Row
from .settings import NAME, MLXSettings
from .template import Template
from .thread import MLXThread, mlx_thread

# A text this many times longer than the context is judged by its beginning alone: 20 MB take a tokenizer seconds.
_CERTAINLY_LONG: Final = 16
_HINT: Final = "raise context_length"


class Engine:
    """A loaded model, for its provider. Dropping it frees the model.

    Args:
        name: the model.
        settings: how to load it.
        profile: what is known of it.

    Attributes:
        pid: the process that it belongs to.
        label: the name that answers bear.
        context: tokens of prompt and answer together.
        template: the chat template.

    Raises:
        LLMProviderError: the model cannot be loaded; says why and what to do.
    """

    def __init__(self, name: str, settings: MLXSettings, profile: ModelProfile) -> None:
        self._thread = mlx_thread()
        self.pid = os.getpid()
        self.label = name
        # What is imported lives on MLX's thread; what is fetched may take minutes, and other models have to go on.
        lib = self._thread.ask(library)
        folder = find_folder(lib, name, settings, profile)
        self._run = self._thread.ask(lambda: _load(lib, folder, settings, name))
        self.context = self._run.loaded.context
        self.template = self._run.template
        self._release = weakref.finalize(self, _release, self._run, self._thread)
        self._release.atexit = False

    def start(self, job: Job, *, quiet: bool, timeout: float | None) -> Work:
        """Begin to answer, as soon as there is room; the pieces are lists of events."""
        return self._begin(Work(None, provider=NAME, quiet=quiet, timeout=timeout, job=job))

    def count(self, job: Job) -> Work:
        """Begin to count the tokens of a prompt; the one piece is their number."""
        run = self._run
        return self._begin(Work(lambda work: _count(run, job, work), provider=NAME, quiet=True, timeout=None))

    def _begin(self, work: Work) -> Work:
        run = self._run
        if run.stopping or not self._thread.wake(run, lambda: run.waiting.append(work)):
            raise ProviderClosedError("this provider was closed; create a new one", provider=NAME)
        return work

    def stop(self) -> None:
        """End what runs and what waits, give the memory back; harmless when repeated. It blocks for the step that is
        under way."""
        if self.pid == os.getpid():
            self._run.stopping = True
            self._release.detach()
            self._thread.ask(self._run.end)


def _load(lib: Library, folder: Path, settings: MLXSettings, name: str) -> Run:
    loaded = load_model(lib, folder, settings)
    return Run(lib, loaded, Template(loaded, settings), settings, name)


def _release(run: Run, thread: MLXThread) -> None:
    run.stopping = True
    if thread.pid == os.getpid():
        thread.post(run.end)


def _count(run: Run, job: Job, work: Work) -> None:
    work.push(len(run.read(job, limited=False)[0]))


class Run:
    """The calls of one model, on MLX's thread. Only `stopping` and `waiting` are touched from elsewhere.

    Args:
        lib: mlx and mlx-lm.
        loaded: the model.
        template: its chat template.
        settings: the provider's.
        label: the name that answers bear.

    Attributes:
        waiting: calls that have not begun, in their order.
        stopping: whether all is to end. The name is that of `Workers`, whose place it takes for a `Work`.
        silent: whether nobody is told.
    """

    def __init__(self, lib: Library, loaded: Loaded, template: Template, settings: MLXSettings, label: str) -> None:
        self.loaded, self.template = loaded, template
        self.waiting: deque[Work] = deque()
        self.stopping = self.silent = False
        self._lib, self._settings, self._label = lib, settings, label
        self._chooser = Chooser(lib, loaded.width, loaded.eos)
        self._texts = Detokenizers(loaded.inner, keep={*TOOL_MARKS, *template.marks})
        self._grammars: Grammars | None = None
        self._decoder: Decoder | None = None
        self._pace = Pace(settings.prefill_step, on_cpu=lib.on_cpu)
        self._rows: dict[int, Row] = {}

    # --- turns

    def step(self) -> bool:
        """One token for each call; false where nothing is left to do."""
        try:
            return self._step()
        except BaseException as error:
            # None may wait for ever, whatever it was; and the thread is there for all models.
            self._fail(_failed(error))
            while self.waiting:
                self.waiting.popleft().finish(_failed(error))
            return False

    def _step(self) -> bool:
        if self.stopping:
            self.end()
            return False
        for number, row in list(self._rows.items()):
            if row.work.unwanted:
                self._drop(number)
                row.work.finish()
        while self.waiting and len(self._rows) < self._limit:
            self._admit(self.waiting.popleft())
        if self._rows:
            self._advance()
        elif not self.waiting:
            self._idle()
        return bool(self._rows or self.waiting)

    @property
    def _limit(self) -> int:
        if self._decoder is None:
            self._decoder = decoder(self._lib, self.loaded, self._settings.n_parallel, self._pace)
        return self._decoder.limit

    def _admit(self, work: Work) -> None:
        if not isinstance(work.job, Job):
            work.perform(cast(Any, self))
            return
        if not work.begin(cast(Any, self)):
            work.finish()
            return
        try:
            self._insert(work, work.job)
        except BaseException as error:
            work.finish(error if isinstance(error, LLMProviderError) else _failed(error))

    def _advance(self) -> None:
        assert self._decoder is not None
        try:
            steps = self._decoder.next()
        except BaseException as error:
            # Nothing is known of the state that it left, so all rows end with it.
            self._fail(_failed(error))
            return
        for number, token, reason in steps:
            row = self._rows.get(number)
            if row is None:
                continue
            try:
                ended = row.take(token, reason)
            except BaseException as error:
                self._drop(number)
                row.work.finish(error if isinstance(error, LLMProviderError) else _failed(error))
                continue
            if ended:
                self._drop(number)
                row.work.finish()

    def _drop(self, number: int) -> None:
        del self._rows[number]
        if self._decoder is not None:
            self._decoder.remove(number)

    def _fail(self, error: LLMProviderError) -> None:
        rows, self._rows = self._rows, {}
        self._decoder = None
        for row in rows.values():
            row.work.finish(row.error or error)

    def _idle(self) -> None:
        """Nothing is left to do: give back what only a run needs."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
            self._lib.mx.clear_cache()

    def end(self) -> None:
        """End everything and free the model."""
        self.stopping = True
        rows, self._rows = self._rows, {}
        for row in rows.values():
            if row.work.unwanted:
                row.work.finish()
        while self.waiting:
            work = self.waiting.popleft()
            work.begin(cast(Any, self))
            work.finish()
        self._idle()
        # What is left of this object is small; the provider's answers may still hold it for a while.
        self.__dict__.pop("loaded", None)
        self.__dict__.pop("_texts", None)
        self._grammars = None
        self._lib.mx.clear_cache()

    def leave(self) -> None:
        """The process ends."""
        self.silent = True
        self.end()

    # --- a call becomes a row

    def read(self, job: Job, *, limited: bool = True) -> tuple[list[int], str]:
        """The prompt of a job: its tokens and its text.

        Args:
            job: the job.
            limited: whether a prompt that cannot fit is refused early.

        Raises:
            LLMProviderTokenLimitError: it cannot fit.
            LLMProviderBadRequestError: the template refuses the messages.
        """
        text = job.text if job.text is not None else self.template.write(job.messages, job.tools, job.options)
        encode, context = self.loaded.tokenizer.encode, self.loaded.context
        # A template writes the special tokens itself.
        special = job.text is not None
        # Half a character, as in "\ud83d", has no bytes.
        clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if limited and len(clean) > _CERTAINLY_LONG * context:
            begun = len(encode(clean[: _CERTAINLY_LONG * context // 2], add_special_tokens=special, verbose=False))
            if begun > context:
                raise LLMProviderTokenLimitError(
                    f"the prompt has more than {begun} tokens, and prompt and answer together may have {context}; "
                    f"shorten it, or {_HINT}",
                    provider=NAME,
                    status_code=400,
                    code="context_length_exceeded",
                )
        # It warns of what is too long for the model on stderr; that is judged here.
        ids = [int(token) for token in encode(clean, add_special_tokens=special, verbose=False)]
        if not ids:
            raise LLMProviderConfigurationError("the prompt is empty: it has no tokens", provider=NAME)
        return ids, clean

    def _insert(self, work: Work, job: Job) -> None:
        ids, text = self.read(job)
        most = answer_room(len(ids), self.loaded.context, job.max_tokens, NAME, _HINT)
        inside = self.template.inside(text)
        mask = self._mask(job, inside)
        sampler = self._chooser.sampler(job.sampler, job.seed)
        processors = self._chooser.processors(job.penalties, job.processors, mask)
        row = Row(
            work,
            self._reader(job, ids, inside),
            len(ids),
            whole=job.whole,
            lazy=not job.stops,
            guards=[*processors, *([sampler] if sampler is not None else [])],
            mask=mask,
            meta={"model": self._label, **job.meta},
        )
        assert self._decoder is not None
        self._rows[self._decoder.insert(ids, most, sampler, processors)] = row

    def _reader(self, job: Job, ids: Sequence[int], inside: bool) -> AnswerReader:
        thought, parser = self.template.thought, self.template.parser
        # A structure that holds from the first token on leaves no place for thinking.
        structured = job.output is not None or bool(job.callees)
        thinks = thought is not None and (not structured or (inside and thought.end_id is not None))
        calls: ToolCallStream | None = None
        if job.tools:
            names = [tool["function"]["name"] for tool in job.tools]
            calls = ToolCallStream(names) if parser is None else MarkedCalls(names, job.tools, *parser)
        return AnswerReader(
            detokenizer=self._texts.start(ids),
            stops=job.stops,
            thinking=Thinking(thought.start, thought.end, inside=inside) if thinks and thought is not None else None,
            calls=calls,
        )

    def _mask(self, job: Job, inside: bool) -> Mask | None:
        if job.output is None and not job.callees:
            return None
        if self._grammars is None:
            loaded = self.loaded
            self._grammars = Grammars(loaded.inner, provider=NAME, vocab_size=loaded.width, eos_ids=sorted(loaded.eos))
        style = self.template.style
        if job.callees and style is not None:
            marks: dict[str, Any] = {"begin": style.begin, "end": style.end, "key": style.key, "more": job.several}
            matcher = self._grammars.tool_matcher(job.callees, output=job.output, **marks)
        else:
            assert job.output is not None
            matcher = self._grammars.matcher(job.output)
        thought = self.template.thought
        return self._chooser.mask(matcher, thought.end_id if inside and thought is not None else None)


def _failed(error: BaseException) -> LLMProviderError:
    text = str(error).strip().splitlines()
    first = text[0][:300] if text else type(error).__name__
    if "memory" in first.lower() or "allocate" in first.lower():
        message = f"MLX ran out of memory: {first}; lower n_parallel, max_tokens or context_length"
    else:
        message = f"MLX failed: {type(error).__name__}: {first}"
    found = LLMProviderServerError(message, provider=NAME, retryable=False)
    found.__cause__ = error
    return found
