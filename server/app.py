"""The ServerApp that a coordinator runs."""

from fedrag.coordinator.server_app import app as coordinator_app

app = coordinator_app  # Flower looks for an assignment, not an import
