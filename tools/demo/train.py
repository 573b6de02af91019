"""Train the demo's language model: a small GPT-2 on free English prose, on a CPU.

    python tools/demo/train.py CORPUS_DIR OUT_DIR [--steps 3000] [--threads 2] [--resume-at STEP]

`CORPUS_DIR` is what corpus.py wrote. `OUT_DIR` becomes a Hugging Face model folder (config,
byte-level BPE tokenizer, weights in float16) with `training.json` beside the weights: settings,
seed, loss curve, and the held-out story's loss against unigram and bigram models and by length
of context.

The optimiser is Muon for the blocks' matrices (momentum, then orthogonalised by a Newton-Schulz
iteration; Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) and AdamW for the rest:
it needs fewer steps than AdamW alone. It runs in float32 throughout. A run that was interrupted goes
on from the weights last saved in OUT_DIR (every 500 steps) with --resume-at; momenta start anew there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from corpus import TEST_STORY, TEXTS, normalise
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

BOS = "<|endoftext|>"
SEED = 20261123
VOCABULARY = 4096
CONTEXT = 512  # tokens of a training window; the last is only predicted, so the model has a position less
BATCH = 8
NARRATIVE_SHARE = 0.4  # of the training windows; about 15 % of the text
LR_MATRICES, LR_OTHERS = 0.02, 2e-3
WARMUP, DECAY = 100, 1 / 3  # steps; last share of the steps over which the rate falls to zero


def train_tokenizer(corpus_dir: Path) -> Tokenizer:
    """Byte-level BPE: any text has tokens, none is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    narrative = (corpus_dir / "narrative.txt").read_text().splitlines()
    expository = (corpus_dir / "expository.txt").read_text().splitlines()
    # The stories' kind of words decides the vocabulary.
    tokenizer.train_from_iterator(3 * narrative + expository, trainer)
    return tokenizer


def encode_documents(path: Path, tokenizer: Tokenizer) -> torch.Tensor:
    """All documents of a file as one row of ids, a BOS before each."""
    documents = [" ".join(d.split()) for d in path.read_text().split("\n\n") if d.strip()]
    encoded = tokenizer.encode_batch(documents)
    return torch.tensor([i for e in encoded for i in [0, *e.ids]], dtype=torch.long)


def sample_batch(streams: dict[str, torch.Tensor], rng: np.random.Generator) -> torch.Tensor:
    """(BATCH, CONTEXT) ids: BOS, then a run of text from anywhere, as encoding windows are."""
    rows = []
    for _ in range(BATCH):
        stream = streams["narrative" if rng.random() < NARRATIVE_SHARE else "expository"]
        start = int(rng.integers(len(stream) - CONTEXT))
        rows.append(torch.cat([torch.zeros(1, dtype=torch.long), stream[start : start + CONTEXT - 1]]))
    return torch.stack(rows)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose update is brought near to an orthogonal matrix."""

    def __init__(self, matrices, lr: float, momentum: float = 0.95, weight_decay: float = 0.05):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @staticmethod
    def orthogonalise(update: torch.Tensor) -> torch.Tensor:
        wide = update.T if update.shape[0] > update.shape[1] else update
        x = wide / (wide.norm() + 1e-7)
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        x = x.T if update.shape[0] > update.shape[1] else x
        return x * max(1.0, update.shape[0] / update.shape[1]) ** 0.5

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for matrix in group["params"]:
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - group["momentum"])
                update = matrix.grad.lerp(momentum, group["momentum"])
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                # A fused q, k, v projection is three matrices side by side.
                parts = (
                    update.split(update.shape[0], dim=1)
                    if update.shape[1] == 3 * update.shape[0]
                    else (update,)
                )
                matrix.sub_(group["lr"] * torch.cat([self.orthogonalise(p) for p in parts], dim=1))


def rate(step: int, n_steps: int) -> float:
    """The share of the full learning rate at a step: warm-up, plateau, linear decay."""
    return min(1.0, (step + 1) / WARMUP, (n_steps - step) / (DECAY * n_steps))


def heldout_story_ids(tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode(normalise((TEXTS / f"{TEST_STORY}.txt").read_text())).ids


@torch.no_grad()
def loss_by_context(
    model: GPT2LMHeadModel, ids: list[int], lengths=(4, 16, 64, 256, 510)
) -> dict[int, float]:
    """Mean nats a token when each is predicted from at most that many tokens before it, and BOS.

    The same tokens are scored at every length: those after the first 510.
    """
    losses = {}
    targets = range(510, len(ids))
    for length in lengths:
        total = 0.0
        for block in range(0, len(targets), 32):
            ends = targets[block : block + 32]
            windows = torch.tensor([[0, *ids[t - length : t]] for t in ends])
            hidden = model.transformer(windows).last_hidden_state[:, -1]
            log_p = model.lm_head(hidden).log_softmax(-1)
            total -= log_p[torch.arange(len(ends)), torch.tensor([ids[t] for t in ends])].sum().item()
        losses[length] = total / len(targets)
    return losses


@torch.no_grad()
def story_loss(model: GPT2LMHeadModel, ids: list[int]) -> float:
    """Mean nats a token over the whole story, each token seen with 254 to 510 tokens before it."""
    total, start, done = 0.0, 0, 0
    while done < len(ids):
        window = [0, *ids[start : start + CONTEXT - 2]]
        log_p = model(torch.tensor([window])).logits[0].log_softmax(-1)
        for position in range(done - start, len(window) - 1):
            total -= log_p[position, window[position + 1]].item()
        done = start + len(window) - 1
        start += CONTEXT // 2
    return total / len(ids)


def ngram_losses(streams: dict[str, torch.Tensor], ids: list[int]) -> dict[str, float]:
    """Held-out nats a token of unigram and bigram models counted on the whole training text.

    Absolute discounting with interpolation (Ney, Essen and Kneser 1994); discount and the weight
    of the narrative text are chosen in the n-gram models' favour, on the held-out story itself.
    """
    best = {"unigram": math.inf, "bigram": math.inf}
    for weight in (1, 3, 10, 30):
        unigrams, bigrams, followers, totals = Counter(), Counter(), Counter(), Counter()
        for name, stream in streams.items():
            n = weight if name == "narrative" else 1
            tokens = stream.tolist()
            for token, count in Counter(tokens).items():
                unigrams[token] += n * count
            for pair, count in Counter(itertools.pairwise(tokens)).items():
                bigrams[pair] += n * count
        for (first, _), count in bigrams.items():
            followers[first] += 1
            totals[first] += count
        n_tokens = sum(unigrams.values())
        p_uni = {t: (unigrams[t] + 0.5) / (n_tokens + 0.5 * VOCABULARY) for t in set(ids)}
        best["unigram"] = min(best["unigram"], -sum(math.log(p_uni[t]) for t in ids) / len(ids))
        for discount in (0.5, 0.75, 0.9, 2.0, 5.0):
            loss = 0.0
            for first, second in zip([0, *ids[:-1]], ids, strict=True):
                total = totals[first]
                kept = max(bigrams[first, second] - discount, 0.0)
                spare = min(total, discount * followers[first])
                loss -= math.log((kept + spare * p_uni[second]) / total if total else p_uni[second])
            best["bigram"] = min(best["bigram"], loss / len(ids))
    return best


def save(model: GPT2LMHeadModel, tokenizer: Tokenizer, out_dir: Path) -> None:
    half = GPT2LMHeadModel(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(out_dir)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS, unk_token=BOS, model_max_length=CONTEXT - 1
    )
    fast.save_pretrained(out_dir)


def write_record(record: dict, path: Path) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    temporary.rename(path)


def earlier_curve(arguments: argparse.Namespace) -> list[dict]:
    """The loss curve up to the step that is resumed at."""
    if not arguments.resume_at:
        return []
    curve = json.loads((arguments.out_dir / "training.json").read_text())["curve"]
    return [point for point in curve if point["step"] <= arguments.resume_at]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--resume-at", type=int, default=0, help="step at which the saved weights were written"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(SEED)
    rng = np.random.default_rng([SEED, arguments.resume_at])

    tokenizer = train_tokenizer(arguments.corpus_dir)
    streams = {
        n: encode_documents(arguments.corpus_dir / f"{n}.txt", tokenizer) for n in ("narrative", "expository")
    }
    story = heldout_story_ids(tokenizer)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT - 1, n_embd=192, n_layer=6, n_head=6,
        bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    if arguments.resume_at:
        model = GPT2LMHeadModel.from_pretrained(arguments.out_dir, dtype=torch.float32)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and ".h." in n]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and ".h." in n)]
    optimisers = [
        Muon(matrices, lr=LR_MATRICES),
        torch.optim.AdamW(others, lr=LR_OTHERS, betas=(0.9, 0.95), weight_decay=0.01),
    ]
    full_rates = [[g["lr"] for g in o.param_groups] for o in optimisers]
    n_parameters = sum(p.numel() for p in model.parameters())
    sizes = {n: len(s) for n, s in streams.items()}
    ngrams = ngram_losses(streams, story)
    print(
        f"{n_parameters} parameters; training tokens {sizes}; held-out tokens {len(story)}; {ngrams}",
        flush=True,
    )

    body = torch.compile(model.transformer)
    started, curve, running = time.monotonic(), earlier_curve(arguments), []
    for step in range(arguments.resume_at, arguments.steps):
        ids = sample_batch(streams, rng)
        hidden = body(ids[:, :-1]).last_hidden_state
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimiser, rates in zip(optimisers, full_rates, strict=True):
            for group, full in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = full * rate(step, arguments.steps)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        running.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == arguments.steps:
            curve.append({
                "step": step + 1,
                "tokens": (step + 1) * BATCH * CONTEXT,
                "train_loss": round(float(np.mean(running)), 4),
                "heldout_story_loss": round(story_loss(model, story), 4),
                "seconds": round(time.monotonic() - started),
            })  # fmt: skip
            running = []
            print(curve[-1], flush=True)
        if (step + 1) % 500 == 0:
            save(model, tokenizer, arguments.out_dir)
            write_record({"curve": curve}, arguments.out_dir / "training.json")

    save(model, tokenizer, arguments.out_dir)
    stored = GPT2LMHeadModel.from_pretrained(arguments.out_dir, dtype=torch.float32).eval()
    record = {
        "seed": SEED,
        "resumed_at_step": arguments.resume_at,
        "parameters": n_parameters,
        "training_tokens_available": sizes,
        "training_tokens_seen": arguments.steps * BATCH * CONTEXT,
        "narrative_share": NARRATIVE_SHARE,
        "optimiser": {"muon_lr": LR_MATRICES, "adamw_lr": LR_OTHERS, "batch": BATCH, "context": CONTEXT},
        "torch": torch.__version__,
        "heldout_story": TEST_STORY,
        "heldout_story_tokens": len(story),
        "heldout_loss_nats_per_token": {"model": round(story_loss(stored, story), 4)}
        | {k: round(v, 4) for k, v in ngrams.items()},
        "heldout_loss_by_context_tokens": {k: round(v, 4) for k, v in loss_by_context(stored, story).items()},
        "curve": curve,
    }
    write_record(record, arguments.out_dir / "training.json")
    print(json.dumps({k: v for k, v in record.items() if k != "curve"}, indent=1))


if __name__ == "__main__":
    main()
