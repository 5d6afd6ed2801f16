"""A checkpoint's chat template is a program: it is tried in a process of its own, where time and memory end.

`{{ 10**(10**8) }}` computes for hours already while it is compiled, and nothing within this process could stop it.
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
    """Refuse a chat template that does not compile, or does not render these conversations soon and shortly.

    Args:
        template: jinja2.
        conversations: messages of each, as `prompts.build_messages` makes them.
        variables: what else a template may name, such as `bos_token`.
        where: the folder that it comes from, for the message.

    Raises:
        UserError: it is refused.
    """
    given = json.dumps({"template": template, "conversations": conversations, "variables": variables})
    problem = _problem(given)
    if problem is not None:
        raise UserError(
            f"the chat template of {where} {problem}, so no question can be put to the model; "
            "copy the processor files of the base into the folder, or name it with --processor"
        )


@cache
def _problem(given: str) -> str | None:
    """What is wrong with a template, for the sentence above; None if nothing is."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _TRY], input=given, capture_output=True, text=True, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return f"is not rendered within {_PATIENCE} s"
    if done.returncode != 0 or not done.stdout:
        return f"takes more than {PROCESSOR_SECONDS} s or {MEMORY >> 30} GiB to be rendered"
    result = json.loads(done.stdout)
    if "error" in result:
        return f"does not work ({' '.join(result['error'].split())})"
    if result["longest"] > LONGEST_TEXT:
        return f"makes {result['longest']:,} characters of a short question"
    return None
