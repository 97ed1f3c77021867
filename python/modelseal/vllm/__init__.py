"""Sealed models in vLLM.

    export MODELSEAL_KEY=kbs:///models/llm/key MODELSEAL_KBS_URL=https://kbs.example
    vllm serve LOCATION --load-format modelseal --config-format modelseal --tokenizer-mode modelseal

vLLM finds `register` by its entry point in every process that it starts. LOCATION is a sealed model in a directory or in
object storage. The key is a reference, from MODELSEAL_KEY or from `--model-loader-extra-config '{"key": "kbs:///..."}'`, which
takes the options of `modelseal.open` besides; vLLM logs what stands there, so no key may.

What stands beside the weights, such as the configuration and the tokenizer, vLLM reads by path. It gets a directory of links
to memory of the process that starts the engine; no plaintext is in any file system. Weights are decrypted in the processes
that load them, once on each node.
"""

from __future__ import annotations

import logging

__all__ = ["register"]

OLDEST = "0.16"
"""The first version of vLLM that has all that is needed."""

_UNFIT = (
    "modelseal needs vLLM %s or a later one that it knows, and this is vLLM %s (%s): --load-format modelseal is not there; "
    "serve the model with `modelseal run --key REF LOCATION -- vllm serve {}`"
)


def register() -> None:
    """Makes vLLM know sealed models. It may be called any number of times."""
    try:
        from modelseal.vllm import _engine

        _engine.register()
    except (ImportError, AttributeError) as error:
        import vllm

        # Whoever serves other models is not kept from it.
        logging.getLogger("vllm.modelseal").warning(_UNFIT, OLDEST, vllm.__version__, error)
