"""The commands of the coordinator and of studies."""
