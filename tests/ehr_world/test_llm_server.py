"""The client against a real server of OpenAI's API: `transformers serve` on a small model with random weights."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.ehr_world.causal_stays import stays
from world_models.ehr_world.causal_lm.client import LLMClient, LLMServerError
from world_models.ehr_world.causal_lm.codec import TextCodec, train_tokenizer
from world_models.ehr_world.causal_lm.model import CausalLM, qwen3
from world_models.ehr_world.causal_lm.prompt import PromptLLM, prompt, server
from world_models.ehr_world.causal_lm.text import render

for needed in ("fastapi", "uvicorn", "openai"):
    pytest.importorskip(needed, reason='a real server to ask needs pip install "clinenv[llm-server]"')

CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
LONGEST_START_S = 180.0  # of the server, on a machine that is busy


@pytest.fixture(scope="module")
def lm() -> CausalLM:
    tokenizer = train_tokenizer([render(stay) for stay in stays(12)], 400)
    tokenizer.chat_template = CHAT
    codec = TextCodec(tokenizer)
    # of Llama's kind: what a Qwen says the server takes apart by that family's special tokens, which this one lacks
    made = CausalLM.from_config(qwen3(codec.size, 32, 2, 4, 2048) | {"model_type": "llama"}, codec, seed=2)
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(8)  # logits far apart: the likeliest token is no matter of rounding
    return made


@pytest.fixture(scope="module")
def address(lm: CausalLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Where the server is, and the name of its model."""
    folder = tmp_path_factory.mktemp("served")
    lm.save(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    (home / "hub").mkdir()  # its list of models is what lies there
    log = folder.parent / "server.log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        process.terminate()
        process.wait(60)


def _wait(process: subprocess.Popen, url: str, log: Path) -> None:
    until = time.monotonic() + LONGEST_START_S
    while time.monotonic() < until:
        assert process.poll() is None, f"the server ended: {log.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"the server did not answer within {LONGEST_START_S:g} s: {log.read_text()[-2000:]}")


def likeliest(lm: CausalLM, text: str, count: int) -> str:
    """What the model writes after a text if it always takes the likeliest token."""
    tokenizer = lm.codec.tokenizer
    ids = tokenizer(text, return_tensors="pt")
    out = lm.model.generate(input_ids=ids["input_ids"], max_new_tokens=count, do_sample=False)
    return tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_completions_are_the_models_own_and_in_order(lm: CausalLM, address: tuple[str, str]) -> None:
    client = LLMClient(*address, concurrency=3)
    prompts = [
        prompt(stay._replace(steps=stay.steps[:-1]), stay.steps[-1].orders(), style="continue") for stay in stays(5)
    ]
    answers = client.complete(prompts, max_tokens=6)
    for text, answer in zip(prompts, answers, strict=True):
        assert answer.text == likeliest(lm, text, 6)
        assert answer.completion_tokens is not None and answer.completion_tokens <= 6
        assert answer.prompt_tokens == len(lm.codec.tokenizer(text)["input_ids"]) and answer.attempts == 1
    assert len({answer.text for answer in answers}) > 1


def test_messages_go_through_the_chat_template(lm: CausalLM, address: tuple[str, str]) -> None:
    client = LLMClient(*address)
    message = {"role": "user", "content": "heart_rate_bpm ="}
    (answer,) = client.complete([[message]], max_tokens=5)
    asked = lm.codec.tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    assert answer.text == likeliest(lm, asked, 5) and answer.finish_reason == "length"


def test_the_prompted_baseline_is_asked_through_it(address: tuple[str, str]) -> None:
    for style in ("continue", "chat"):
        asked = PromptLLM(server(LLMClient(*address), max_tokens=12), style=style)
        told = stays(2)
        done = asked.step([stay._replace(steps=stay.steps[:2]) for stay in told], [stay.steps[2] for stay in told])
        assert asked.failed == 0 and asked.inquiries == sum(len(stay.steps[2].asked) for stay in told)
        assert [[a.item for a in step.asked] for step in done] == [[a.item for a in s.steps[2].asked] for s in told]


def test_what_the_server_refuses_is_told_and_not_asked_again(address: tuple[str, str]) -> None:
    url, model = address
    with pytest.raises(LLMServerError, match="422|400"):
        LLMClient(url, model).complete(["a"], max_tokens=1, no_such_option=1)
    with pytest.raises(LLMServerError, match="status 400.*another"):
        LLMClient(url, "another").complete(["a"], max_tokens=1)
    with pytest.raises(LLMServerError, match="404.*base_url"):
        LLMClient(url + "/v1", model).complete(["a"], max_tokens=1)
    assert LLMClient(url, model).models() == []
