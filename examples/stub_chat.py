"""A stand-in for a language model: a rule of thumb behind OpenAI's chat API, so that examples need no model.

It reads the note that a ward's server sends and orders by simple words in it. It is no clinician and no model.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["chat_server", "orders_for"]

_BASICS = ("potassium", "creatinine", "glucose", "haemoglobin", "lactate", "white cells")
_VITALS = ("heart rate", "MAP", "SpO2", "respiratory rate", "temperature", "GCS")


def orders_for(note: str) -> str:
    """Orders for the last note: vital signs each time, basic tests once, and treatment for what stands out."""
    barred = re.search(r"Not allowed now: (.*)\.", note)
    refused = set(barred[1].split(", ")) if barred else set()
    never = re.search(r"Never measured: (.*)\.", note)
    wanted = [*_VITALS, *(name for name in _BASICS if never and name in never[1])]
    orders = [f"inquire_{name.replace(' ', '_').lower()}" for name in wanted]
    pressure, saturation = (re.search(rf"{name} (\d+)", note) for name in ("MAP", "SpO2"))
    if pressure and int(pressure[1]) < 65:
        orders += ["ringers_lactate_ml", "norepinephrine_ug_kg_min"]
    if saturation and int(saturation[1]) < 92:
        orders.append("oxygen_fraction")
    if "admitted for fever" in note:
        orders.append("piperacillin_tazobactam_g")
    return ", ".join(order for order in orders if order not in refused) or "nothing"


@contextlib.contextmanager
def chat_server(answer: Callable[[list[dict[str, str]], int], str]) -> Iterator[str]:
    """A server of the chat API on a free port of the loopback interface; gives its base URL.

    Args:
        answer: of the messages of a request and its number, from 0: the reply's text.
    """
    asked = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            nonlocal asked
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text, asked = answer(request["messages"], asked), asked + 1
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            body = json.dumps({"object": "chat.completion", "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
