"""The components that come with fedrag, by name. A caller may hand in another dict."""

from __future__ import annotations

from fedrag.components.generator import GENERATOR
from fedrag.components.retriever import RETRIEVER
from fedrag.components.spec import Components

SHIPPED: Components = {"generator": GENERATOR, "retriever": RETRIEVER}
