"""Fetches a repository of a Hugging Face hub: its config first, then weights and tokenizer, never code.

Files land in the user's Hugging Face cache, where other programs find them too; interrupted downloads are resumed.
`HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` and `HF_HUB_OFFLINE` are honoured by the library.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..contract.errors import ModelError
from .json_text import read_object
from .source import HubSource

Report = Callable[[str, float | None], None]

_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]
_WANTED += ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"]
_WANTED += ["special_tokens_map.json", "added_tokens.json", "chat_template.json", "spiece.model"]
_UNWANTED = ["*/*", "consolidated*", "*.bin", "*.py", "*.pt", "*.pth", "*.pkl"]


def fetch_repository(source: HubSource, report: Report, check: Callable[[dict[str, Any]], None]) -> Path:
    """The snapshot folder of `source`. `check` gets its config before anything large is fetched, and may raise.

    Raises ModelError when the repository, the revision or the network is not there.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    report("download", None)
    try:
        config = Path(hf_hub_download(source.repository, "config.json", revision=source.revision))
        check(read_object(config))
        # The commit of the config, so that all files are of one state of a branch that moves meanwhile.
        folder = snapshot_download(
            source.repository,
            revision=config.parent.name,
            allow_patterns=_WANTED,
            ignore_patterns=_UNWANTED,
            tqdm_class=_bar_class(report),
        )
    except GatedRepoError as error:
        raise ModelError(
            f"{source.repository} asks its users to accept terms: do so on its page, then set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{source.repository} has no revision {source.revision!r}") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"there is no model {source.repository} on the hub, or HF_TOKEN may not read it") from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{source.repository} is not in the local cache and the hub cannot be reached; check the network, "
            "HF_ENDPOINT and HF_HUB_OFFLINE"
        ) from error
    except EntryNotFoundError as error:
        raise ModelError(f"{source.repository} has no config.json; it is no transformers model") from error
    except ModelError:
        raise
    except Exception as error:  # the HTTP library's own errors, which the hub's does not wrap
        raise ModelError(f"{source.repository} cannot be fetched: {str(error)[:300]}") from error
    return Path(folder)


def _bar_class(report: Report) -> Any:
    """A progress bar that draws nothing and reports the fraction of bytes on disk."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "file": io.StringIO(), "disable": False})

        def display(self, *_: Any, **__: Any) -> bool:
            return True

        def update(self, n: float | None = 1) -> bool | None:
            changed: bool | None = super().update(n)
            if self.unit == "B" and self.total:
                report("download", min(self.n / self.total, 1.0))
            return changed

    return Bar
