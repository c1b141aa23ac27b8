"""Ray Tune drives a federated training: needs the extra `ray`, and nothing of the coordinator or the clients."""

from fedstep.ray.trainable import FederatedRun

__all__ = ["FederatedRun"]
