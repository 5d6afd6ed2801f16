"""Tries a checkpoint's chat template, which is a program, in a separate process with limits on time and memory.

`{{ 10**(10**8) }}` runs for hours while it is compiled, and this process could not interrupt it.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from open_r1.common.errors import UserError

PROCESSOR_SECONDS = 3
MEMORY = 2**30  # bytes
LONGEST_TEXT = 2**20  # characters; the prompts that are tried have fewer than 1,000
_PATIENCE = 120  # seconds by the clock, on a machine that is busy

# jinja2's environment as transformers 5.17 sets it up (utils/chat_template_utils.py), without loading transformers.
_TRY = f"""
import json, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({PROCESSOR_SECONDS}, {PROCESSOR_SECONDS}))
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
given = json.load(sys.stdin)
import datetime, jinja2, jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

class Generation(jinja2.ext.Extension):
    tags = {{"generation"}}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()

def refuse(message):
    raise jinja2.exceptions.TemplateError(message)

def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

try:
    loops = jinja2.ext.loopcontrols
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loops])
    made.filters["tojson"] = tojson
    made.globals.update(raise_exception=refuse, strftime_now=lambda form: datetime.datetime.now().strftime(form))
    template = made.from_string(given["template"])
    longest = 0
    for messages in given["conversations"]:
        for add in (True, False):
            text = template.render(messages=messages, add_generation_prompt=add, **given["variables"])
            longest = max(longest, len(text))
    result = {{"longest": longest}}
except BaseException as error:
    result = {{"error": type(error).__name__ + ": " + str(error)[:300]}}
print(json.dumps(result))
"""


def require_bounded(
    template: str, conversations: Sequence[Sequence[Mapping[str, Any]]], variables: Mapping[str, Any], where: str
) -> None:
    """Refuse a chat template that does not compile, or exceeds the limits when it renders these conversations.

    Args:
        template: jinja2.
        conversations: lists of messages from `prompts.build_messages`.
        variables: other variables of a template, such as `bos_token`.
        where: the template's folder, for the message.

    Raises:
        UserError: the template is refused.
    """
    request = json.dumps({"template": template, "conversations": conversations, "variables": variables})
    problem = _problem(request)
    if problem is not None:
        raise UserError(
            f"the chat template of {where} {problem}, so the model cannot be prompted; "
            "copy the processor files of the base into the folder, or name the base with --processor"
        )


@cache
def _problem(request: str) -> str | None:
    """The problem of a template, as the end of the message above; None if there is none."""
    try:
        process = subprocess.run(
            [sys.executable, "-I", "-c", _TRY], input=request, capture_output=True, text=True, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return f"is not rendered within {_PATIENCE} s"
    if process.returncode != 0 or not process.stdout:
        return f"takes more than {PROCESSOR_SECONDS} s or {MEMORY >> 30} GiB to be rendered"
    result = json.loads(process.stdout)
    if "error" in result:
        return f"does not work ({' '.join(result['error'].split())})"
    if result["longest"] > LONGEST_TEXT:
        return f"turns a short question into {result['longest']:,} characters"
    return None
