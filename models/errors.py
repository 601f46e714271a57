"""The two kinds of errors that a person can act on. Commands print them in one line and exit with their code."""


class UserError(Exception):
    """A file, an argument or the configuration cannot be used; says which and what to give instead. Exit code 2."""


class WorldError(Exception):
    """Something outside refused or did not answer: a broker, a topic, a disk. Exit code 1."""
