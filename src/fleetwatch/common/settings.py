"""Typed settings of a service: one model, one file, one clear line when something is wrong.

A service declares a model and loads it first thing in ``main``::

    class Settings(ServiceSettings):
        model_config = SettingsConfigDict(env_prefix="METRICS_SIMULATOR_")

        port: Port = Field(9101, description="TCP port of /metrics in serve mode")
        api_token: SecretStr = Field(description="Token of the API")

    settings = load(Settings, "metrics_simulator", sys.argv[1:])

A value is looked up in this order; the first that has it wins:

1. the environment, ``<env_prefix><SETTING>`` (lists and mappings as JSON; a ``StringList`` also as ``a,b``);
2. for a secret (type ``SecretStr``) the file ``$CREDENTIALS_DIRECTORY/<setting>``, as systemd's
   ``LoadCredential=<setting>:/path`` provides it;
3. the YAML file named with ``--config``; secrets are not allowed there, but those marked ``IN_FILE_TOO``;
4. the default in the model.

An unknown setting (in the file, or a variable that starts with the prefix), a wrong type, or a missing
value ends the program with exit code 2 and one line on stderr that names the setting and the cure.
No message ever contains the value of a setting.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import yaml
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

EXIT_BAD_SETTINGS = 2


def _split_commas(value: object) -> object:
    """Take ``a, b`` from an environment variable for the list ``[a, b]``."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Port = Annotated[int, Field(ge=1, le=65535)]
"""A TCP port."""

StringList = Annotated[list[str], NoDecode, BeforeValidator(_split_commas)]
"""A list of strings, in the environment separated by commas."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A duration in seconds, greater than zero."""


IN_FILE_TOO = "in file too"
"""Marks a secret that the YAML file may hold: ``Annotated[SecretStr, IN_FILE_TOO]``, as for a URL that only
sometimes has a password."""


class SettingsError(Exception):
    """The settings cannot be used; the text is one line that names the setting and the cure."""


@dataclass(frozen=True)
class CredentialFiles:
    """Marks a mapping of secrets: each file of ``$CREDENTIALS_DIRECTORY`` that begins so is one of them.

    ``Annotated[dict[str, SecretStr], CredentialFiles("user.")]`` holds the file ``user.anna`` as ``anna``.
    """

    prefix: str


class _Credentials(PydanticBaseSettingsSource):
    """Secrets from the files of ``$CREDENTIALS_DIRECTORY``."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Read one secret; surrounding white space is dropped, since editors end files with a newline."""
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if not directory or not _is_secret(field):
            return None, field_name, False
        if prefix := _file_prefix(field):
            files = sorted(path.name for path in Path(directory).glob(f"{prefix}*"))
            found = {name.removeprefix(prefix): self._read(directory, name) for name in files}
            return {name: text for name, text in found.items() if text}, field_name, False
        return self._read(directory, field_name), field_name, False

    @staticmethod
    def _read(directory: str, name: str) -> str | None:
        try:
            return Path(directory, name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise SettingsError(f'secret "{name}": cannot read {directory}/{name}: {reason}') from None

    def __call__(self) -> dict[str, Any]:
        """Return all secrets found."""
        found = {}
        for name, field in self.settings_cls.model_fields.items():
            value, _, _ = self.get_field_value(field, name)
            if value:
                found[name] = value
        return found


class ServiceSettings(BaseSettings):
    """Base of each service's settings model; see the module's description."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True, env_ignore_empty=True
    )

    log_level: str = Field(
        "INFO",
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
        description="The least severe log event written: DEBUG, INFO, WARNING or ERROR",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over credentials, and both over the file (``init_settings``)."""
        return env_settings, _Credentials(settings_cls), init_settings


SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def load(
    model: type[SettingsT],
    service: str,
    argv: Sequence[str] | None = None,
    parser: argparse.ArgumentParser | None = None,
) -> SettingsT:
    """Parse the command line, read the settings, and end the program with code 2 when they are wrong.

    ``--config FILE`` names the YAML file; without it, defaults and environment count. ``--check`` only
    checks the settings and ends the program with code 0, for use before a new file replaces a good one.

    service: the name that starts the error line, e.g. ``alert_receiver``.
    argv: the arguments after the program's name; ``None`` takes those of this process.
    parser: a parser that already has options or subcommands of the service. ``load`` adds ``--config`` and
        ``--check``. To keep the parsed options, use ``add_arguments`` and ``load_parsed`` instead.
    """
    parser = parser or argparse.ArgumentParser(prog=service)
    add_arguments(parser)
    return load_parsed(model, service, parser.parse_args(argv))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--config FILE`` and ``--check`` to a parser."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file (YAML)")
    parser.add_argument("--check", action="store_true", help="check the settings and exit")


def load_parsed(model: type[SettingsT], service: str, options: argparse.Namespace) -> SettingsT:
    """Read the settings as the parsed ``options`` say; end the program with code 2 when they are wrong."""
    try:
        settings = read(model, options.config)
    except SettingsError as error:
        fail(service, str(error))
    if options.check:
        sys.exit(0)
    return settings


def fail(service: str, message: str) -> NoReturn:
    """End the program because its settings cannot work: one line on stderr, exit code 2."""
    print(f"{service}: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 - logs are not set up yet
    sys.exit(EXIT_BAD_SETTINGS)


def read(model: type[SettingsT], config: Path | None = None) -> SettingsT:
    """Return the settings from the file, the environment and the credentials; raise SettingsError."""
    values = _read_file(config) if config else {}
    source = str(config) if config else "the settings file"
    for name, field in model.model_fields.items():
        if name in values and _is_secret(field) and IN_FILE_TOO not in field.metadata:
            cure = _where_to_put_secret(model, name)
            raise SettingsError(f'{source}: secret "{name}" must not be in the settings file: {cure}')
    prefix = _prefix(model)
    known = {prefix + name.upper() for name in model.model_fields}
    for variable in os.environ if prefix else ():
        if variable.upper().startswith(prefix) and variable.upper() not in known:
            raise SettingsError(
                f'unknown environment variable "{variable}"{_suggest(variable.upper(), known)}'
            )
    try:
        return model(**values)
    except ValidationError as error:
        details: list[dict[str, Any]] = [dict(detail) for detail in error.errors(include_input=False)]
        details.sort(
            key=lambda detail: detail["type"] != "extra_forbidden"
        )  # a typo explains what is missing
        lines = [_explain(model, source, detail) for detail in details]
        raise SettingsError("; ".join(lines)) from None
    except SourceError as error:
        raise SettingsError(f"{error}: write the environment variable as JSON") from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8 text") from None
    except yaml.YAMLError as error:
        # str(error) is long, and can quote the file, and so maybe a secret.
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise SettingsError(
            f"{path}{line} is not valid YAML: {getattr(error, 'problem', 'syntax')}"
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError(f'{path} must be a YAML mapping of settings ("name: value" lines)')
    return content


def _explain(model: type[ServiceSettings], source: str, detail: dict[str, Any]) -> str:
    """Put one of pydantic's errors into words."""
    location = detail["loc"] or ("",)
    name = str(location[0])
    dotted = ".".join(str(part) for part in location)
    variable = _prefix(model) + name.upper()
    field = model.model_fields.get(name)
    kind = detail["type"]
    if kind == "extra_forbidden" and field is None:
        return f'{source}: unknown setting "{dotted}"{_suggest(name, model.model_fields)}'
    if field is None:  # a check that concerns several settings
        return f"{source}: {detail['msg'].removeprefix('Value error, ')}"
    meaning = f" ({field.description})" if field.description else ""
    if kind == "missing" and len(location) == 1:
        if _is_secret(field):
            return f'secret "{name}" is missing{meaning}: {_where_to_put_secret(model, name)}'
        return f'setting "{name}" is missing{meaning}: add it to {source} or set {variable}'
    cure = _where_to_put_secret(model, name) if _is_secret(field) else f"correct it in {source} or {variable}"
    return f'setting "{dotted}": {detail["msg"].removeprefix("Value error, ")}{meaning}: {cure}'


def _where_to_put_secret(model: type[ServiceSettings], name: str) -> str:
    variable = _prefix(model) + name.upper()
    return f"put it into $CREDENTIALS_DIRECTORY/{name} (systemd: LoadCredential={name}:PATH) or {variable}"


def _suggest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f': did you mean "{close[0]}"?' if close else ": remove it"


def _prefix(model: type[ServiceSettings]) -> str:
    return (model.model_config.get("env_prefix") or "").upper()


def _file_prefix(field: FieldInfo) -> str | None:
    """Return how the files of a mapping of secrets begin; ``None`` for any other field."""
    return next((mark.prefix for mark in field.metadata if isinstance(mark, CredentialFiles)), None)


def _is_secret(field: FieldInfo) -> bool:
    if _file_prefix(field):
        return True
    return field.annotation is SecretStr or SecretStr in getattr(field.annotation, "__args__", ())
