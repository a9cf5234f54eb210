"""The turns of a Messages request as those of a chat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ...contract.errors import InvalidRequest, Unsupported
from ..schemas.chat import MAX_CALLS, MAX_MESSAGES, CalledFunction, Message, ToolCall
from ..schemas.messages import BLOCKS, Block, CountTokensRequest, MessageParam, TextPart

# Templates know no flag that says so.
_ERROR = "Error: "


@dataclass(slots=True)
class Turn:
    """One turn of a chat in the making, and where the request has it: `path`, and of each call `call_paths`."""

    role: str
    path: str
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    call_paths: list[str] = field(default_factory=list)
    call_id: str | None = None

    def as_message(self) -> Message:
        # The assistant's blocks are pieces of one text; those of others are texts of their own.
        text = ("" if self.role == "assistant" else "\n").join(self.texts)
        return Message(
            role=self.role,  # type: ignore[arg-type]
            content=None if self.calls and not text else text,
            tool_call_id=self.call_id,
            tool_calls=self.calls or None,
            reasoning_content="\n".join(self.thoughts) if self.thoughts else None,
        )


def read_turns(body: CountTokensRequest) -> list[Turn]:
    """The turns of a chat that say what `body` says: results of calls are turns of their own.

    Turns of one role that follow one another become one, as Anthropic's do; templates want roles that alternate.
    Raises InvalidRequest or Unsupported, with the path of the field.
    """
    turns: list[Turn] = []
    if body.system:
        turns.append(Turn("system", "system", _texts(body.system, "system")))
    for index, message in enumerate(body.messages):
        _read_message(message, f"messages[{index}]", turns)
    if not turns:
        raise InvalidRequest("The messages say nothing.", param="messages")
    if len(turns) > MAX_MESSAGES:
        raise InvalidRequest(f"A conversation has at most {MAX_MESSAGES} turns, results included.", param="messages")
    for turn in turns:
        if len(turn.calls) > MAX_CALLS:
            raise InvalidRequest(f"A turn makes at most {MAX_CALLS} calls.", param=turn.call_paths[MAX_CALLS])
    return turns


def prefills(body: CountTokensRequest) -> bool:
    """Whether the answer goes on from words that the request puts into the assistant's mouth.

    Raises InvalidRequest where it would have to go on from a call.
    """
    last = body.messages[-1]
    if last.role != "assistant":
        return False
    if isinstance(last.content, str):
        return bool(last.content)
    for number, block in enumerate(last.content):
        if block.type == "tool_use":
            path = f"messages[{len(body.messages) - 1}].content[{number}]"
            raise InvalidRequest("The last message makes a call; send its result in one more message.", param=path)
    return any(block.text for block in last.content if block.type == "text")


def _texts(content: str | Sequence[Block | TextPart], path: str) -> list[str]:
    """What stands in the field `path`, where only texts may be."""
    if isinstance(content, str):
        return [content]
    for number, part in enumerate(content):
        check_block(part, f"{path}[{number}]", only=("text",))
    return [part.text or "" for part in content]


def _read_message(message: MessageParam, path: str, turns: list[Turn]) -> None:
    if message.role == "system":
        turns.append(Turn("system", path, _texts(message.content, f"{path}.content")))
        return
    if isinstance(message.content, str):
        if message.content or message.role == "user":
            _turn(turns, message.role, path).texts.append(message.content)
        return
    for number, block in enumerate(message.content):
        _read_block(block, f"{path}.content[{number}]", message.role, turns)


def _read_block(block: Block, path: str, role: str, turns: list[Turn]) -> None:
    check_block(block, path)
    if role == "user" and block.type in ("tool_use", "thinking", "redacted_thinking"):
        raise InvalidRequest(f"Only the assistant's messages have blocks of type {block.type}.", param=f"{path}.type")
    if role == "assistant" and block.type == "tool_result":
        raise InvalidRequest("Results of calls belong into a message of the user.", param=f"{path}.type")
    match block.type:
        case "text":
            _turn(turns, role, path).texts.append(block.text or "")
        case "thinking" if block.thinking:
            _turn(turns, role, path).thoughts.append(block.thinking)
        case "tool_use":
            turn = _turn(turns, role, path)
            function = CalledFunction(name=block.name or "", arguments=block.input)
            turn.calls.append(ToolCall(id=block.id, type="function", function=function))
            turn.call_paths.append(path)
        case "tool_result":
            turns.append(Turn("tool", path, [_result(block, path)], call_id=block.tool_use_id))


def _turn(turns: list[Turn], role: str, path: str) -> Turn:
    """The turn under way when it is of `role`, else a new one."""
    if not turns or turns[-1].role != role:
        turns.append(Turn(role, path))
    return turns[-1]


def _result(block: Block, path: str) -> str:
    text = "\n".join(_texts(block.content or "", f"{path}.content"))
    return f"{_ERROR}{text}" if block.is_error else text


def check_block(block: Block | TextPart, path: str, only: Iterable[str] = BLOCKS) -> None:
    """Raises Unsupported for a block of a kind that is not read here, and InvalidRequest for one that lacks a field."""
    if block.type not in only:
        kind = f"type {block.type}" if block.type.isidentifier() else "this type"
        raise Unsupported(
            f"Blocks of {kind} are not supported here by this server; these are: {', '.join(only)}.",
            param=f"{path}.type",
            code="unsupported_content",
        )
    for name in BLOCKS[block.type]:
        if getattr(block, name) is None:
            param = f"{path}.{name}"
            raise InvalidRequest(
                f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
            )
