"""What every class of settings shares: how its fields are read from environment variables."""

import os
from collections.abc import Mapping
from typing import Self

from pydantic import AliasGenerator, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from prepaid_pipeline.errors import SettingError

# In a field's ``json_schema_extra``: an empty variable is a value of its own, not the default.
KEEP_EMPTY = "keep_empty"


def prefixed(prefix: str) -> AliasGenerator:
    """Name the variables of a class's fields: ``port`` is read from ``<prefix>PORT``."""
    return AliasGenerator(validation_alias=lambda field: f"{prefix}{field.upper()}")


class FromEnvironment(BaseSettings):
    """Immutable settings, each read from the variable that is its alias, by default PREPAID_….

    An empty variable counts as not set, but for a field with KEEP_EMPTY. Other variables are
    ignored, and no .env file is read. Fields have values of their types; their parsers see only
    what a variable says.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=prefixed("PREPAID_"),
        case_sensitive=True,
        enable_decoding=False,
        validate_default=False,
    )

    @classmethod
    def variables(cls) -> dict[str, FieldInfo]:
        """The fields by the names of their variables."""
        return {str(field.validation_alias): field for field in cls.model_fields.values()}

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read all fields from ``environ`` (default: the process's own).

        Raises SettingError naming the variable, its value and what is expected; with several such
        variables, the first.
        """
        given = os.environ if environ is None else environ
        source = EnvSettingsSource(cls)
        source.env_vars = {
            name: text
            for name, field in cls.variables().items()
            if (text := given.get(name)) or (text is not None and field.json_schema_extra)
        }
        try:
            return cls(_build_sources=((source,), {}))
        except ValidationError as error:
            first = error.errors()[0]
            raise SettingError(f"{first['loc'][0]}{first['ctx']['error']}") from None
