"""Writes trained weights as ONNX with int8 weights: python -m bench.verifier.export IN.pt OUT.onnx.

Matrices are symmetric int8: blocks of 32 for MatMulNBits, whose activations are quantised row by row, so that
a pair's score doesn't depend on what else is in its batch; embeddings one scale per row.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bench.verifier.net import HEADS, LAYERS, WIDTH

BLOCK = 32
OPSET = 17
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


class Graph:
    """Nodes and weights, as they come."""

    def __init__(self, weights: dict[str, NDArray[np.float32]], accuracy: int) -> None:
        self.weights = weights
        self.accuracy = accuracy
        self.nodes: list[Any] = []
        self.stored: list[Any] = []
        self._count = 0

    def keep(self, name: str, value: Any) -> str:
        """A constant."""
        self.stored.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def add(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node with one output."""
        self._count += 1
        out = f"x{self._count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], domain=domain, **attributes))
        return out

    def linear(self, x: str, name: str) -> str:
        """x W^T + b."""
        weight = self.weights[f"{name}.weight"]
        outs, ins = weight.shape
        blocks = weight.reshape(outs, ins // BLOCK, BLOCK)
        scale = np.maximum(np.abs(blocks).max(-1), 1e-8) / 127
        whole = np.clip(np.round(blocks / scale[..., None]), -127, 127)
        packed = (whole + 128).astype(np.uint8)
        inputs = (self.keep(f"{name}.q", packed), self.keep(f"{name}.s", scale.astype(np.float32)))
        found = self.add(
            "MatMulNBits", x, *inputs, domain="com.microsoft",
            K=ins, N=outs, bits=8, block_size=BLOCK, accuracy_level=self.accuracy,
        )  # fmt: skip
        return self.add("Add", found, self.keep(f"{name}.b", self.weights[f"{name}.bias"]))

    def norm(self, x: str, name: str) -> str:
        """Layer normalisation."""
        scale = self.keep(f"{name}.w", self.weights[f"{name}.weight"])
        return self.add(
            "LayerNormalization",
            x,
            scale,
            self.keep(f"{name}.c", self.weights[f"{name}.bias"]),
            epsilon=1e-12,
        )

    def looked_up(self, ids: str, name: str) -> str:
        """Rows of an embedding, kept as int8 with a scale per row."""
        table = self.weights[f"{name}.weight"]
        scale = np.maximum(np.abs(table).max(-1, keepdims=True), 1e-8) / 127
        rows = self.add("Gather", self.keep(f"{name}.q", np.round(table / scale).astype(np.int8)), ids)
        scales = self.add("Gather", self.keep(f"{name}.s", scale.astype(np.float32)), ids)
        return self.add("Mul", self.add("Cast", rows, to=FLOAT), scales)


def built(weights: dict[str, NDArray[np.float32]], accuracy: int) -> Any:
    """ids, sides, flags, mask (int64, [n, length]) → logits (float, [n])."""
    graph = Graph(weights, accuracy)
    add, keep = graph.add, graph.keep
    keep("head_shape", np.array([0, 0, HEADS, WIDTH // HEADS]))
    keep("flat_shape", np.array([0, 0, WIDTH]))
    keep("axis1", np.array([1]))
    keep("axes12", np.array([1, 2]))
    length = add("Gather", add("Shape", "ids"), keep("one", np.array(1)), axis=0)
    places = add("Range", keep("zero", np.array(0)), length, "one")
    x = add("Add", graph.looked_up("ids", "token"), graph.looked_up(places, "position"))
    x = add("Add", add("Add", x, graph.looked_up("sides", "side")), graph.looked_up("flags", "flag"))
    x = graph.norm(x, "norm")
    seen = add("Cast", "mask", to=FLOAT)
    hidden = add("Mul", add("Sub", keep("one_f", np.float32(1)), seen), keep("far", np.float32(-1e4)))
    hidden = add("Unsqueeze", hidden, "axes12")
    for at in range(LAYERS):
        name = f"blocks.{at}"
        parts = []
        for part, value in zip("qkv", np.split(weights[f"{name}.qkv.weight"], 3), strict=True):
            own = f"{name}.{part}"
            weights[f"{own}.weight"] = value
            weights[f"{own}.bias"] = np.split(weights[f"{name}.qkv.bias"], 3)["qkv".index(part)]
            parts.append(add("Reshape", graph.linear(x, own), "head_shape"))
        q = add("Transpose", parts[0], perm=[0, 2, 1, 3])
        k = add("Transpose", parts[1], perm=[0, 2, 3, 1])
        v = add("Transpose", parts[2], perm=[0, 2, 1, 3])
        scaled = add("Mul", add("MatMul", q, k), keep(f"{name}.r", np.float32((WIDTH // HEADS) ** -0.5)))
        heads = add("MatMul", add("Softmax", add("Add", scaled, hidden), axis=-1), v)
        flat = add("Reshape", add("Transpose", heads, perm=[0, 2, 1, 3]), "flat_shape")
        x = graph.norm(add("Add", x, graph.linear(flat, f"{name}.out")), f"{name}.norm1")
        up = add("Gelu", graph.linear(x, f"{name}.up"), domain="com.microsoft")
        x = graph.norm(add("Add", x, graph.linear(up, f"{name}.down")), f"{name}.norm2")
    weight = add("Unsqueeze", seen, keep("axis2", np.array([2])))
    total = add("ReduceSum", add("Mul", x, weight), "axis1", keepdims=0)
    mean = add("Div", total, add("ReduceSum", weight, "axis1", keepdims=0))
    first = add("Gather", x, "zero", axis=1)
    dense = add("Tanh", graph.linear(add("Concat", first, mean, axis=-1), "dense"))
    logit = add(
        "Gemm",
        dense,
        keep("logit.w", weights["logit.weight"]),
        keep("logit.b", weights["logit.bias"]),
        transB=1,
    )
    graph.nodes.append(helper.make_node("Squeeze", [logit, "axis1"], ["logits"]))
    inputs = [
        helper.make_tensor_value_info(n, INT64, ["n", "length"]) for n in ("ids", "sides", "flags", "mask")
    ]
    outputs = [helper.make_tensor_value_info("logits", FLOAT, ["n"])]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_graph(graph.nodes, "verifier", inputs, outputs, graph.stored)
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--accuracy", type=int, default=4, help="4: int8 arithmetic; 1: float32")
    given = parser.parse_args()
    state = torch.load(given.weights, weights_only=True)
    model = built({name: value.float().numpy() for name, value in state.items()}, given.accuracy)
    onnx.checker.check_model(model)
    given.out.write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
