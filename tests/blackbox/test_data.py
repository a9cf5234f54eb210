"""Data of anybody looked at by the real server, which answers others meanwhile."""

from __future__ import annotations

import json

import pytest

from tunechat.tests.blackbox.server import Server

pytestmark = pytest.mark.usefixtures("healthy_at_end")


def test_an_upload_is_checked_and_shown_and_recipes_are_listed(server: Server) -> None:
    chat = {"messages": [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "Tuna."}]}
    content = (json.dumps(chat) + "\n").encode() + b"\x00\n"
    form = {"file": ("mine.jsonl", content)}
    file = server.http.post("/v1/files", files=form, data={"purpose": "fine-tune"}).raise_for_status().json()["id"]
    try:
        checked = server.http.post("/v1/data/check", json={"file": file}).raise_for_status().json()
        shown = server.http.post("/v1/data/preview", json={"file": file}).raise_for_status().json()
    finally:
        server.http.delete(f"/v1/files/{file}").raise_for_status()
    (problem,) = checked["problems"]
    assert (problem["file"], problem["line"], problem["kind"]) == ("mine.jsonl", 2, "json")
    learned = [piece["text"] for piece in shown["samples"][0]["rows"][0]["pieces"] if piece["trained"]]
    assert learned == ["Tuna.<|im_end|>"]
    assert shown["samples"][1]["error"].startswith("mine.jsonl:2: ")
    assert "identity" in {recipe["id"] for recipe in server.http.get("/v1/recipes").json()["data"]}
