"""Train the language model form: accelerate launch -m world_models.ehr_world.causal_lm.train --stays PATH --out DIR ...

Full fine-tuning or LoRA of a local checkpoint (--model), or a model from nothing (--config). Defaults are those of
EHRWorld's section 5.1: three epochs, AdamW, cosine decay, warm-up over 5 % of the steps. The peak learning rate is not
legible in our copy of the paper; 1e-5 for full fine-tuning, 2e-4 for LoRA and 1e-3 from nothing are usual ones (k).
The paper trains under ZeRO-2: `--config_file` of `accelerate launch` takes configs/accelerate_zero2.yaml beside this
file, or accelerate_fsdp.yaml. Without a launcher it runs in one process; N processes without a GPU are started by
`accelerate launch --multi_gpu --num_processes N` all the same, and talk by gloo.

Which stay stands in which batch is a function of the seed and the step. A run that was stopped goes on from `DIR/state`
(accelerate's own format, as sharded optimisers need; load only your own); `DIR/metrics.jsonl` has a row a step;
`DIR/model` is the result, in safetensors.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from world_models.ehr_world.causal_lm.codec import NarrativeCodec, TextCodec, train_tokenizer
from world_models.ehr_world.causal_lm.codecs import load_codec
from world_models.ehr_world.causal_lm.data import Window, encoded_windows, order, stays_of
from world_models.ehr_world.causal_lm.model import CausalLM, collate, initialise, outcome_loss
from world_models.ehr_world.causal_lm.text import Narrative, render
from world_models.ehr_world.causal_lm.tokens import QuantileCodec

__all__ = ["TrainConfig", "main", "train"]

FULL_RATE, LORA_RATE, FRESH_RATE = 1e-5, 2e-4, 1e-3  # peaks: fine-tuning, LoRA, from nothing (k)


@dataclass(frozen=True)
class TrainConfig:
    """How a language model is trained."""

    epochs: int = 3  # the paper's
    learning_rate: float | None = None  # peak; None: by what is trained, see the module
    warmup_ratio: float = 0.05  # the paper's
    weight_decay: float = 0.01  # AdamW's default in torch
    clip: float = 1.0  # norm of the gradient
    batch_size: int = 1  # windows of a process at a time
    accumulate: int = 1  # batches before a step
    max_tokens: int = 4096  # of a window; a longer stay is read in several
    max_steps: int | None = None  # stop early
    lora_rank: int = 0  # 0: all weights
    lora_alpha: int = 32
    checkpointing: bool = False  # compute activations twice instead of keeping them
    precision: str = "auto"  # bf16, no, or auto: bf16 on a GPU that has it
    all_tokens: bool = False  # loss on orders, too, as ETHOS trains
    seed: int = 0
    save_every: int = 200  # steps

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "max_tokens", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.precision not in ("auto", "bf16", "no"):
            raise ValueError(f"precision={self.precision!r}; there are: auto, bf16, no")


def train(
    stays: list[Narrative],
    out: str | Path,
    config: TrainConfig,
    model: str | Path | None = None,
    architecture: dict[str, Any] | None = None,
    codec: str = "text",
    vocabulary: int = 1024,
    bins: int = 10,
    valid: list[Narrative] | None = None,
) -> Path:
    """Train and write `out/model`; returns that folder. Runs in every process of an accelerate launch.

    Args:
        model: local folder of a checkpoint with its tokenizer; or
        architecture: a Hugging Face config (see `causal_lm.model.qwen3`), its vocab_size is set here; with
        codec: "text" (a tokenizer of `vocabulary` tokens is learnt from the stays) or "quantile" (`bins` a value).

    Raises:
        ValueError: both or neither of model and architecture, or progress in `out` that another config made.
        FileNotFoundError, NarrativeError: see `codecs.load_codec`, `data.encoded_windows`.
        FloatingPointError: the loss is not finite.
    """
    accelerate = _accelerate()
    if (model is None) == (architecture is None):
        raise ValueError("give either a model folder or an architecture (a config); not both, not none")
    out = Path(out)
    if (out / "model").is_dir():
        return out / "model"
    bf16 = config.precision == "bf16" or (
        config.precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    )
    # a launcher's config file goes first where it names a precision
    named = os.environ.get("ACCELERATE_MIXED_PRECISION") if config.precision == "auto" else None
    accelerator = accelerate.Accelerator(
        cpu=not torch.accelerator.is_available() if hasattr(torch, "accelerator") else not torch.cuda.is_available(),
        mixed_precision=named or ("bf16" if bf16 else "no"),
        gradient_accumulation_steps=config.accumulate,
    )
    if model is None and accelerator.is_main_process and not (out / "codec").is_dir():
        made = _make_codec(stays, codec, vocabulary, bins)
        _from_nothing(made, config, architecture)  # what cannot be trained is refused before anything is written
        _save_codec(made, out)
    accelerator.wait_for_everyone()
    tokens = load_codec(out / "codec" if model is None else model)
    data = encoded_windows(tokens, stays, config.max_tokens, config.all_tokens)
    held = encoded_windows(tokens, valid, config.max_tokens) if valid else []
    network = _network(tokens, config, model, architecture)
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    if plugin is not None:  # we deal the batches ourselves, so DeepSpeed must be told their size
        plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = config.batch_size
    peak = config.learning_rate or (
        LORA_RATE if config.lora_rank else FULL_RATE if architecture is None else FRESH_RATE
    )
    chosen = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(chosen, lr=peak, weight_decay=config.weight_decay)
    network, optimiser = accelerator.prepare(network, optimiser)
    out.mkdir(parents=True, exist_ok=True)
    _run(accelerator, network, optimiser, data, held, tokens, config, peak, out)
    _same_weights(accelerator, network, out)
    _write(accelerator, network, tokens, out)
    return out / "model"


def _run(
    accelerator: Any,
    network: Any,
    optimiser: Any,
    data: list[Window],
    held: list[Window],
    codec: NarrativeCodec,
    config: TrainConfig,
    peak: float,
    out: Path,
) -> None:
    world, rank = accelerator.num_processes, accelerator.process_index
    whole = config.batch_size * config.accumulate * world  # windows of one step
    per_epoch = math.ceil(len(data) / whole)
    steps = min(per_epoch * config.epochs, config.max_steps or 1 << 60)
    mark = {**asdict(config), "processes": world, "windows": len(data), "vocabulary": codec.size}
    start = _resume(accelerator, out, mark)
    tally = [int((e.labels[1:] >= 0).sum()) for e in data]
    with open(out / "metrics.jsonl" if accelerator.is_main_process else os.devnull, "a", encoding="utf-8") as log:
        began, network = time.monotonic(), network.train()
        for step in range(start, steps):
            epoch, place = divmod(step, per_epoch)
            shuffled = order(len(data), config.seed, epoch)
            chosen = [int(shuffled[(place * whole + i) % len(data)]) for i in range(whole)]
            count = max(1, sum(tally[i] for i in chosen))
            rate = peak * _factor(step, steps, config.warmup_ratio)
            for group in optimiser.param_groups:
                group["lr"] = rate
            mine, total = chosen[rank::world], torch.zeros((), device=accelerator.device)
            for piece in range(config.accumulate):
                some = mine[piece * config.batch_size : (piece + 1) * config.batch_size]
                batch = [x.to(accelerator.device) for x in collate([data[i] for i in some], codec.pad)]
                with accelerator.accumulate(network):
                    with accelerator.autocast():
                        loss = outcome_loss(network, *batch)
                    # gradients are averaged over processes and over pieces; the mean is over outcome tokens
                    accelerator.backward(loss * (world * config.accumulate / count))
                    if accelerator.sync_gradients:
                        norm = accelerator.clip_grad_norm_(network.parameters(), config.clip)
                    optimiser.step()
                    optimiser.zero_grad()
                total += loss.detach()
            mean = accelerator.reduce(total, "sum").item() / count
            if not math.isfinite(mean):
                raise FloatingPointError(f"the loss is {mean} at step {step}; lower the learning rate ({peak:g})")
            row = {"step": step, "epoch": epoch, "loss": mean, "learning_rate": rate, "outcome_tokens": count}
            row |= {"gradient": float(norm) if norm is not None else None, "seconds": time.monotonic() - began}
            if held and (place + 1 == per_epoch or step + 1 == steps):
                row["valid_loss"] = _validate(accelerator, network, held, codec, config.batch_size)
            log.write(json.dumps(row) + "\n")
            log.flush()
            if (step + 1) % config.save_every == 0 or step + 1 == steps:
                _save_state(accelerator, out, {**mark, "step": step + 1})


@torch.no_grad()
def _validate(accelerator: Any, network: Any, held: list[Window], codec: NarrativeCodec, size: int) -> float:
    """Nats an outcome token. Every process runs the same number of batches, as sharded models need."""
    network.eval()
    totals = torch.zeros(2, device=accelerator.device)
    world, rank = accelerator.num_processes, accelerator.process_index
    for begin in range(0, len(held), size * world):
        some = held[begin + rank * size : begin + (rank + 1) * size]
        batch = [x.to(accelerator.device) for x in collate(some or held[:1], codec.pad)]
        with accelerator.autocast():
            loss = outcome_loss(network, *batch)
        if some:
            totals += torch.stack([loss, (batch[2][:, 1:] >= 0).sum()])
    network.train()
    nats, count = accelerator.reduce(totals, "sum").tolist()
    return nats / max(1.0, count)


def _factor(step: int, steps: int, warmup_ratio: float) -> float:
    """Linear warm-up, then half a cosine to zero."""
    warm = max(1, round(warmup_ratio * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _make_codec(stays: list[Narrative], codec: str, vocabulary: int, bins: int) -> NarrativeCodec:
    made: dict[str, Callable[[], NarrativeCodec]] = {
        "text": lambda: TextCodec(train_tokenizer((render(stay) for stay in stays), vocabulary)),
        "quantile": lambda: QuantileCodec.fit(stays, bins),
    }
    if codec not in made:
        raise ValueError(f"codec={codec!r}; there are: {', '.join(made)}")
    return made[codec]()


def _save_codec(codec: NarrativeCodec, out: Path) -> None:
    part = out / "codec.part"
    part.mkdir(parents=True, exist_ok=True)
    codec.save(part)
    os.replace(part, out / "codec")


def _from_nothing(codec: NarrativeCodec, config: TrainConfig, architecture: Any) -> CausalLM:
    sized = {**architecture, "vocab_size": codec.size} if isinstance(architecture, dict) else architecture
    return CausalLM.from_config(sized, codec, config.seed)


def read_architecture(path: str | Path) -> Any:
    """A Hugging Face config from its JSON file.

    Raises:
        FileNotFoundError, ValueError: no such file, or no JSON in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a JSON file with a Hugging Face config")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}); give a JSON file with a Hugging Face config") from None


def _network(
    codec: NarrativeCodec, config: TrainConfig, model: str | Path | None, architecture: dict[str, Any] | None
) -> Any:
    if architecture is not None:
        lm = _from_nothing(codec, config, architecture)
    else:
        assert model is not None, "`train` takes one of the two"
        lm = CausalLM.from_folder(model, dtype=torch.float32, codec=codec)
    network = lm.model
    if config.lora_rank:
        try:
            import peft
        except ImportError:
            raise ImportError('lora_rank above 0 needs peft: pip install "clinenv[llm]"') from None
        settings = peft.LoraConfig(
            r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        network = peft.get_peft_model(network, settings)
        initialise(network, config.seed, only="lora_A")
    if config.checkpointing:
        how = {"use_reentrant": False}
        if hasattr(network, "activation_checkpointing_enable"):  # transformers 5 renamed it
            network.activation_checkpointing_enable(activation_checkpointing_kwargs=how)
        else:
            network.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
        if config.lora_rank:
            network.enable_input_require_grads()
    return network


def _resume(accelerator: Any, out: Path, mark: dict[str, Any]) -> int:
    """The step to go on from."""
    path = out / "state" / "progress.json"
    if not path.is_file():
        return 0
    saved = json.loads(path.read_text(encoding="utf-8"))
    other = [f"{k}: {saved.get(k)} then, {v} now" for k, v in mark.items() if saved.get(k) != v]
    if other:
        raise ValueError(
            f"{out / 'state'} was saved by another run ({'; '.join(other)}); name another folder or delete it"
        )
    accelerator.load_state(str(out / "state"))
    return int(saved["step"])


def _save_state(accelerator: Any, out: Path, mark: dict[str, Any]) -> None:
    part, final, old = out / "state.part", out / "state", out / "state.old"
    if accelerator.is_main_process:
        shutil.rmtree(part, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(part))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (part / "progress.json").write_text(json.dumps(mark) + "\n", encoding="utf-8")
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            os.replace(final, old)
        os.replace(part, final)
        shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def _same_weights(accelerator: Any, network: Any, out: Path) -> None:
    """Every process of plain data parallelism must hold the same weights; the sums go to the metrics."""
    if str(accelerator.distributed_type).rpartition(".")[2] in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        return
    sums = torch.stack([p.detach().double().abs().sum() for p in network.parameters()]).sum().reshape(1)
    found = accelerator.gather(sums).tolist()
    if accelerator.is_main_process:
        with open(out / "metrics.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps({"processes": len(found), "weight_sums": found}) + "\n")
    if len(set(found)) > 1:
        raise RuntimeError(f"the processes ended with different weights (sums {found}); the result is not written")


def _write(accelerator: Any, network: Any, codec: NarrativeCodec, out: Path) -> None:
    part = out / "model.part"
    weights = accelerator.get_state_dict(network)
    if accelerator.is_main_process:
        shutil.rmtree(part, ignore_errors=True)
        accelerator.unwrap_model(network).save_pretrained(part, state_dict=weights)
        codec.save(part)
        os.replace(part, out / "model")
    accelerator.wait_for_everyone()


def _accelerate() -> Any:
    try:
        import accelerate
    except ImportError:
        raise ImportError('training language models needs accelerate: pip install "clinenv[llm]"') from None
    return accelerate


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m world_models.ehr_world.causal_lm.train", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--stays", required=True, help="text file of stays, or MEDS folder (its split 'train')")
    parser.add_argument("--valid", help="the same, for the loss on unseen stays; a MEDS folder's split 'tuning'")
    parser.add_argument("--out", required=True)
    parser.add_argument("--model", help="local folder of a Hugging Face causal LM")
    parser.add_argument("--config", help="JSON file with a Hugging Face config, for a model from nothing")
    parser.add_argument("--codec", choices=("text", "quantile"), default="text")
    parser.add_argument("--vocabulary", type=int, default=1024, help="tokens learnt for --config with text")
    parser.add_argument("--bins", type=int, default=10, help="quantiles of a value")
    parser.add_argument("--diagnoses", action="store_true", help="tell the discharge diagnoses (they tell the future)")
    kinds = {"int": int, "str": str}
    for name, field in TrainConfig.__dataclass_fields__.items():
        option = "--" + name.replace("_", "-")
        if field.type == "bool":
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, type=kinds.get(str(field.type).split(" ")[0], float), default=field.default)
    options = vars(parser.parse_args(arguments))
    try:
        config = TrainConfig(**{name: options[name] for name in TrainConfig.__dataclass_fields__})
        architecture = read_architecture(options["config"]) if options["config"] else None
        folder = train(
            stays_of(options["stays"], "train", options["diagnoses"]),
            options["out"],
            config,
            options["model"],
            architecture,
            options["codec"],
            options["vocabulary"],
            options["bins"],
            stays_of(options["valid"], "tuning", options["diagnoses"]) if options["valid"] else None,
        )
    except (ValueError, FileNotFoundError, ImportError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # its threads, left running, now and then abort a process that ends
    if os.environ.get("RANK", "0") == "0":
        print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
