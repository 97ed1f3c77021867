"""What is given in vLLM's options."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from modelseal._model import Model, inspect, open
from modelseal._modelseal import FormatError
from modelseal._options import Options

NAME = "modelseal"
"""What the formats and modes are called in vLLM's options."""

LOCATIONS = "locations"
"""Where the plugin notes among the loader's options which directory is of which model, for processes on other machines."""

_REFERENCE = re.compile(r"(?:(?:hex|base64|masterkey):)*(?:file|env|cmd|kbs|cdh):.")
_NO_REFERENCE = (
    "the key in --model-loader-extra-config is no reference such as kbs:///REPOSITORY/TYPE/TAG, file:PATH or env:NAME; vLLM "
    "logs these options, so a key that was given here is a secret no more"
)


def checked(given: Any) -> dict[str, Any]:
    """The loader's options, refused where they hold a key."""
    if not isinstance(given, Mapping):
        raise ValueError("--model-loader-extra-config is no JSON object")
    options = dict(given)
    key = options.get("key")
    if key is not None and not (isinstance(key, str) and _REFERENCE.match(key)):
        raise ValueError(_NO_REFERENCE)
    known = Options.__optional_keys__ | {"key", LOCATIONS}
    if unknown := sorted(set(options) - known):
        raise ValueError(
            f"--model-loader-extra-config has {', '.join(unknown)}, which load format {NAME} does not know; it knows "
            f"{', '.join(sorted(known - {LOCATIONS}))}"
        )
    return options


def opened(location: str, options: Mapping[str, Any]) -> Model:
    """Opens a sealed model with the loader's options."""
    given: Any = {name: value for name, value in options.items() if name != LOCATIONS}
    try:
        return open(location, given.pop("key", None), **given)
    except ValueError as error:
        if "MODELSEAL_KEY" in str(error):
            raise ValueError(
                "there is no key for the model: set MODELSEAL_KEY to a reference, or give one in "
                """--model-loader-extra-config '{"key": "kbs:///REPOSITORY/TYPE/TAG"}'"""
            ) from None
        raise


def is_sealed(location: str, options: Mapping[str, Any]) -> bool:
    """Whether there is a sealed model."""
    if not (os.path.isdir(location) or "://" in location):
        return False
    given: Any = {name: value for name, value in options.items() if name not in ("key", LOCATIONS)}
    try:
        inspect(location, **given)
    except FormatError:
        return False
    return True
