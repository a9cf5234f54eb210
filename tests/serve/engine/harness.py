"""An engine in this process, stepped by hand."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from queue import SimpleQueue

from tunechat.serve.contract.adapters import AdapterRef
from tunechat.serve.contract.errors import ErrorRecord
from tunechat.serve.contract.messages import (
    Abort,
    AdapterFailed,
    AdapterLoaded,
    AdapterUse,
    AddAdapter,
    FromEngine,
    LoadAdapter,
    PinAdapter,
    RemoveAdapter,
    SequenceOutput,
    StepOutputs,
    Submit,
    ToEngine,
)
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.loop import Engine, Inbox
from tunechat.serve.engine.options import EngineOptions
from tunechat.tests.serve.engine.toy import ToyRunner


class Harness:
    """Collects what the engine says of each sequence."""

    def __init__(
        self,
        runner: ToyRunner | None = None,
        *,
        max_running: int = 8,
        prefill_chunk: int | None = None,
        prefix_cache: bool = True,
    ) -> None:
        self.runner = runner or ToyRunner()
        self.inbox: Inbox = SimpleQueue()
        self.sent: list[FromEngine] = []
        self.outputs: dict[str, list[SequenceOutput]] = defaultdict(list)
        options = EngineOptions(
            model="toy",
            home="",
            max_batch_tokens=self.runner.max_batch_tokens,
            max_running=max_running,
            prefill_chunk=prefill_chunk,
            prefix_cache=prefix_cache,
        )
        self.engine = Engine(self.runner, options, inbox=self.inbox, send=self._collect)
        self.scheduler = self.engine.scheduler

    def submit(
        self,
        sequence: str,
        prompt: list[int],
        params: SamplingParams,
        *,
        salt: str = "",
        adapters: tuple[AdapterUse, ...] = (),
    ) -> None:
        self.tell(Submit(sequence=sequence, prompt=prompt, params=params, salt=salt, adapters=adapters))

    def abort(self, sequence: str) -> None:
        self.tell(Abort(sequence=sequence))

    def tell(self, message: ToEngine) -> None:
        self.inbox.put(message)
        self.engine.receive(0.0)

    def add(self, *digests: str, folder: str = "ok") -> None:
        """Make adapters known; see ToyRunner for what `folder` means."""
        for digest in digests:
            ref = AdapterRef(name=digest, number=1, digest=digest)
            self.tell(AddAdapter(ref=ref, folder=str(Path("store", folder))))

    def remove(self, digest: str) -> None:
        self.tell(RemoveAdapter(digest=digest))

    def pin(self, digest: str, pinned: bool = True) -> None:
        self.tell(PinAdapter(digest=digest, pinned=pinned))

    def load(self, digest: str) -> AdapterLoaded | AdapterFailed:
        """The answer to a LoadAdapter."""
        seen = len(self.answers)
        self.tell(LoadAdapter(digest=digest))
        self.until_answered(seen + 1)
        return self.answers[seen]

    def until_answered(self, count: int) -> None:
        """Receive until so many loads were answered; computes nothing."""
        for _ in range(20):
            if len(self.answers) >= count:
                return
            self.engine.receive(1.0)
        raise AssertionError("a load got no answer")

    @property
    def answers(self) -> list[AdapterLoaded | AdapterFailed]:
        return [message for message in self.sent if isinstance(message, AdapterLoaded | AdapterFailed)]

    def error(self, sequence: str) -> ErrorRecord:
        error = self.outputs[sequence][-1].error
        assert error is not None
        return error

    def step(self) -> None:
        self.engine.step()
        self.engine.receive(0.0)
        self.scheduler.check_integrity()

    def drain(self, most: int = 10_000) -> int:
        """Steps until there is no work left; gives how many."""
        for steps in range(most):
            if not self.scheduler.has_work:
                return steps
            self.step()
        raise AssertionError(f"not finished after {most} steps")

    def drain_until(self, sequence: str, tokens: int) -> None:
        """Steps until a sequence has so many tokens."""
        for _ in range(1000):
            if len(self.text(sequence)) >= tokens:
                return
            self.step()
        raise AssertionError("the tokens did not come")

    def text(self, sequence: str) -> list[int]:
        return [token for output in self.outputs[sequence] for token in output.tokens]

    def finish(self, sequence: str) -> str | None:
        return self.outputs[sequence][-1].finish if self.outputs[sequence] else None

    def result(self, sequence: str) -> tuple[list[int], str | None]:
        return self.text(sequence), self.finish(sequence)

    def _collect(self, message: FromEngine) -> None:
        self.sent.append(message)
        if isinstance(message, StepOutputs):
            for output in message.outputs:
                self.outputs[output.sequence].append(output)


def greedy(max_tokens: int, **changes: object) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0.0, **changes)  # type: ignore[arg-type]
