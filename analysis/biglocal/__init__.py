"""biglocal: the replication package for the causal impact of Big Local."""

__version__ = "0.1.0"
