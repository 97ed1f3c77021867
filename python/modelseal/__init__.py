"""Sealed models: weights that are encrypted everywhere except in the memory of the process that uses them.

    import modelseal

    with modelseal.open("vault", key="kbs:///models/llm/key", kbs_url="https://kbs.example") as model:
        config = model.read("config.json")

`modelseal.safetensors` loads tensors, `modelseal.transformers` whole models, `modelseal.fsspec` makes them a file system, and
`modelseal.license` issues and checks licenses of packages. `modelseal.ray` seals on many machines.

Keys are named by reference, as for the command: `file:PATH`, `env:NAME`, `cmd:PROGRAM`, `prompt:`, `kbs:///R/TYPE/TAG`,
`cdh:///R/TYPE/TAG`, with `hex:`, `base64:` or `masterkey:` in front where needed. A key may also be bytes, or a function
without arguments that returns either, which is called once for each opening.
"""

from modelseal import license
from modelseal._attest import attest, get_resource
from modelseal._file import SealedFile
from modelseal._model import (
    Model,
    Verified,
    change_password,
    inspect,
    open,
    reseal,
    seal,
    sign_manifest,
    unseal,
    verify,
)
from modelseal._modelseal import (
    AttestationError,
    AuthenticationError,
    DevKbs,
    Entry,
    FormatError,
    LicenseError,
    ModelsealError,
    ModelsealWarning,
    __version__,
)
from modelseal._options import Key, Options, SealOptions

__all__ = [
    "AttestationError",
    "AuthenticationError",
    "DevKbs",
    "Entry",
    "FormatError",
    "Key",
    "LicenseError",
    "Model",
    "ModelsealError",
    "ModelsealWarning",
    "Options",
    "SealOptions",
    "SealedFile",
    "Verified",
    "__version__",
    "attest",
    "change_password",
    "get_resource",
    "inspect",
    "license",
    "open",
    "reseal",
    "seal",
    "sign_manifest",
    "unseal",
    "verify",
]
