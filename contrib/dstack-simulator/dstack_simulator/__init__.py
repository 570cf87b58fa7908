"""
A double of dstack's guest agent, for tests and for trying things out on a machine that is no confidential VM.

Real derivation, real signatures, a real event log, and quotes of the right structure, from keys that everybody knows:
nothing that it says proves anything.
"""
