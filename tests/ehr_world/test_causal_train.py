"""Training the language model form: two processes end with the same weights, a stopped run goes on as if it had not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.ehr_world.causal_stays import stays
from world_models import keys
from world_models.ehr_world.causal_lm import train as causal_train
from world_models.ehr_world.causal_lm.data import order, stays_of
from world_models.ehr_world.causal_lm.model import CausalLM, qwen3
from world_models.ehr_world.causal_lm.text import NarrativeError, render
from world_models.ehr_world.causal_lm.train import TrainConfig, main, train

pytest.importorskip("accelerate", reason='training language models needs accelerate: pip install "clinenv[llm]"')
ROOT = Path(__file__).resolve().parents[2]
SMALL = qwen3(0, 64, 2)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in rows(folder) if "loss" in row]


def written(folder: Path, count: int) -> Path:
    path = folder / "stays.txt"
    path.write_text("\n".join(render(s) for s in stays(count, 3)), encoding="utf-8")
    return path


@pytest.mark.slow  # three interpreters load torch: 12 s on two idle cores
def test_two_processes_learn_and_end_with_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    settings = ["--batch-size", "4", "--epochs", "4", "--learning-rate", "0.003", "--vocabulary", "300"]
    where = [
        "--stays",
        str(written(tmp_path, 16)),
        "--config",
        str(tmp_path / "config.json"),
        "--out",
        str(tmp_path / "out"),
    ]
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.accelerate_cli",
        "launch",
        "--multi_gpu",
        "--num_processes",
        "2",
    ]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [*launch, "-m", "world_models.ehr_world.causal_lm.train", *where, *settings, "--codec", "quantile"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = losses(tmp_path / "out")
    assert len(found) == 8 and found[-1] < found[0] - 0.3
    last = rows(tmp_path / "out")[-1]
    assert last["processes"] == 2 and last["weight_sums"][0] == last["weight_sums"][1]
    assert CausalLM.from_folder(tmp_path / "out" / "model").model.config.hidden_size == 64


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, config = stays(10, 3), TrainConfig(epochs=3, batch_size=2, accumulate=2, save_every=2, learning_rate=2e-3)
    train(data, tmp_path / "whole", config, architecture=SMALL, codec="quantile", valid=data[:3])

    save = causal_train._save_state

    def killed(accelerator, out, mark) -> None:  # noqa: ANN001
        save(accelerator, out, mark)
        if mark["step"] == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(causal_train, "_save_state", killed)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "cut", config, architecture=SMALL, codec="quantile", valid=data[:3])
    assert not (tmp_path / "cut" / "model").exists() and len(losses(tmp_path / "cut")) == 4
    monkeypatch.undo()
    with pytest.raises(ValueError, match="learning_rate: 0.002 then, 0.1 now"):
        train(
            data,
            tmp_path / "cut",
            TrainConfig(**{**vars_of(config), "learning_rate": 0.1}),
            architecture=SMALL,
            codec="quantile",
        )
    train(data, tmp_path / "cut", config, architecture=SMALL, codec="quantile", valid=data[:3])
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    one, other = (load_file(tmp_path / n / "model" / "model.safetensors") for n in ("cut", "whole"))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    metrics = rows(tmp_path / "whole")
    assert metrics[-2]["valid_loss"] < metrics[2]["valid_loss"]
    assert metrics[0]["learning_rate"] == 2e-3 and metrics[-2]["learning_rate"] < 3e-4, "warm-up, then a cosine"
    assert train(data, tmp_path / "whole", config, architecture=SMALL) == tmp_path / "whole" / "model", "done is done"


def vars_of(config: TrainConfig) -> dict:
    return {name: getattr(config, name) for name in TrainConfig.__dataclass_fields__}


def test_accumulated_pieces_make_the_step_of_one_batch(tmp_path: Path) -> None:
    data = stays(8, 3)
    shared = {"epochs": 1, "learning_rate": 1e-3, "checkpointing": True}
    train(data, tmp_path / "one", TrainConfig(batch_size=4, **shared), architecture=SMALL, codec="quantile")
    train(
        data, tmp_path / "four", TrainConfig(batch_size=1, accumulate=4, **shared), architecture=SMALL, codec="quantile"
    )
    assert losses(tmp_path / "four") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    norms = [[r["gradient"] for r in rows(tmp_path / n) if "loss" in r] for n in ("one", "four")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_what_was_learnt_is_what_is_generated(tmp_path: Path) -> None:
    """Training and generation must feed the same tokens: a model that knows its stays by heart repeats them."""
    data = stays(6, 3)
    config = TrainConfig(epochs=60, batch_size=6, learning_rate=5e-3, save_every=1000)
    lm = CausalLM.from_folder(train(data, tmp_path, config, architecture=SMALL, codec="quantile"))
    state = lm.start(data, keys.from_seed(0, 6))
    for t in range(3):
        state, steps = lm.step(state, [s.steps[t].orders() for s in data], 4.0, temperature=0.0)
        for step, stay in zip(steps, data, strict=True):
            assert [lm.codec.outcome(a) for a in step.asked] == [lm.codec.outcome(a) for a in stay.steps[t].asked]


def test_lora_trains_little_and_is_merged_when_loaded(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason='LoRA needs peft: pip install "clinenv[llm]"')
    data = stays(6, 3)
    base = train(data, tmp_path / "base", TrainConfig(epochs=1, batch_size=3), architecture=SMALL, codec="quantile")
    lora = TrainConfig(epochs=6, batch_size=3, lora_rank=4, learning_rate=1e-2)
    tuned = train(data, tmp_path / "lora", lora, model=base)
    assert losses(tmp_path / "lora")[-1] < losses(tmp_path / "lora")[0] - 0.1
    weights = load_file(tuned / "adapter_model.safetensors")
    assert all("lora_" in name for name in weights) and not (tuned / "model.safetensors").exists()
    before, after = CausalLM.from_folder(base), CausalLM.from_folder(tuned)
    cost = [sum(x[2] for row in lm.score(data) for x in row) for lm in (before, after)]
    assert cost[1] < cost[0]
    _, steps = after.step(after.start(data[:2], keys.from_seed(0, 2)), [s.steps[0] for s in data[:2]], 4.0)
    assert all(a.known for s in steps for a in s.asked)


@pytest.mark.parametrize("name", ["accelerate_zero2.yaml", "accelerate_fsdp.yaml"])
def test_shipped_configs_are_read_by_accelerate(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    path = Path(causal_train.__file__).parent / "configs" / name
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "bf16" and config.num_processes == 8
    assert (
        config.deepspeed_config.get("zero_stage") == 2 if "zero2" in name else config.fsdp_config["fsdp_version"] == 2
    )


def test_the_papers_defaults() -> None:
    config = TrainConfig()
    assert (config.epochs, config.warmup_ratio, config.precision) == (3, 0.05, "auto")
    factors = [causal_train._factor(step, 100, 0.05) for step in range(100)]
    assert factors[4] == 1 and factors == sorted(factors[:5]) + sorted(factors[5:], reverse=True) and factors[-1] < 1e-3
    assert sorted(order(10, 0, 1)) == list(range(10)) and list(order(10, 0, 1)) != list(order(10, 0, 2))


def test_bad_input_is_named_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = stays(4)
    with pytest.raises(ValueError, match="epochs=0 must be at least 1"):
        TrainConfig(epochs=0)
    with pytest.raises(ValueError, match="there are: auto, bf16, no"):
        TrainConfig(precision="fp8")
    with pytest.raises(ValueError, match="not both, not none"):
        train(data, tmp_path / "out", TrainConfig())
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        stays_of(tmp_path / "none")
    (tmp_path / "bad.txt").write_text("patient | step 4\nhour 8\nhour 4\n")
    with pytest.raises(NarrativeError, match=r"bad.txt: line 3: .*time runs backwards"):
        stays_of(tmp_path / "bad.txt")
    status = causal_train.main(
        ["--stays", str(tmp_path / "bad.txt"), "--out", str(tmp_path / "out"), "--config", "x.json"]
    )
    assert status == 2 and "error:" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_stays_of_a_meds_folder(tmp_path: Path) -> None:
    pytest.importorskip("meds", reason="reading MEDS needs meds")
    from datetime import datetime

    from world_models.data.ehr.meds.writer import write_episodes
    from world_models.ehr_world.causal_lm.text import narrative_of, to_episode

    episodes = [to_episode(s, datetime(2150, 1, 1), subject_id=i + 1, stay_id=i + 10) for i, s in enumerate(stays(3))]
    (tmp_path / "data").mkdir()
    write_episodes(episodes, tmp_path / "data" / "0.parquet")
    found = stays_of(tmp_path)
    assert sorted(map(render, found)) == sorted(render(narrative_of(e)) for e in episodes)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ('{"model_type": "mpt", "d_model": 32, "n_layers": 2, "n_heads": 4}', "longer stay"),
        ('{"hidden_size": 32}', "no model_type"),
        ("[1, 2]", "no model_type"),
        ('{"model_type": "qwen3", "hidden_size": "wide"}', "no model can be made"),
        ("[" * 100_000, "is no JSON"),
        ("\udcff", "is no JSON"),
        (None, "does not exist"),
    ],
)
def test_a_config_that_cannot_be_trained_is_refused_before_anything_is_written(
    config, reason, tmp_path, capsys
) -> None:  # noqa: ANN001
    (tmp_path / "stays.txt").write_text("\n".join(render(s) for s in stays(3)), encoding="utf-8")
    if config is not None:
        (tmp_path / "config.json").write_bytes(config.encode("utf-8", "surrogateescape"))
    where = ["--stays", str(tmp_path / "stays.txt"), "--out", str(tmp_path / "out"), "--vocabulary", "300"]
    assert main([*where, "--config", str(tmp_path / "config.json")]) == 2
    assert reason in capsys.readouterr().err and not (tmp_path / "out").exists()
