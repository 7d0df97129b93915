"""Types of settings that several models here share."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
"""A name that can stand in a file name, a label and a URL."""

Role = Literal["send", "read", "act"]
"""What a caller may do: ``send`` alerts, ``read`` incidents, ``act`` on them (which includes ``read``)."""


def _address(value: str) -> str:
    if not re.fullmatch(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+", value):
        raise ValueError("not an e-mail address such as ops@example.org")
    return value


def _http_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+[^\s]*", value):
        raise ValueError("not a URL that starts with http:// or https://")
    return value.rstrip("/")


MailAddress = Annotated[str, AfterValidator(_address)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]

NamedT = TypeVar("NamedT", bound="Named")


class Part(BaseModel):
    """Base of the nested settings: unknown keys are refused, values never quoted in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)


class Named(Part):
    """A nested setting with a name, unique in its list."""

    name: Name


def unique_names(parts: list[NamedT]) -> list[NamedT]:
    """Refuse two entries of one name."""
    names = [part.name for part in parts]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f'the name "{repeated}" is used twice')
    return parts


def unique_addresses(addresses: list[str]) -> list[str]:
    """Drop repeated addresses, since SendGrid refuses a message that names one twice."""
    return list({address.lower(): address for address in addresses}.values())
