"""Chat templates after the published formats of model families, each with the special tokens that it writes."""
# ruff: noqa: E501

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """What a family's tokenizer configuration says. `ends` are the tokens that end answers."""

    template: str
    special: tuple[str, ...]
    ends: tuple[str, ...]
    visible: tuple[str, ...] = ()
    bos: str = "<s>"
    kind: str = "byte_level"


CHATML = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful assistant.<|im_end|>
' }}{% endif %}{{ '<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

LLAMA3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content']|trim %}{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools %}{{- 'Environment: ipython\\n' }}{%- endif %}
{{- 'Today Date: 26 Jul 2024\\n\\n' + system + '<|eot_id|>' }}
{%- if tools and messages %}
  {%- set first = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
  {{- '<|start_header_id|>user<|end_header_id|>\\n\\nRespond with a call as {"name": function, "parameters": arguments}.\\n\\n' }}
  {%- for t in tools %}{{- t | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}
  {{- first + '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
  {%- if message.role == 'tool' or message.role == 'ipython' %}
    {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + (message.content | tojson) + '<|eot_id|>' }}
  {%- elif 'tool_calls' in message %}
    {%- if message.tool_calls|length != 1 %}{{- raise_exception('one call at a time') }}{%- endif %}
    {%- set call = message.tool_calls[0].function %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- '}<|eot_id|>' }}
  {%- else %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

_QWEN_HEAD = """{%- if tools %}
  {{- '<|im_start|>system\\n' + (messages[0].content if messages[0].role == 'system' else 'SYSTEM') + '\\n\\n# Tools\\n<tools>' }}
  {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
  {{- '\\n</tools>\\n\\nAnswer with <tool_call>\\n{"name": name, "arguments": object}\\n</tool_call><|im_end|>\\n' }}
{%- else %}
  {{- '<|im_start|>system\\n' + (messages[0].content if messages[0].role == 'system' else 'SYSTEM') + '<|im_end|>\\n' }}
{%- endif %}"""

_QWEN_CALLS = """{%- for call in message.tool_calls or [] %}
      {{- '\\n' if content or not loop.first else '' }}
      {{- '<tool_call>\\n{"name": "' ~ call.function.name ~ '", "arguments": ' }}{{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
  {%- elif message.role == 'tool' %}
    {{- '<|im_start|>user' if loop.first or messages[loop.index0 - 1].role != 'tool' else '' }}
    {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
    {{- '<|im_end|>\\n' if loop.last or messages[loop.index0 + 1].role != 'tool' else '' }}
  {%- elif not (message.role == 'system' and loop.first) %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
  {%- endif %}
{%- endfor %}"""

QWEN25 = (
    _QWEN_HEAD
    + """{%- for message in messages %}
  {%- if message.role == 'assistant' %}
    {%- set content = message.content %}
    {{- '<|im_start|>assistant\\n' + content }}
    """
    + _QWEN_CALLS
    + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

_QWEN3_TURNS = (
    _QWEN_HEAD
    + """{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}
  {%- if message.role == 'assistant' %}
    {%- set content = message.content %}{%- set thought = message.reasoning_content or '' %}
    {%- if loop.index0 > ns.last and (loop.last or thought) %}
      {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
    {%- else %}
      {{- '<|im_start|>assistant\\n' + content }}
    {%- endif %}
    """
    + _QWEN_CALLS
)

QWEN3 = (
    _QWEN3_TURNS
    + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    + "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)

# The prompt opens the block of reasoning itself, and answers lose theirs once they are history.
THINKING = (
    _QWEN3_TURNS.replace("(loop.last or thought)", "false")
    + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
)

# The system's words stand in the last message of the user, so that they move as the chat goes on.
MISTRAL = """{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}{%- set messages = messages[1:] %}{%- endif %}
{{- bos_token }}
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}
  {%- if message.role == 'user' %}
    {%- if tools and loop.index0 == ns.last %}{{- '[AVAILABLE_TOOLS] ' }}{{- tools | tojson }}{{- '[/AVAILABLE_TOOLS]' }}{%- endif %}
    {%- if loop.last and system is defined %}{{- '[INST] ' + system + '\\n\\n' + message.content + '[/INST]' }}
    {%- else %}{{- '[INST] ' + message.content + '[/INST]' }}{%- endif %}
  {%- elif message.tool_calls %}
    {{- '[TOOL_CALLS] [' }}
    {%- for call in message.tool_calls %}
      {%- if call.id|length != 9 %}{{- raise_exception('ids have nine letters') }}{%- endif %}
      {{- ', ' if not loop.first else '' }}{{- '{"name": "' + call.function.name + '", "arguments": ' }}{{- call.function.arguments | tojson }}{{- ', "id": "' + call.id + '"}' }}
    {%- endfor %}
    {{- ']' + eos_token }}
  {%- elif message.role == 'assistant' %}{{- ' ' + message.content|trim + eos_token }}
  {%- else %}{{- '[TOOL_RESULTS] {"content": ' }}{{- message.content | tojson }}{{- ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
  {%- endif %}
{%- endfor %}"""

INTERNLM2 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
  {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
  {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
  {{- '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

PHI3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)

PHI4 = (
    "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}"
    "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)

# No token ends a turn of it, a blank line does.
BARE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)

LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}
{%- for message in messages %}
  {%- if message['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' }}
  {%- else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}
{%- endfor %}"""

_IM = ("<|im_start|>", "<|im_end|>")
_TAGS = ("<tool_call>", "</tool_call>", "<think>", "</think>")
MODELS = {
    "chatml": Model(CHATML, _IM, ("<|im_end|>",), kind="gpt2"),
    "llama3": Model(
        LLAMA3,
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>"),
        ("</s>", "<|eom_id|>", "<|eot_id|>"),
    ),
    "qwen2.5": Model(QWEN25, _IM, ("<|im_end|>", "</s>"), _TAGS[:2]),
    "qwen3": Model(QWEN3, _IM, ("<|im_end|>", "</s>"), _TAGS),
    "thinking": Model(THINKING, _IM, ("<|im_end|>",), _TAGS),
    "mistral": Model(
        MISTRAL,
        (
            "[INST]",
            "[/INST]",
            "[TOOL_CALLS]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
        ),
        ("</s>",),
        kind="sentencepiece",
    ),
    "internlm2": Model(INTERNLM2, (*_IM, "<|action_start|>", "<|action_end|>", "<|plugin|>"), ("</s>", "<|im_end|>")),
    "gemma": Model(GEMMA, ("<start_of_turn>", "<end_of_turn>"), ("</s>", "<end_of_turn>"), kind="sentencepiece"),
    "phi3": Model(PHI3, ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"), ("</s>", "<|end|>"), kind="legacy"),
    "phi4-mini": Model(
        PHI4,
        (
            "<|user|>",
            "<|assistant|>",
            "<|system|>",
            "<|end|>",
            "<|tool_call|>",
            "<|/tool_call|>",
            "<|tool|>",
            "<|/tool|>",
        ),
        ("</s>", "<|end|>"),
    ),
    "llama2": Model(LLAMA2, (), ("</s>",), kind="legacy"),
    # Its line breaks before an answer are other tokens once the answer stands behind them.
    "llama3-gpt2": Model(
        LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), ("<|eot_id|>",), kind="gpt2"
    ),
    "bare": Model(BARE, (), ("</s>",)),
}
