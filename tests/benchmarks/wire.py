"""What goes over the wire: bytes of the three number formats, seconds to encode and decode, for the real models' sizes.

An update of each size is drawn from a normal distribution; bytes do not depend on its values. It is written and read
as a site and the server do, by `codec.encode` and `codec.decode`, the formats in turn, on one thread; the time in the
table is that of both together for the generator's adapter. The retriever's row compares an update of its LoRA with one
of all its weights, both in float32. What int8 costs in accuracy is not measured here but for one figure: the root mean
square of its error over that of the update.
"""

from __future__ import annotations

import numpy as np
from bench import Row, in_turn, main
from models import config, load_retriever

from fedrag.federation.codec import WIRES, decode, encode
from fedrag.models.generator import adapter_shapes
from fedrag.types import Array
from fedrag.weights.store import count_parameters, find_model

TIMES = 7
MB = 1e6


def sizes() -> dict[str, int]:
    """Return the number of values of the updates that federations with the default models send."""
    settings = config()
    shapes = adapter_shapes(find_model(settings.models.generator), settings.generator.lora)
    retriever = load_retriever()
    return {
        "generator_lora": sum(int(np.prod(shape)) for shape in shapes.values()),
        "retriever_lora": sum(tensor.size for tensor in retriever.initial_state(0).values()),
        "retriever_full": count_parameters(find_model(settings.models.retriever).folder),
    }


def figures(size: int) -> dict[str, float]:
    """Return bytes, seconds and relative error of each number format for one update."""
    update: Array = 0.01 * np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    raw = {wire: encode(update, wire, seed=1) for wire in WIRES}
    encoding = in_turn(TIMES, **{wire: lambda wire=wire: encode(update, wire, seed=1) for wire in WIRES})
    decoding = in_turn(TIMES, **{wire: lambda wire=wire: decode(raw[wire], wire, size) for wire in WIRES})
    found: dict[str, float] = {"values": size}
    for wire in WIRES:
        error = decode(raw[wire], wire, size) - update
        found[f"{wire}_bytes"] = raw[wire].nbytes
        found[f"{wire}_encode_ms"] = 1e3 * encoding[wire]
        found[f"{wire}_decode_ms"] = 1e3 * decoding[wire]
        found[f"{wire}_error_percent"] = 100 * float(np.linalg.norm(error) / np.linalg.norm(update))
    return found


def measure() -> list[Row]:
    """Measure the bytes on the wire and what it takes to write and read them."""
    found = {name: figures(size) for name, size in sizes().items()}
    rows = [
        Row(
            f"wire: int8 against float32, {name.replace('_', ', ')}",
            100 * of["int8_bytes"] / of["float32_bytes"],
            "%",
            27,
            most=True,
            figures=of,
        )
        for name, of in found.items()
    ]
    lora, full = found["retriever_lora"]["float32_bytes"], found["retriever_full"]["float32_bytes"]
    both = {"lora_mb": lora / MB, "full_mb": full / MB}
    rows.append(Row("wire: the retriever's LoRA against its full weights", 100 * lora / full, "%", figures=both))
    generator = found["generator_lora"]
    for wire in WIRES:
        seconds = generator[f"{wire}_encode_ms"] + generator[f"{wire}_decode_ms"]
        rows.append(Row(f"wire: {wire}, the generator's adapter written and read", seconds, "ms"))
    return rows


if __name__ == "__main__":
    main(measure)
