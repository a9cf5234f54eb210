"""The default model under grammars: eight different forms in one batch, with and without adapters, each as if alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
from jsonschema import validate
from llguidance import LLMatcher
from tokenizers import Tokenizer

from tunechat.benchmarks.random_adapters import write_adapter
from tunechat.serve.adapters.staging import Intake
from tunechat.serve.adapters.store import AdapterStore
from tunechat.serve.contract.messages import AdapterUse, AddAdapter, FromEngine, StepOutputs, Submit
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.grammar_tokenizer import grammar_tokenizer
from tunechat.serve.engine.loop import Engine, Inbox
from tunechat.serve.engine.options import EngineOptions
from tunechat.serve.engine.runner import Runner, build_runner

TEXT = {"type": "string", "minLength": 1, "maxLength": 20}


def form(**properties: object) -> dict[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMAS = (
    form(city=TEXT, people={"type": "integer", "minimum": 0, "maximum": 99_999_999}),
    form(
        name={"const": "calculate"}, arguments=form(expression={"type": "string", "pattern": r"^\d{1,3} \+ \d{1,3}$"})
    ),
    {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 2, "maxItems": 4},
    form(answer={"type": "boolean"}, why={"anyOf": [{"type": "null"}, TEXT]}),
    form(
        point={"type": "array", "items": {"type": "integer", "minimum": -9, "maximum": 9}, "minItems": 3, "maxItems": 3}
    ),
    form(day={"type": "string", "format": "date"}, hour={"type": "integer", "minimum": 0, "maximum": 23}),
    {"$defs": {"tree": form(leaf={"enum": ["oak", "elm"]})}, "$ref": "#/$defs/tree"},
    form(grüße={"enum": ["schön", "日本", "🙂"]}, quote={"const": 'say "no"\n\\'}),
)


@dataclass(frozen=True, slots=True)
class Default:
    runner: Runner
    tokenizer: Tokenizer
    adapters: tuple[AddAdapter, ...]

    def ask(self, wanted: list[tuple[int, SamplingParams, tuple[AdapterUse, ...]]]) -> list[tuple[str, str | None]]:
        """Text and finish of each, all at once, from a new engine loop over the runner."""
        inbox: Inbox = SimpleQueue()
        sent: list[FromEngine] = []
        options = EngineOptions(model="default", home="unused", max_batch_tokens=self.runner.max_batch_tokens)
        engine = Engine(self.runner, options, inbox=inbox, send=sent.append)
        for added in self.adapters:
            inbox.put(added)
        prompt = "<|im_start|>user\nFill in the form, number {}.<|im_end|>\n<|im_start|>assistant\n"
        for at, (number, params, adapters) in enumerate(wanted):
            tokens = self.tokenizer.encode(prompt.format(number)).ids
            inbox.put(Submit(sequence=str(at), prompt=tokens, params=params, adapters=adapters))
        engine.receive(0.0)
        while engine.scheduler.has_work:
            engine.step()
            engine.receive(0.0)
        engine.scheduler.check_integrity()
        outputs = [output for message in sent if isinstance(message, StepOutputs) for output in message.outputs]
        for slot in range(self.runner.adapter_slots):
            self.runner.uninstall(slot)
        texts = []
        for at in range(len(wanted)):
            mine = [output for output in outputs if output.sequence == str(at)]
            ids = [token for output in mine for token in output.tokens]
            texts.append((self.tokenizer.decode(ids, skip_special_tokens=False), mine[-1].finish))
        return texts


@pytest.fixture(scope="module")
def default(default_entry: Path, tmp_path_factory: pytest.TempPathFactory) -> Default:
    root = tmp_path_factory.mktemp("adapters")
    runner = build_runner(default_entry, EngineOptions(model="default", home="unused", device="cpu"))
    store = AdapterStore(root / "store")
    adapters = []
    for seed in range(3):
        folder = write_adapter(default_entry, root / f"random-{seed}", seed=seed, rank=8)
        version = store.publish(folder.name, folder, Intake(base=runner.entry.manifest))
        adapters.append(AddAdapter(ref=version.ref, folder=str(store.folder(version))))
    return Default(runner, Tokenizer.from_file(str(default_entry / "tokenizer.json")), tuple(adapters))


@pytest.mark.parametrize("flexible", [False, True], ids=["compact", "with whitespace"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_forms_in_one_batch_are_filled_as_alone(default: Default, temperature: float, flexible: bool) -> None:
    wanted = []
    for at, schema in enumerate(SCHEMAS):
        overrides = (
            {"whitespace_flexible": True, "whitespace_pattern": "[ ]?"} if flexible else {"whitespace_flexible": False}
        )
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=overrides)
        params = SamplingParams(max_tokens=150, temperature=temperature, seed=at, grammar=grammar, stop_token_ids=(2,))
        uses = () if at % 4 == 0 else (AdapterUse(default.adapters[at % 4 - 1].ref.digest),)
        wanted.append((at, params, uses))
    together = default.ask(wanted)
    for (text, finish), schema in zip(together, SCHEMAS, strict=True):
        assert finish == "stop"
        validate(json.loads(text), schema)
    if not flexible:
        assert together == [default.ask([one])[0] for one in wanted]


def test_a_tokenizer_that_is_narrower_than_the_logits_leaves_the_rest_out(default_entry: Path) -> None:
    tokenizer = grammar_tokenizer(default_entry, 49152 + 100, (2, 0))
    assert tokenizer.vocab_size == 49152 + 100
    assert set(tokenizer.eos_tokens) == {0, 2}
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_regex("(?s:.*)"))
    allowed = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")[: 49152 + 100]
    assert not allowed[49152:].any()
    # No control token is text, but for those that end it.
    assert np.flatnonzero(allowed[:17]).tolist() == [0, 2]
    assert allowed[:49152].sum() > 49000
