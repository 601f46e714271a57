"""The live service: stages, their state, health and stopping."""
