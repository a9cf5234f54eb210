"""An agent of LangChain that answers three questions with three real tools, by a model of a running server.

    python examples/tools/agent.py tools

Each question has one right answer that the tools find: days between two dates, words in a text, the area of a circle.
The exit code is 0 when the agent gets all of them right.
"""

from __future__ import annotations

import argparse
import math
import os
from datetime import date
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, tool
from langchain_openai import ChatOpenAI

# Enough for a call, its result and the answer, with a few detours.
STEPS = 12


@tool
def days_between(start_date: str, end_date: str) -> int:
    """Calculate the number of days between two dates.

    Args:
        start_date: The first date, in the format YYYY-MM-DD.
        end_date: The second date, in the format YYYY-MM-DD.
    """
    return (date.fromisoformat(end_date) - date.fromisoformat(start_date)).days


@tool
def count_words(text: str) -> int:
    """Count the words in a text.

    Args:
        text: The text whose words are counted.
    """
    return len(text.split())


@tool
def circle_area(radius: float) -> float:
    """Calculate the area of a circle.

    Args:
        radius: The radius of the circle.
    """
    return round(math.pi * radius**2, 2)


TOOLS: list[BaseTool] = [days_between, count_words, circle_area]
QUESTIONS = (
    ("How many days are there between 2024-01-15 and 2024-03-01?", "46"),
    ("How many words are in the text 'the quick brown fox jumps'?", "5"),
    ("What is the area of a circle with a radius of 5?", "78.54"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model as the server lists it")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    arguments = parser.parse_args()
    right = 0
    for question, answer in QUESTIONS:
        messages = ask(arguments.url, arguments.model, question)
        print(f"\n{question}")
        for message in messages[1:]:
            print(f"  {told(message)}")
        is_right = answer in messages[-1].text and any(message.type == "tool" for message in messages)
        print(f"  {'right' if is_right else f'wrong: it is {answer}'}")
        right += is_right
    print(f"\n{right} of {len(QUESTIONS)} right")
    raise SystemExit(right < len(QUESTIONS))


def ask(url: str, model: str, question: str) -> list[Any]:
    """All messages of the agent's work on `question`, the answer last."""
    chat = ChatOpenAI(
        model=model,
        base_url=f"{url}/v1",
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
        temperature=0,
        max_completion_tokens=128,
    )
    agent = create_agent(chat, TOOLS)
    result = agent.invoke({"messages": [("user", question)]}, {"recursion_limit": STEPS})
    return list(result["messages"])


def told(message: Any) -> str:
    """A message in a line."""
    if isinstance(message, AIMessage) and message.tool_calls:
        return "; ".join(f"calls {call['name']}({call['args']})" for call in message.tool_calls)
    return f"{'result' if message.type == 'tool' else 'answer'}: {message.text}"


if __name__ == "__main__":
    main()
