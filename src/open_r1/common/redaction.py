"""Secrets stay out of what is written down: tokens, passwords and keys, by what a value is and not by how it was typed.

A value is a secret if its flag, variable or key is named like one (`hub_token`, `WANDB_API_KEY`), if it stands before
the @ of an address, or if it has the form of a provider's tokens. It is then hidden wherever it occurs. Standard
library only; nothing here changes what a command itself does with its flags.
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
_WHOLE_WORD_ONLY = 8  # a secret of fewer characters may be part of ordinary text, and is hidden where it stands alone

_SECRET_PARTS = {"password", "passwords", "passwd", "passphrase", "secret", "secrets", "credential", "credentials"}
_SECRET_PARTS |= {"apikey", "authorization"}
_SECRET_ENDS = {"token", "key", "pass"}  # hub_token, api_key; not max_tokens or key_order
_ORDINARY = re.compile(r"(eos|bos|pad|unk|sep|cls|mask|image|video|audio)_token|(image|sort|data|cache)_key")
_ABBREVIATED = re.compile(r"(push_to_)?hub_t\w*")  # argparse once took the beginning of a flag for the flag
# scheme://USER:SECRET@host and KEY:SECRET@host
_IN_ADDRESS = re.compile(r"(?<=:)(?!//)[^\s/@:\"']{2,}(?=@[\w.\[])|(?<=//)[^\s/@:\"']{8,}(?=@[\w.\[])")
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[A-Z0-9]{16}"
    r"|xox[abprs]-[\w-]{10,}|wandb_v\d_\w{20,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)


def names_secret(name: str) -> bool:
    """Whether a flag, an environment variable or a key of this name holds a secret, in any spelling."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip("-")).lower()
    plain = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    parts = plain.split("_")
    if _ORDINARY.fullmatch(plain):
        return False
    is_short_for_password = parts[-1] == "pwd" and len(parts) > 1  # PWD alone is the working directory
    return (
        parts[-1] in _SECRET_ENDS
        or is_short_for_password
        or not _SECRET_PARTS.isdisjoint(parts)
        or _ABBREVIATED.fullmatch(plain) is not None
    )


def split_secrets(words: Iterable[str]) -> tuple[list[str], set[str]]:
    """A command line without its secrets, and the secrets.

    Args:
        words: flags and values in any spelling (`--hub-token X`, `--hub_token=X`, `--env NAME=X`); a value may be a
            command line or JSON itself.

    Returns:
        The words without secret flags and their values, other secrets as `<hidden>`; and the values hidden.
    """
    public: list[str] = []
    secrets: set[str] = set()
    flag = ""  # whose values come
    for word in words:
        if word.startswith("-") and not re.match(r"-\.?\d", word):
            if re.search(r"\s-", word):  # a command line in one word
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
    """One value of a flag, with what is secret in it hidden and added to `secrets`."""
    secrets |= {*_IN_ADDRESS.findall(value), *_TOKEN.findall(value)}
    if value.lstrip().startswith(("{", "[")):
        try:
            held = _named_secrets(json.loads(value))
        except (ValueError, RecursionError):
            held = set()
        secrets |= held
        return redacted(value, held)
    if " " in value and re.search(r"(^|\s)-", value):
        try:
            inner, held = split_secrets(shlex.split(value))
        except ValueError:
            return redacted(value)
        secrets |= held
        return redacted(shlex.join(inner), held) if held else redacted(value)
    name, equals, rest = value.partition("=")
    if equals and rest and (names_secret(name) or flag in ("--env", "-e")):
        secrets.add(rest)
        return f"{name}={HIDDEN}"
    return redacted(value)


def _named_secrets(value: Any) -> set[str]:
    """The texts below keys that name secrets, at any depth."""
    if isinstance(value, Mapping):
        below = [_named_secrets(each) for each in value.values()]
        own = {each for key, each in value.items() if isinstance(each, str) and each and names_secret(str(key))}
        return own.union(*below) - {HIDDEN}
    if isinstance(value, list | tuple):
        return set().union(*map(_named_secrets, value))
    return set()


def known_secrets(*settings: Mapping[str, Any], words: Sequence[str] | None = None) -> frozenset[str]:
    """What this process knows to be secret.

    Args:
        *settings: parsed flags by name, wherever they came from.
        words: a command line; default: the program's own.
    """
    from_environment = {value for name, value in os.environ.items() if names_secret(name)}
    from_environment = {value for value in from_environment if len(value) >= _WHOLE_WORD_ONLY}
    _, from_words = split_secrets(sys.argv if words is None else words)
    return frozenset(from_environment | from_words | _named_secrets(settings))


def redacted(value: Any, secrets: Collection[str] = ()) -> Any:
    """The same text, or the same dictionaries and lists, with every secret as `<hidden>`.

    Args:
        value: text, dictionaries and lists at any depth; anything else is returned as it is.
        secrets: of `known_secrets`. Without them secrets are known by their keys and their form alone.
    """
    if isinstance(value, str):
        return _redacted_text(value, secrets)
    if isinstance(value, Mapping):
        hidden = {key for key, each in value.items() if isinstance(each, str) and each and names_secret(str(key))}
        return {key: HIDDEN if key in hidden else redacted(each, secrets) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redacted(each, secrets) for each in value) if type(value) in (list, tuple) else value
    return value


def _redacted_text(text: str, secrets: Collection[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _WHOLE_WORD_ONLY:
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
    """A command line as it may be written down, quoted for a shell."""
    public, own = split_secrets(words)
    return redacted(shlex.join(public), {*secrets, *own})
