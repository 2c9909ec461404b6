"""The cross-encoder: MiniLM-L6 with one more embedding, of how a word is found in the other text."""

from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, LAYERS, VOCABULARY, POSITIONS, FLAGS = 384, 12, 6, 30522, 512, 5


class Block(nn.Module):  # type: ignore[misc, unused-ignore] # torch isn't installed in CI
    """One layer of BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-12)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor, seen: Tensor, drop: float) -> Tensor:
        """[n, length, 384] → the same."""
        n, length, _ = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        mixed = self.out(heads.transpose(1, 2).reshape(n, length, WIDTH))
        x = self.norm1(x + functional.dropout(mixed, drop, self.training))
        return self.norm2(x + functional.dropout(self.down(functional.gelu(self.up(x))), drop, self.training))


class CrossEncoder(nn.Module):  # type: ignore[misc, unused-ignore] # torch isn't installed in CI
    """ids, sides, flags, mask, each [n, length] → logits [n]."""

    def __init__(self, drop: float = 0.1) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Embedding(POSITIONS, WIDTH)
        self.side = nn.Embedding(2, WIDTH)
        self.flag = nn.Embedding(FLAGS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.dense = nn.Linear(2 * WIDTH, WIDTH)
        self.logit = nn.Linear(WIDTH, 1)
        self.drop = drop
        nn.init.zeros_(self.flag.weight)
        self.token.weight.requires_grad = False
        self.position.weight.requires_grad = False

    def forward(self, ids: Tensor, sides: Tensor, flags: Tensor, mask: Tensor) -> Tensor:
        """See the class."""
        places = torch.arange(ids.shape[1])[None]
        x = self.norm(self.token(ids) + self.position(places) + self.side(sides) + self.flag(flags))
        x = functional.dropout(x, self.drop, self.training)
        seen = mask[:, None, None, :].bool()
        for block in self.blocks:
            x = block(x, seen, self.drop)
        weight = mask[:, :, None].to(x.dtype)
        mean = (x * weight).sum(1) / weight.sum(1)
        return self.logit(torch.tanh(self.dense(torch.cat([x[:, 0], mean], -1))))[:, 0]

    @classmethod
    def started(cls, path: Path) -> Self:
        """From the weights of all-MiniLM-L6-v2, or from those of an earlier training."""
        net = cls()
        if path.suffix == ".pt":
            net.load_state_dict(torch.load(path, weights_only=True))
            return net
        given = load_file(path)
        own = {
            "token.weight": given["embeddings.word_embeddings.weight"],
            "position.weight": given["embeddings.position_embeddings.weight"],
            "side.weight": given["embeddings.token_type_embeddings.weight"],
        }
        for kind in ("weight", "bias"):
            own[f"norm.{kind}"] = given[f"embeddings.LayerNorm.{kind}"]
            for at in range(LAYERS):
                layer, block = f"encoder.layer.{at}", f"blocks.{at}"
                parts = [given[f"{layer}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
                own[f"{block}.qkv.{kind}"] = torch.cat(parts)
                own[f"{block}.out.{kind}"] = given[f"{layer}.attention.output.dense.{kind}"]
                own[f"{block}.norm1.{kind}"] = given[f"{layer}.attention.output.LayerNorm.{kind}"]
                own[f"{block}.up.{kind}"] = given[f"{layer}.intermediate.dense.{kind}"]
                own[f"{block}.down.{kind}"] = given[f"{layer}.output.dense.{kind}"]
                own[f"{block}.norm2.{kind}"] = given[f"{layer}.output.LayerNorm.{kind}"]
        missing, unknown = net.load_state_dict(
            {key: value.float() for key, value in own.items()}, strict=False
        )
        if unknown or {name.split(".")[0] for name in missing} != {"flag", "dense", "logit"}:
            raise ValueError(f"{path} does not hold all-MiniLM-L6-v2")
        return net
