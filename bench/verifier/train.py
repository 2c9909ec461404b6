"""Trains the verifier: a MiniLM-L6 cross-encoder that sees which words the texts share; bfloat16 on any CPU.

    python -m bench.verifier.train DATA all-MiniLM-L6-v2.safetensors OUT.pt --epochs 3

Needs torch beside the service's own packages. Vocabulary embeddings stay as they are.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.verifier.net import CrossEncoder
from service.embedders.local import tokenizer as minilm_tokenizer
from service.verifiers.pairs import Encoded, encode, side

LONGEST = 192
TOKENS = 2048  # of one step, padding included


def batches(rows: list[tuple[Encoded, int]], chance: random.Random) -> list[list[tuple[Encoded, int]]]:
    """Of like length, in random order."""
    ordered = sorted(rows, key=lambda row: (len(row[0].ids), chance.random()))
    found: list[list[tuple[Encoded, int]]] = [[]]
    for row in ordered:
        if len(row[0].ids) * (len(found[-1]) + 1) > TOKENS:
            found.append([])
        found[-1].append(row)
    chance.shuffle(found)
    return found


def tensors(rows: list[Encoded]) -> list[Tensor]:
    """ids, sides, flags and mask, each [n, longest]."""
    width = max(len(row.ids) for row in rows)
    ids, sides, flags, mask = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(4))
    for at, row in enumerate(rows):
        length = len(row.ids)
        ids[at, :length] = torch.tensor(row.ids)
        sides[at, :length] = torch.tensor(row.sides)
        flags[at, :length] = torch.tensor(row.flags)
        mask[at, :length] = 1
    return [ids, sides, flags, mask]


def encoded(path: Path, chance: random.Random) -> list[tuple[Encoded, int]]:
    """A file's pairs, each in one of its two orders."""
    tokenizer = minilm_tokenizer()
    found = []
    for line in path.open():
        _, _, _, a, b, label = json.loads(line)
        if chance.random() < 0.5:
            a, b = b, a
        row = encode(side(tokenizer, a), side(tokenizer, b))
        if len(row.ids) <= LONGEST:
            found.append((row, int(label)))
    return found


def scores(net: CrossEncoder, rows: list[Encoded], size: int = 128) -> np.ndarray:
    """Logits, in order."""
    net.eval()
    order = sorted(range(len(rows)), key=lambda at: len(rows[at].ids))
    out = np.zeros(len(rows), np.float32)
    with torch.no_grad():
        for begin in range(0, len(order), size):
            part = order[begin : begin + size]
            out[part] = net(*tensors([rows[at] for at in part])).numpy()
    net.train()
    return out


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path, help="model.safetensors of all-MiniLM-L6-v2, or an OUT.pt")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=8e-5)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    chance = random.Random(given.seed)  # noqa: S311 - sampling
    net = CrossEncoder.started(given.weights)
    net.train()
    files = [given.data / f"epoch{number}.jsonl" for number in range(given.epochs)]
    decayed = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in net.parameters() if p.requires_grad and p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0}], lr=given.rate
    )
    done, begun, recent = 0, time.time(), 0.0
    for number, file in enumerate(files):
        steps = batches(encoded(file, chance), chance)
        for step, batch in enumerate(steps):
            share = (number + step / len(steps)) / len(files)
            warm = min(1.0, share / 0.03)
            for group in optimizer.param_groups:
                group["lr"] = given.rate * warm * 0.5 * (1 + math.cos(math.pi * share))
            labels = torch.tensor([float(label) for _, label in batch])
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(*tensors([row for row, _ in batch]))
            loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), labels * 0.97 + 0.01)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            done += len(batch)
            recent = 0.99 * recent + 0.01 * float(loss.detach()) if recent else float(loss.detach())
            if step % 100 == 0:
                print(f"{share:.3f} loss {recent:.4f} {done / (time.time() - begun):.0f} pairs/s", flush=True)
        torch.save(net.state_dict(), given.out)


if __name__ == "__main__":
    main()
