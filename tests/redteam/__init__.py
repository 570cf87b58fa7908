"""Attacks on the sandbox: each succeeds without one, and fails in every one that this machine offers."""
