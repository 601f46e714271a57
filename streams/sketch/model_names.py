"""Names of models as logs spell them, to names as they were calibrated."""

from collections.abc import Iterable, Mapping

from detector.settings import Model


class ModelSpellings:
    """Spellings of models that are not calibrated yet: those that differ in case alone are one, and so is an alias."""

    def __init__(self, configured: Mapping[str, Model]) -> None:
        self._known = ModelNames(configured, configured)
        self._first: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The configured name, else the first spelling."""
        return self._known.of(name) or self._first.setdefault(name.casefold(), name)


class ModelNames:
    """models : calibrated names. configured : `models` of the configuration, whose aliases stand for their name.

    A name counts as it is written; if there is none, without regard to case, unless two differ in nothing else.
    """

    def __init__(self, models: Iterable[str], configured: Mapping[str, Model]) -> None:
        self._exact = {name: name for name in sorted(models)}
        for name in sorted(configured.keys() & self._exact.keys()):
            for alias in configured[name].aliases:
                self._exact.setdefault(alias, name)
        folded: dict[str, set[str]] = {}
        for spelling, name in self._exact.items():
            folded.setdefault(spelling.casefold(), set()).add(name)
        self._folded = {spelling: min(names) for spelling, names in folded.items() if len(names) == 1}

    def of(self, name: str) -> str | None:
        """The calibrated model that a log means, None if there is none."""
        return self._exact.get(name) or self._folded.get(name.casefold())
