"""The client: agent, local trainer, tasks."""
