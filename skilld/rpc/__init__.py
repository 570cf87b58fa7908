"""The socket: framings, dispatch and the methods that callers see."""
