"""A rehearsal of autoscaling: the HPA's and KEDA's arithmetic on simulated replicas of a measured server."""
