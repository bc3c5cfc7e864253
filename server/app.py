"""The ServerApp that a coordinator runs."""

from fedrag.coordinator.app import app as app
