"""skilld serves the agent skills of one machine over a Unix socket, and can prove which ones they are."""

__version__ = "0.1.0"
