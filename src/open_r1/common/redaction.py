"""Hides secrets (tokens, passwords, keys) in everything that is written to files or logs.

A value is a secret if its flag, variable or key has a secret's name (`hub_token`, `WANDB_API_KEY`), if it precedes the
@ of an address, or if it has the form of a provider's tokens. It is then hidden wherever it occurs, however the flag
was typed. The flags that a command itself works with are not changed. Standard library only.
"""

import copy
import json
import os
import re
import shlex
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

HIDDEN = "<hidden>"
_SHORT = 8  # a secret of fewer characters may occur in ordinary text, so only a separate word is hidden

_SECRET_WORDS = {"password", "passwords", "passwd", "passphrase", "secret", "secrets", "credential", "credentials"}
_SECRET_WORDS |= {"apikey", "authorization"}
_SECRET_LAST_WORDS = {"token", "key", "pass"}  # hub_token, api_key; not max_tokens or key_order
_ORDINARY = re.compile(r"(eos|bos|pad|unk|sep|cls|mask|image|video|audio)_token|(image|sort|data|cache)_key")
_ABBREVIATED = re.compile(r"(push_to_)?hub_t\w*")  # abbreviations that argparse accepts
# scheme://USER:SECRET@host and KEY:SECRET@host
_IN_ADDRESS = re.compile(r"(?<=:)(?!//)[^\s/@:\"']{2,}(?=@[\w.\[])|(?<=//)[^\s/@:\"']{8,}(?=@[\w.\[])")
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[A-Z0-9]{16}"
    r"|xox[abprs]-[\w-]{10,}|wandb_v\d_\w{20,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)


def names_secret(name: str) -> bool:
    """Whether a flag, an environment variable or a key with this name holds a secret, in any spelling."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip("-")).lower()
    plain = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    parts = plain.split("_")
    if _ORDINARY.fullmatch(plain):
        return False
    is_short_for_password = parts[-1] == "pwd" and len(parts) > 1  # PWD alone is the working directory
    return (
        parts[-1] in _SECRET_LAST_WORDS
        or is_short_for_password
        or not _SECRET_WORDS.isdisjoint(parts)
        or _ABBREVIATED.fullmatch(plain) is not None
    )


def split_secrets(words: Iterable[str]) -> tuple[list[str], set[str]]:
    """A command line without its secrets, and the secrets.

    Args:
        words: flags and values in any spelling (`--hub-token X`, `--hub_token=X`, `--env NAME=X`); a value may itself
            be a command line or JSON.

    Returns:
        The words without secret flags and their values, other secrets as `<hidden>`; and the secret values.
    """
    public: list[str] = []
    secrets: set[str] = set()
    flag = ""  # the flag that the next values belong to
    for word in words:
        if word.startswith("-") and not re.match(r"-\.?\d", word):
            if re.search(r"\s-", word):  # a command line as one word
                public.append(_public_value(word, "", secrets))
                continue
            name, equals, value = word.partition("=")
            flag = "" if equals else name
            if not names_secret(name):
                public.append(f"{name}{equals}{_public_value(value, name, secrets)}")
            elif equals:
                secrets.add(value)
        elif flag and names_secret(flag):
            secrets.add(word)
        else:
            public.append(_public_value(word, flag, secrets))
    secrets.discard("")
    return public, secrets


def _public_value(value: str, flag: str, secrets: set[str]) -> str:
    """The value of a flag with its secrets hidden; they are added to `secrets`."""
    secrets |= {*_IN_ADDRESS.findall(value), *_TOKEN.findall(value)}
    if value.lstrip().startswith(("{", "[")):
        try:
            inner_secrets = _named_secrets(json.loads(value))
        except (ValueError, RecursionError):
            inner_secrets = set()
        secrets |= inner_secrets
        return redacted(value, inner_secrets)
    if " " in value and re.search(r"(^|\s)-", value):
        try:
            inner_words, inner_secrets = split_secrets(shlex.split(value))
        except ValueError:
            return redacted(value)
        secrets |= inner_secrets
        return redacted(shlex.join(inner_words), inner_secrets) if inner_secrets else redacted(value)
    name, equals, secret = value.partition("=")
    if equals and secret and (names_secret(name) or flag in ("--env", "-e")):
        secrets.add(secret)
        return f"{name}={HIDDEN}"
    return redacted(value)


def _named_secrets(value: Any) -> set[str]:
    """The strings under keys with a secret's name, at any depth."""
    if isinstance(value, Mapping):
        nested = [_named_secrets(entry) for entry in value.values()]
        named_values = {
            entry for key, entry in value.items() if isinstance(entry, str) and entry and names_secret(str(key))
        }
        return named_values.union(*nested) - {HIDDEN}
    if isinstance(value, list | tuple):
        return set().union(*map(_named_secrets, value))
    return set()


def known_secrets(*settings: Mapping[str, Any], words: Sequence[str] | None = None) -> frozenset[str]:
    """The secrets in the environment, on the command line and in settings.

    Args:
        *settings: parsed flags by name, wherever they came from.
        words: a command line; default: that of this program.
    """
    from_environment = {value for name, value in os.environ.items() if names_secret(name)}
    from_environment = {value for value in from_environment if len(value) >= _SHORT}
    _, from_words = split_secrets(sys.argv if words is None else words)
    return frozenset(from_environment | from_words | _named_secrets(settings))


def redacted(value: Any, secrets: Collection[str] = ()) -> Any:
    """The same text, or the same dictionaries and lists, with every secret as `<hidden>`.

    Args:
        value: text, dictionaries and lists at any depth; anything else is returned as it is.
        secrets: from `known_secrets`. Secrets in named keys or with a provider's form are hidden without it.
    """
    if isinstance(value, str):
        return _redacted_text(value, secrets)
    if isinstance(value, Mapping):
        hidden = {key for key, entry in value.items() if isinstance(entry, str) and entry and names_secret(str(key))}
        return {key: HIDDEN if key in hidden else redacted(entry, secrets) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redacted(entry, secrets) for entry in value) if type(value) in (list, tuple) else value
    return value


def _redacted_text(text: str, secrets: Collection[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORT:
            text = text.replace(secret, HIDDEN)
        elif secret in text:
            text = re.sub(rf"(?<![^\s=:,'\"]){re.escape(secret)}(?![^\s,'\"])", HIDDEN, text)
    return _TOKEN.sub(HIDDEN, _IN_ADDRESS.sub(HIDDEN, text))


def public_copy(arguments: Any) -> Any:
    """A copy of training arguments with every secret hidden, and without DeepSpeed's objects, which may hold more."""
    public = copy.copy(arguments)
    hidden = redacted(vars(arguments), known_secrets(vars(arguments)))
    vars(public).update(hidden | {"deepspeed_plugin": None, "hf_deepspeed_config": None})
    return public


def recorded_command(words: Iterable[str], secrets: Collection[str] = ()) -> str:
    """A command line without secrets, for records and logs, quoted for a shell."""
    public, inline_secrets = split_secrets(words)
    return redacted(shlex.join(public), {*secrets, *inline_secrets})
