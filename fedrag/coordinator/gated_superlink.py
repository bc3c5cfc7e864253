"""The process of the SuperLink: `python -m fedrag.coordinator.gated_superlink`, with the options of flower-superlink.

It is Flower's own, with a store that no site can spoil and a gate that lets replies pass and nothing else.
"""

from __future__ import annotations

from flwr.supercore.object_store import object_store_factory
from flwr.superlink import main as superlink
from flwr.superlink.cli import flower_superlink
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from starlette.applications import Starlette
from starlette.middleware import Middleware

from fedrag.coordinator.flat_store import FlatObjectStore
from fedrag.coordinator.fleet_gate import FleetGate


def _gated_app(config: SuperLinkLifespanConfig | None, lifespan: type[SuperLinkLifespan] | None) -> Starlette:
    app = _flower_app(config, lifespan)
    app.user_middleware.append(Middleware(FleetGate))  # innermost: behind the check of who asks
    return app


_flower_app = superlink.create_app

if __name__ == "__main__":
    object_store_factory.SqlObjectStore = FlatObjectStore  # type: ignore[attr-defined]  # Flower has no seam for it
    superlink.create_app = _gated_app  # type: ignore[assignment]
    flower_superlink()
