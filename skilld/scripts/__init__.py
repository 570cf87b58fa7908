"""Running a script of a skill so that it can hurt nobody."""
