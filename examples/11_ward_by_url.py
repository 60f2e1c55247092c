"""A language model plays a stay on the ward by URL: any OpenAI-compatible endpoint, any server of `clinenv serve`.

Without --url the server runs in this process; without --endpoint a rule of thumb answers in the model's place, over the
same API (`examples/stub_chat.py`). A reply that orders nothing the ward knows is answered with the error, and the model
may try again, so many times; then nothing is ordered in that step.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import urllib.error
import urllib.request
from typing import Any

import torch

from examples.stub_chat import chat_server, orders_for
from world_models.ehr_world.causal_lm.client import LLMClient, Message

ID = "EHRWard-v0"
SYSTEM = (
    "You order tests and treatments for a simulated hospital patient; nobody real is treated. Each message is the "
    "chart now. Answer with the orders for the next hours and nothing else. "
)
REMEMBERED = 4  # messages besides the first that the model sees again


def ask(url: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and content of a POST."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def play(ward: str, client: LLMClient, seed: int, tries: int, most_steps: int) -> dict[str, Any]:
    """One stay to its end; the server's last state of it, and how many replies were none."""
    status, begun = ask(f"{ward}/reset", {"seed": seed, "observation": "text"})
    if status != 200:
        raise SystemExit(f"{ward}/reset: {begun['detail']}")
    session, told, bad = begun["metadata"]["session_id"], begun, 0
    system: Message = {"role": "system", "content": SYSTEM + begun["observation"]["how_to_act"]}
    talk: list[Message] = []
    for _ in range(most_steps):
        if told["done"]:
            break
        talk.append({"role": "user", "content": told["observation"]["text"]})
        for attempt in range(tries + 1):
            text = "nothing"
            if attempt < tries:
                text = client.complete([[system, *talk[-REMEMBERED:]]], max_tokens=400)[0].text
                talk.append({"role": "assistant", "content": text})
            status, answer = ask(f"{ward}/step", {"session_id": session, "action": {"text": text}})
            if status == 200:
                break
            if status != 422 or attempt == tries:
                raise SystemExit(f"{ward}/step: {answer['detail']}")
            bad += 1
            talk.append({"role": "user", "content": f"That could not be carried out: {answer['detail']}"})
        told = answer
        hours, orders = told["observation"]["hours"], " ".join(text.split())
        print(f"{hours:4.0f} h  reward {told['reward']:7.3f}  {orders[:90]}")
    with urllib.request.urlopen(f"{ward}/state?session_id={session}", timeout=120) as answer:
        state = json.load(answer)
    ask(f"{ward}/close", {"session_id": session})
    return {**state, "bad_replies": bad, "terminated": told["observation"]["terminated"]}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Plays, and returns how it ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="of a server, http://127.0.0.1:8000 (default: one is started here)")
    parser.add_argument("--world", default="ehr-ward-small", help="of the server that is started here")
    parser.add_argument("--endpoint", help="OpenAI-compatible, http://localhost:11434/v1 (default: a rule of thumb)")
    parser.add_argument("--model", default="stub", help="its name at the endpoint")
    parser.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the key")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--tries", type=int, default=3, help="replies that are asked for in a step")
    parser.add_argument("--steps", type=int, default=84, help="at most (default: 14 days)")
    args = parser.parse_args(argv)

    with contextlib.ExitStack() as stack:
        url, endpoint = args.url, args.endpoint
        if url is None:
            from clinenv.serving.course import Served
            from clinenv.serving.server import running

            torch.set_num_threads(1)
            url = stack.enter_context(running([Served(ID, {"world": args.world})]))
        if endpoint is None:
            endpoint = stack.enter_context(chat_server(lambda messages, _: orders_for(messages[-1]["content"])))
        key = os.environ[args.api_key_env] if args.api_key_env else None
        client = LLMClient(endpoint, args.model, api_key=key)
        ended = play(f"{url.rstrip('/')}/{ID}", client, args.seed, args.tries, args.steps)
    how = "ended" if ended["terminated"] else "stopped"
    print(
        f"the stay {how} after {ended['hours']:.0f} h: return {ended['return']:.2f}, bad replies {ended['bad_replies']}"
    )
    return ended


if __name__ == "__main__":
    main()
