"""What the HTTP side asks of the engine and of the text side: the two seams that tests and remote engines plug into."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..contract.adapters import AdapterRef
from ..contract.errors import ErrorRecord
from ..contract.messages import AdapterLoaded, AdapterUse, EngineInfo, EngineStats, Loading, SequenceOutput
from ..contract.sampling import SamplingParams
from ..text.dialects import Described


class Engine(Protocol):
    """Tokens in, tokens out. `EngineClient` is the one that serves."""

    @property
    def state(self) -> str: ...

    @property
    def is_ready(self) -> bool: ...

    @property
    def info(self) -> EngineInfo | None: ...

    @property
    def stats(self) -> EngineStats: ...

    @property
    def restarts(self) -> int: ...

    @property
    def loading(self) -> Loading | None: ...

    @property
    def failure(self) -> ErrorRecord | None: ...

    async def start(self) -> None: ...

    async def wait_ready(self) -> EngineInfo: ...

    async def close(self) -> None: ...

    def add_adapter(self, ref: AdapterRef, folder: Path) -> None: ...

    async def load_adapter(self, digest: str) -> AdapterLoaded: ...

    def pin_adapter(self, digest: str, pinned: bool) -> None: ...

    def remove_adapter(self, digest: str) -> None: ...

    def generate(
        self,
        prompt: list[int],
        params: SamplingParams,
        *,
        sequence: str,
        salt: str = "",
        adapters: tuple[AdapterUse, ...] = (),
    ) -> AsyncIterator[SequenceOutput]: ...


class Detokenizer(Protocol):
    """Turns tokens into text piece by piece; a piece never ends inside a character."""

    def push(self, tokens: Iterable[int]) -> str: ...

    def finish(self) -> str: ...


class Text(Described, Protocol):
    """Text to tokens and back for one model. `ModelText` is the one that serves."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def eos_token_ids(self) -> tuple[int, ...]: ...

    def encode(self, text: str, *, parse_special: bool = False, add_bos: bool = False) -> list[int]: ...

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[int]: ...

    def decode(self, tokens: Iterable[int], *, skip_special: bool = True, continues: bool = False) -> str: ...

    def token_text(self, token: int) -> str: ...

    def token_bytes(self, token: int) -> bytes: ...

    def detokenizer(
        self, *, skip_special: bool = True, continues: bool = False, visible: Collection[int] = ()
    ) -> Detokenizer: ...
