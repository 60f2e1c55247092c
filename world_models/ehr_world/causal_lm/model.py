"""EHRWorld's own form: a causal language model that writes the outcomes of a step's orders after the stay so far.

Any Hugging Face causal LM with full attention (Qwen3, Llama, ...), from a local folder or from a config; nothing is
downloaded. The state of a batch of stays is a NamedTuple of batch-first tensors, the KV cache among them, so it is
branched, repeated and put back like any world's state. A step feeds only what is new since the last one.

Stays of a batch differ in length: shorter pieces are filled up with places that no later token can see, and places are
numbered without them, so a row reads the same as alone. When a third of the cache is such filling it is squeezed out.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from world_models import keys, tree
from world_models.ehr_world.causal_lm.cache import EMPTY, LMState, cache_of, joined, squeeze
from world_models.ehr_world.causal_lm.codec import IGNORED, Encoded, NarrativeCodec, encode
from world_models.ehr_world.causal_lm.codecs import load_codec
from world_models.ehr_world.causal_lm.data import Window
from world_models.ehr_world.causal_lm.grammar import DONE, Automaton
from world_models.ehr_world.causal_lm.probe import check_attention, check_reading, library_errors, most_positions
from world_models.ehr_world.causal_lm.text import AskedItem, Narrative, NarrativeStep

__all__ = ["CausalLM", "LMState", "collate", "initialise", "outcome_loss", "qwen3", "squeeze"]

_FILLING, _SHORT = 1 / 3, 64  # share of the cache at which it is squeezed, and places below which that does not pay


def qwen3(vocabulary: int, width: int = 128, layers: int = 4, heads: int = 4, context: int = 4096) -> dict[str, Any]:
    """A config of Qwen3's architecture, for a small model trained from nothing.

    Every head has keys of its own: shared ones are copied for each head at every token, which at batch 64 costs more on
    a processor than all the rest.
    """
    return {
        "model_type": "qwen3",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": width // heads,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
    }


def initialise(model: torch.nn.Module, seed: int = 0, spread: float = 0.02, only: str = "") -> None:
    """Matrices (those whose name holds `only`) anew: normal with this standard deviation, a function of seed and name.

    Libraries sample first weights from the global generator; this makes them the same in every process.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and only in name:
            key = keys.from_seed(seed, device=parameter.device)
            first = keys.normal(key, 0, f"causal_lm/{name}", tuple(parameter.shape))[0]
            parameter.data.copy_(first.mul_(spread))


class CausalLM:
    """A language model and its tokenisation.

    Raises:
        ValueError: a model that reads other in a batch than alone or forgets (see `probe`), or another's codec.
    """

    def __init__(self, model: Any, codec: NarrativeCodec) -> None:
        check_attention(model.config)
        rows = model.get_input_embeddings().weight.shape[0]
        if rows < codec.size:
            raise ValueError(
                f"the model has {rows} token embeddings and the vocabulary {codec.size} tokens: "
                "they do not belong together; load the codec that was saved with the model"
            )
        self.model, self.codec = model, codec
        self.device = model.get_input_embeddings().weight.device
        self.limit = most_positions(model.config)
        self._keep = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._automaton: Automaton = codec.automaton.to(self.device)
        check_reading(self)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        codec: NarrativeCodec | None = None,
    ) -> CausalLM:
        """A checkpoint on disk (config.json and safetensors), or a LoRA adapter, merged into its base.

        Raises:
            FileNotFoundError: no such folder, or no model or tokenizer in it.
            ValueError: the vocabulary is not the model's; code or weights that would have to be run or unpickled;
                attention that the cache cannot serve.
        """
        from transformers import AutoModelForCausalLM

        folder = Path(folder)
        codec = load_codec(folder) if codec is None else codec
        base = folder
        if (folder / "adapter_config.json").is_file():
            peft = _peft()
            with library_errors(f"the adapter's config in {folder} cannot be read"):
                base = Path(peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path)
            _has_safetensors(folder, "adapter_model.safetensors")
        if not (base / "config.json").is_file():
            raise FileNotFoundError(
                f"{base} holds no config.json; give the local folder of a model, nothing is downloaded"
            )
        _has_safetensors(base, "model*.safetensors")
        with library_errors(f"{base} cannot be loaded"):
            model: Any = AutoModelForCausalLM.from_pretrained(
                base, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype or "auto"
            )
            if base != folder:
                model = peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
        return cls(model.to(device).eval(), codec)

    @classmethod
    def from_config(cls, config: dict[str, Any], codec: NarrativeCodec, seed: int = 0, device: str = "cpu") -> CausalLM:
        """A model with first weights from `seed`. `config` as in a config.json, see `qwen3`.

        Special tokens beyond its vocabulary (those of the vocabulary the config was made for) are left out.

        Raises:
            ValueError: a config of no model that transformers has, or as for the class.
        """
        from transformers import AutoConfig, AutoModelForCausalLM

        if not isinstance(config, dict) or "model_type" not in config:
            raise ValueError("the config has no model_type; give the content of a config.json, such as qwen3() makes")
        rest = {name: value for name, value in config.items() if name != "model_type"}
        with library_errors(f"no model can be made from this config of {config['model_type']!r}"):
            whole = AutoConfig.for_model(config["model_type"], **rest)
            known = range(whole.get_text_config().vocab_size)
            for name, instead in (("pad_token_id", codec.pad), ("bos_token_id", None), ("eos_token_id", None)):
                ids = getattr(whole, name, None)
                if any(i not in known for i in (ids if isinstance(ids, list) else [ids]) if i is not None):
                    setattr(whole, name, instead)
            with torch.random.fork_rng(devices=[]):
                model = AutoModelForCausalLM.from_config(whole, trust_remote_code=False)
        initialise(model, seed)
        return cls(model.float().to(device).eval(), codec)

    def save(self, folder: str | Path) -> None:
        """Weights (safetensors), config, and the codec."""
        self.model.save_pretrained(folder)
        self.codec.save(folder)

    # ------------------------------------------------------------------ the stay so far

    def start(self, narratives: Sequence[Narrative], key: Tensor) -> LMState:
        """Stays of which only the context is told; their steps are not read. key int64 [B]."""
        batch = len(narratives)
        if key.shape != (batch,):
            raise ValueError(f"{batch} stays need {batch} keys, got a key of shape {tuple(key.shape)}")
        zeros = torch.zeros(batch, dtype=torch.int64, device=self.device)
        pending = self._padded([self.codec.context(n) for n in narratives])
        return LMState(key.to(self.device), zeros - 1, zeros, pending[:, :0], pending, ())

    def remember(self, state: LMState, steps: Sequence[NarrativeStep], hours_per_step: float) -> LMState:
        """A step [B] with its true outcomes is told. Raises NarrativeError where an outcome is missing."""
        pieces = []
        for step, before in zip(steps, state.t.tolist(), strict=True):
            tokens = list(self.codec.orders(step, before, hours_per_step))
            for asked in step.asked:
                tokens += [*self.codec.ask(asked.item), *self.codec.outcome(asked)]
            pieces.append(tokens)
        t = torch.tensor([step.number for step in steps], dtype=torch.int64, device=self.device)
        return self._tell(state, pieces)._replace(t=t)

    def fork(self, state: LMState, times: int, key: Tensor) -> LMState:
        """Each stay `times` times in a run, with the random streams of key [B * times]: samples of what may come."""
        return tree.repeat(state, times)._replace(key=key.to(self.device))

    @torch.no_grad()
    def step(
        self,
        state: LMState,
        orders: Sequence[NarrativeStep],
        hours_per_step: float,
        temperature: float = 1.0,
        watch: Callable[[list[str | None], Tensor], None] | None = None,
    ) -> tuple[LMState, list[NarrativeStep]]:
        """The outcomes of a step's orders [B], sampled one after the other; each always parses.

        The random numbers of an outcome belong to key, step and item: other orders beside it leave them as they are.

        Args:
            orders: of each stay; outcomes that stand in them are not read.
            temperature: 0 takes the likeliest token.
            watch: told of each outcome [B] the item (None: the row has none) and the chances [B, V] of its first token.

        Returns:
            The state with orders and outcomes told, and the steps with their outcomes.
        """
        t = torch.tensor([step.number for step in orders], dtype=torch.int64, device=self.device)
        pieces = [self.codec.orders(step, b, hours_per_step) for step, b in zip(orders, state.t.tolist(), strict=True)]
        state = self._tell(state, pieces)._replace(t=t)
        done: list[list[AskedItem]] = [[] for _ in orders]
        asks = sum(len(self.codec.ask(a.item)) + 4 for a in max((s.asked for s in orders), key=len))
        cache = cache_of(state.cache, room=state.pending.shape[1] + asks)
        for place in range(max(len(step.asked) for step in orders)):
            items = [step.asked[place].item if place < len(step.asked) else None for step in orders]
            luck = keys.fold(state.key, self._whose(orders, place))
            state, tokens, where = self._outcome(state, items, luck, temperature, cache, watch)
            for row, item in enumerate(items):
                if item is not None:
                    done[row].append(self.codec.decode(item, tokens[row], where[row]))
        if state.mask.shape[1] > _SHORT and state.mask.float().mean() < 1 - _FILLING:
            state = squeeze(state)
        return state, [step._replace(asked=tuple(a)) for step, a in zip(orders, done, strict=True)]

    def _whose(self, orders: Sequence[NarrativeStep], place: int) -> Tensor:
        """int64 [B]: a number for the inquiry at this place of each row; asked twice, an item has two."""
        found = []
        for asked in (step.asked for step in orders):
            item = asked[place].item if place < len(asked) else ""
            found.append(zlib.crc32(f"{item}/{sum(a.item == item for a in asked[:place])}".encode()))
        return torch.tensor(found, dtype=torch.int64, device=self.device)

    def _outcome(
        self,
        state: LMState,
        items: list[str | None],
        luck: Tensor,
        temperature: float,
        cache: Any,
        watch: Callable[[list[str | None], Tensor], None] | None,
    ) -> tuple[LMState, list[list[int]], list[float]]:
        """One outcome for every row that has an item, by the keys `luck` [B]."""
        codec, automaton = self.codec, self._automaton
        live = torch.tensor([item is not None for item in items], device=self.device)
        state = self._tell(state, [[] if item is None else codec.ask(item) for item in items])
        state, logits = self.feed(state, live, cache)
        starts = [DONE if item is None else automaton.start(codec.kind(item)) for item in items]
        at = torch.tensor(starts, dtype=torch.int64, device=self.device)
        taken: list[Tensor] = []
        where = [0.5] * len(items)
        if temperature > 0:
            where = keys.uniform(luck, state.t, "causal_lm/where").tolist()
        for budget in range(codec.longest, 0, -1):
            allowed = automaton.allowed(at, budget)
            wanted = logits[:, : allowed.shape[1]].float().masked_fill(~allowed, -torch.inf)
            wanted = wanted.masked_fill(~live.unsqueeze(1), 0.0)
            chance = torch.softmax(wanted / (temperature or 1.0), -1)
            token = likeliest = chance.argmax(-1)
            if watch is not None and not taken:
                watch(items, chance)
            if temperature > 0:
                token = keys.categorical(keys.fold(luck, len(taken)), state.t, "causal_lm/token", chance)
                # the cut of a running sum can fall on a token of no chance at all
                token = torch.where(chance.gather(1, token[:, None])[:, 0] > 0, token, likeliest)
            taken.append(torch.where(live, token, EMPTY))
            state = state._replace(pending=joined(state.pending, taken[-1].unsqueeze(1)))
            at = torch.where(live, automaton.advance(at, token.clamp_max(allowed.shape[1] - 1)), at)
            live = live & (at != DONE)
            if not bool(live.any()):
                break
            state, logits = self.feed(state, live, cache)
        rows = torch.stack(taken, 1).tolist()
        return state, [[token for token in row if token != EMPTY] for row in rows], where

    # ------------------------------------------------------------------ tokens and cache

    def _padded(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        longest = max((len(p) for p in pieces), default=0)
        rows = [[*p, *[EMPTY] * (longest - len(p))] for p in pieces]
        return torch.tensor(rows, dtype=torch.int64, device=self.device).reshape(len(pieces), longest)

    def _tell(self, state: LMState, pieces: Sequence[Sequence[int]]) -> LMState:
        return state._replace(pending=joined(state.pending, self._padded(pieces)))

    @torch.no_grad()
    def feed(self, state: LMState, rows: Tensor | None = None, cache: Any = None) -> tuple[LMState, Tensor]:
        """Feed what is pending of the rows [B] (default: all), through a cache of `cache_of` that holds the state's.

        Returns:
            The state, and logits [B, V] behind the last token of each row that had one (of others: of no meaning).

        Raises:
            ValueError: more tokens than the model has positions for.
        """
        rows = torch.ones_like(state.key, dtype=torch.bool) if rows is None else rows
        # a row with nothing in the cache would attend to nothing, and leave NaN there
        rows = rows | (state.position == 0)
        real = (state.pending != EMPTY) & rows.unsqueeze(1)
        width = int(real.sum(1).max()) if real.numel() else 0
        if width == 0:
            raise ValueError("nothing is pending; tell a step first")
        ids, seen = state.pending[:, :width], real[:, :width]
        count = seen.sum(1)
        position = (state.position.unsqueeze(1) + torch.cumsum(seen, 1) - 1).clamp_min(0)
        if int(position.max()) >= self.limit:
            raise ValueError(
                f"a stay has {int(position.max()) + 1} tokens and the model {self.limit} positions; start again from "
                "its last steps (codec.last_steps), or take a model with a longer context"
            )
        fed = torch.cat([state.fed, torch.where(seen, ids, EMPTY)], 1)
        last = (count - 1).clamp_min(0)
        kept, which = torch.unique(last, return_inverse=True)
        out = self.model(
            input_ids=torch.where(seen, ids, self.codec.pad),
            attention_mask=(fed != EMPTY).to(torch.int64),
            position_ids=position,
            past_key_values=cache_of(state.cache) if cache is None else cache,
            use_cache=True,
            **({"logits_to_keep": kept} if self._keep else {}),
        )
        logits = out.logits[torch.arange(len(last), device=last.device), which if self._keep else last]
        layers = tuple((layer.keys, layer.values) for layer in out.past_key_values.layers)
        pending = torch.where(rows.unsqueeze(1), EMPTY, state.pending)
        pending = pending if bool((pending != EMPTY).any()) else pending[:, :0]
        return state._replace(position=state.position + count, fed=fed, pending=pending, cache=layers), logits

    # ------------------------------------------------------------------ likelihood

    @torch.no_grad()
    def score(self, narratives: Sequence[Narrative]) -> list[list[tuple[int, str, float]]]:
        """Of each stay: (step, item, negative log-likelihood in nats) of every outcome, given all before it.

        Over all tokens, not only those the grammar allows. For quantile tokens it is that of the bin.
        """
        encoded = [encode(self.codec, n) for n in narratives]
        ids, mask, labels = (x.to(self.device) for x in collate(encoded, self.codec.pad))
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        cost = functional.cross_entropy(
            logits.transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none"
        ).tolist()
        found = []
        for row, narrative in enumerate(narratives):
            costs, place, before = [], len(self.codec.context(narrative)), -1
            for step in narrative.steps:
                place += len(self.codec.orders(step, before, narrative.hours_per_step))
                before = step.number
                for asked in step.asked:
                    place += len(self.codec.ask(asked.item))
                    length = len(self.codec.outcome(asked))
                    costs.append((step.number, asked.item, sum(cost[row][place - 1 : place - 1 + length])))
                    place += length
            found.append(costs)
        return found


def collate(
    encoded: Sequence[Encoded] | Sequence[Window], pad: int, limit: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """ids, attention mask, labels: int64 [B, N], filled at the right; cut at `limit` tokens."""
    longest = min(max(len(e.ids) for e in encoded), limit or 1 << 60)
    ids = torch.full((len(encoded), longest), pad, dtype=torch.int64)
    labels = torch.full((len(encoded), longest), IGNORED, dtype=torch.int64)
    mask = torch.zeros((len(encoded), longest), dtype=torch.int64)
    for row in range(len(encoded)):
        some = encoded[row]
        count = min(len(some.ids), longest)
        ids[row, :count] = torch.as_tensor(some.ids[:count], dtype=torch.int64)
        labels[row, :count] = torch.as_tensor(some.labels[:count], dtype=torch.int64)
        mask[row, :count] = 1
    return ids, mask, labels


def outcome_loss(model: Any, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Sum of the negative log-likelihoods of all tokens with a label, given what stands before them."""
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    counts = labels[:, 1:] != IGNORED
    return functional.cross_entropy(logits[counts].float(), labels[:, 1:][counts], reduction="sum")


def _has_safetensors(folder: Path, pattern: str) -> None:
    """Raises ValueError: only weights that would be unpickled; FileNotFoundError: none at all."""
    if any(folder.glob(pattern)):
        return
    others = sorted(f.name for f in folder.glob("*") if f.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
    if others:
        raise ValueError(
            f"{folder} holds its weights as {others[0]}, which unpickling would run as code; save them as safetensors"
        )
    raise FileNotFoundError(f"{folder} holds no {pattern}; give the local folder of a whole model")


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ImportError('LoRA adapters need peft: pip install "clinenv[llm]"') from None
    return peft
