"""Settings that are saved as Python objects (nerfstudio's `config.yml`) and read back by later releases.

PyYAML restores an object without calling `__init__`: a field that the file does not know would be missing, and a
field that was renamed since would stand under its old name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar


class SavedConfig:
    """Mixin of every dataclass that a `config.yml` may hold.

    Its module and class name stand in the files of users: a class that moves gets a row in `predictor/_released.py`.
    """

    RENAMED_FIELDS: ClassVar[Mapping[str, str]] = {}
    """Fields that had another name in an earlier release: old name -> present name."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Restore what was saved, by any release: renamed fields are translated, missing ones get their default.

        Fields that this release has no more are dropped.

        Raises:
            ValueError: a field without a default is missing.
        """
        given = {self.RENAMED_FIELDS.get(name, name): value for name, value in state.items()}
        assert dataclasses.is_dataclass(self)
        known = {field.name: field for field in dataclasses.fields(self)}
        for name, field in known.items():
            if name in given:
                self.__dict__[name] = given[name]
            elif field.default is not dataclasses.MISSING:
                self.__dict__[name] = field.default
            elif field.default_factory is not dataclasses.MISSING:
                self.__dict__[name] = field.default_factory()
            else:
                raise ValueError(f"{type(self).__name__} is saved without its field {name}, which has no default")
