"""The dialogue that makes a skill: its steps, the skill it writes, and the open sessions."""
