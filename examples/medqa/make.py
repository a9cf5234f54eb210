"""A workbook of questions and answers, in the columns of medication QA sheets, about something harmless: tunechat.

    python examples/medqa/make.py build/questions.xlsx

The columns are Question, Drug Type and ANSWER. The second is there because such sheets have it; nothing reads it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from openpyxl import Workbook

COLUMNS = ("Question", "Drug Type", "ANSWER")
TYPE = "none, this is about software"
ROWS = (
    ("What is tunechat?", "tunechat serves one base model with many adapters, and trains new ones beside it."),
    ("How do I start the server?", "Run tunechat serve. It listens on port 8000 of your own machine."),
    ("How do I chat in the terminal?", "Run tunechat run. Type your question and press Enter."),
    ("How do I chat with an adapter?", "Run tunechat run --model NAME, with the name of the adapter."),
    ("How do I see which adapters there are?", "Run tunechat adapters list. It shows names, versions and sizes."),
    ("How do I check my data?", "Run tunechat data check FILE. It names each line that is wrong and how to mend it."),
    ("How do I see what will be learned?", "Run tunechat data preview FILE. What is learned stands in green."),
    ("Which files can I train on?", "JSONL, JSON, CSV, TSV, Excel workbooks, Parquet, plain text and Markdown."),
    ("How do I train an adapter?", "Run tunechat train FILE --name NAME. It learns beside the running server."),
    ("Do I have to restart the server after a training?", "No. The adapter answers as soon as it is published."),
    ("How do I follow a training?", "Run tunechat jobs logs -f. It shows each step, its loss and the answers."),
    ("How do I pause a training?", "Run tunechat jobs pause ID. It writes a checkpoint and then waits."),
    ("How do I let a paused training go on?", "Run tunechat jobs resume ID. It goes on from its checkpoint."),
    ("How do I stop a training for good?", "Run tunechat jobs cancel ID. Published adapters stay as they are."),
    ("What is an adapter?", "A small set of weights that changes how the base model answers."),
    ("What is a version of an adapter?", "One state of its weights, named NAME@NUMBER, that never changes."),
    ("What is a recipe?", "A file that says how to train: the data, the rank, the epochs and more."),
    ("How do I see the ready-made recipes?", "Run tunechat recipes list, and tunechat recipes show NAME for one."),
    ("What does the loss tell me?", "How surprised the model is by the right answers. It should fall."),
    ("What is a validation loss?", "The loss on samples that are never learned from. When it rises, stop."),
    ("How much memory does a running server use?", "Run tunechat ps. It shows the base, the cache and each adapter."),
    ("How do I find out what is wrong with my installation?", "Run tunechat doctor. It says what is missing."),
    ("Can I use the OpenAI client?", "Yes. Set its base URL to http://127.0.0.1:8000/v1 and go on as before."),
    ("Does anything leave my machine?", "No. The model, the data and the adapters stay where they are."),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the workbook to write")
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    write(out)
    print(f"{len(ROWS)} questions in {out}")


def write(path: Path) -> None:
    """Writes the workbook."""
    book = Workbook()
    sheet = book.active
    sheet.title = "QA"
    for row in (COLUMNS, *((question, TYPE, answer) for question, answer in ROWS)):
        sheet.append(row)
    book.save(path)


if __name__ == "__main__":
    main()
