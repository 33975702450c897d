"""`dmserver device DEVICE …`: what an operator asks of one device.

Each command queues a request and prints its id; the device gets it in its next session. `--wait` stays until it is
over.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from actor_runtime import cli as habits
from actor_runtime.errors import ActorError, ConfigError
from actor_runtime.store import Store
from dmserver import operator_service as service
from dmserver.cli_context import Json, as_json, open_database, open_sealed_database, read_octets, settings_of
from dmserver.operator_commands import (
    MAX_VALUE,
    OVER,
    Grouping,
    OperatorRequest,
    RequestState,
    dump_value,
    parse_request,
)
from dmserver.operator_outcomes import show_request
from syncml.codes import Format, MediaType

device_app = typer.Typer(help="Commands for one device, queued for its next session.", no_args_is_help=True)
alert_app = typer.Typer(help="Ask the user of the device.", no_args_is_help=True)
device_app.add_typer(alert_app, name="alert")

MAX_FILE = 16 * 1024 * 1024  # octets of a file of commands
POLL_S = 0.5

Uri = Annotated[str, typer.Argument(help="Node URI, such as ./DevDetail/SwV.")]
Uris = Annotated[list[str], typer.Argument(help="Node URIs, such as ./DevDetail/SwV or ./A?prop=ACL.")]
Value = Annotated[str | None, typer.Option(help="Value as text. Not for secrets: other users can see arguments.")]
ValueFile = Annotated[Path | None, typer.Option(help="File with the value; - for standard input.")]
FormatOption = Annotated[Format | None, typer.Option("--format", help="Format of the value; chr, or bin for a file.")]
TypeOption = Annotated[str | None, typer.Option("--type", help="Media type of the value, or MO id of a node.")]
Node = Annotated[bool, typer.Option("--node", help="An interior node, without value.")]
Tnds = Annotated[Path | None, typer.Option(help="File with a serialised sub-tree (TNDS), XML or WBXML.")]
Wait = Annotated[bool, typer.Option("--wait", help="Stay until the request is over.")]
WaitS = Annotated[float, typer.Option(min=0, help="With --wait: how long, in seconds.")]
ExpiresIn = Annotated[int | None, typer.Option(help="Life of the request in seconds, up to 90 days.")]
Idempotent = Annotated[bool, typer.Option("--idempotent", help="Send it again if nobody knows what became of it.")]
Text = Annotated[str, typer.Argument(help="What the user reads.")]
Choices = Annotated[list[str], typer.Argument(help="The choices.")]
MinDisplay = Annotated[int | None, typer.Option(help="Seconds it is shown at the least (MINDT).")]
MaxDisplay = Annotated[int | None, typer.Option(help="Seconds to wait for an answer (MAXDT).")]
Default = Annotated[str | None, typer.Option("--default", help="Default response (DR).")]


@device_app.callback()
def of_device(
    context: typer.Context, device: Annotated[str, typer.Argument(help="The device.", metavar="DEVICE")]
) -> None:
    """Commands for one device, queued for its next session."""
    context.obj = (*context.obj[:2], device)


@device_app.command(
    "get", epilog="Example: `dmserver -c dmserver.toml device urn:imei:004999010640000 get ./DevInfo/Man`"
)
def get(
    context: typer.Context,
    uris: Uris,
    wait: Wait = False,
    wait_s: WaitS = 300.0,
    expires_in_s: ExpiresIn = None,
    json: Json = False,
) -> None:
    """Read values, child lists, properties or sub-trees."""
    _queue(context, {"command": "get", "uris": uris}, wait=wait, wait_s=wait_s, expires_in_s=expires_in_s)


@device_app.command("delete")
def delete(
    context: typer.Context,
    uris: Uris,
    wait: Wait = False,
    wait_s: WaitS = 300.0,
    expires_in_s: ExpiresIn = None,
    idempotent: Idempotent = False,
    json: Json = False,
) -> None:
    """Remove nodes and what is below them."""
    entry = {"command": "delete", "uris": uris}
    _queue(context, entry, wait=wait, wait_s=wait_s, expires_in_s=expires_in_s, idempotent=idempotent)


@device_app.command("add", epilog="Example: `… device DEVICE add ./Scratch/Level --format int --value 7`")
def add(
    context: typer.Context,
    uri: Uri,
    value: Value = None,
    value_file: ValueFile = None,
    format_: FormatOption = None,
    type_: TypeOption = None,
    node: Node = False,
    tnds: Tnds = None,
    wait: Wait = False,
    wait_s: WaitS = 300.0,
    expires_in_s: ExpiresIn = None,
    idempotent: Idempotent = False,
    json: Json = False,
) -> None:
    """Create a leaf, an interior node or a sub-tree."""
    entry = {"command": "add", "uri": uri} | _value_of(value, value_file, format_, type_, node=node, tnds=tnds)
    _queue(context, entry, wait=wait, wait_s=wait_s, expires_in_s=expires_in_s, idempotent=idempotent)


@device_app.command("replace")
def replace(
    context: typer.Context,
    uri: Uri,
    value: Value = None,
    value_file: ValueFile = None,
    format_: FormatOption = None,
    type_: TypeOption = None,
    tnds: Tnds = None,
    wait: Wait = False,
    wait_s: WaitS = 300.0,
    expires_in_s: ExpiresIn = None,
    idempotent: Idempotent = False,
    json: Json = False,
) -> None:
    """Overwrite a leaf, a property or a sub-tree."""
    entry = {"command": "replace", "uri": uri} | _value_of(value, value_file, format_, type_, node=False, tnds=tnds)
    _queue(context, entry, wait=wait, wait_s=wait_s, expires_in_s=expires_in_s, idempotent=idempotent)


@device_app.command("exec")
def execute(
    context: typer.Context,
    uri: Uri,
    data: Annotated[str | None, typer.Option(help="Argument of the command.")] = None,
    data_file: Annotated[Path | None, typer.Option(help="File with the argument; - for standard input.")] = None,
    correlator: Annotated[str | None, typer.Option(help='Names the result that comes later; "auto" makes one.')] = None,
    wait: Wait = False,
    wait_s: WaitS = 300.0,
    expires_in_s: ExpiresIn = None,
    idempotent: Idempotent = False,
    json: Json = False,
) -> None:
    """Run a node."""
    entry = {"command": "exec", "uri": uri} | _value_of(data, data_file, None, None, node=False, tnds=None)
    if correlator is not None:
        entry["correlator"] = correlator
    _queue(context, entry, wait=wait, wait_s=wait_s, expires_in_s=expires_in_s, idempotent=idempotent)


@device_app.command("copy")
def copy(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="Leaf to copy.")],
    target: Annotated[str, typer.Argument(help="Leaf to write.")],
    wait: Wait = False,
    wait_s: WaitS = 300.0,
    expires_in_s: ExpiresIn = None,
    idempotent: Idempotent = False,
    json: Json = False,
) -> None:
    """Copy one leaf to another."""
    entry = {"command": "copy", "source": source, "target": target}
    _queue(context, entry, wait=wait, wait_s=wait_s, expires_in_s=expires_in_s, idempotent=idempotent)


# --- user interaction -------------------------------------------------------------------------------------------------


@alert_app.command("display")
def display(
    context: typer.Context,
    text: Text,
    min_display_s: MinDisplay = None,
    max_display_s: MaxDisplay = None,
    wait: Wait = False,
    wait_s: WaitS = 300.0,
    json: Json = False,
) -> None:
    """Show a text."""
    _ask(context, "display", [text], _options(min_display_s, max_display_s, None), wait=wait, wait_s=wait_s)


@alert_app.command("confirm")
def confirm(
    context: typer.Context,
    text: Text,
    min_display_s: MinDisplay = None,
    max_display_s: MaxDisplay = None,
    default: Default = None,
    wait: Wait = False,
    wait_s: WaitS = 300.0,
    json: Json = False,
) -> None:
    """Ask for yes or no."""
    _ask(context, "confirm", [text], _options(min_display_s, max_display_s, default), wait=wait, wait_s=wait_s)


@alert_app.command("input")
def text_input(
    context: typer.Context,
    text: Text,
    min_display_s: MinDisplay = None,
    max_display_s: MaxDisplay = None,
    default: Default = None,
    max_length: Annotated[int | None, typer.Option(help="Characters of the answer at the most (MAXLEN).")] = None,
    input_type: Annotated[str | None, typer.Option(help="A, N, D, T, P or I (IT).")] = None,
    password: Annotated[bool, typer.Option("--password", help="Do not echo it, and do not show it here.")] = False,
    wait: Wait = False,
    wait_s: WaitS = 300.0,
    json: Json = False,
) -> None:
    """Ask for a line of text."""
    more = {"maxLength": max_length, "inputType": input_type, "echo": "P" if password else None}
    options = _options(min_display_s, max_display_s, default) | {k: v for k, v in more.items() if v is not None}
    _ask(context, "input", [text], options, wait=wait, wait_s=wait_s)


@alert_app.command("choice")
def choice(
    context: typer.Context,
    text: Text,
    choices: Choices,
    several: Annotated[bool, typer.Option("--several", help="More than one may be chosen.")] = False,
    min_display_s: MinDisplay = None,
    max_display_s: MaxDisplay = None,
    default: Default = None,
    wait: Wait = False,
    wait_s: WaitS = 300.0,
    json: Json = False,
) -> None:
    """Let the user choose."""
    kind, options = "multichoice" if several else "choice", _options(min_display_s, max_display_s, default)
    _ask(context, kind, [text, *choices], options, wait=wait, wait_s=wait_s)


def _options(min_display_s: int | None, max_display_s: int | None, default: str | None) -> dict[str, Any]:
    given = {"minDisplay": min_display_s, "maxDisplay": max_display_s, "default": default}
    return {name: value for name, value in given.items() if value is not None}


def _ask(
    context: typer.Context, kind: str, texts: list[str], options: dict[str, Any], *, wait: bool, wait_s: float
) -> None:
    entry: dict[str, Any] = {"command": "alert", "kind": kind, "text": texts[0], "options": options}
    if texts[1:]:
        entry["choices"] = texts[1:]
    _queue(context, entry, wait=wait, wait_s=wait_s)


# --- several commands, and what became of them ------------------------------------------------------------------------


@device_app.command("run", epilog='The file, in JSON: `{"commands": [{"command": "get", "uris": ["./DevInfo/Man"]}]}`')
def run(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="JSON or TOML with `commands`; - for JSON on standard input.")],
    atomic: Annotated[bool, typer.Option("--atomic", help="All or nothing: inside one Atomic.")] = False,
    sequence: Annotated[bool, typer.Option("--sequence", help="Strictly in order: inside one Sequence.")] = False,
    wait: Wait = False,
    wait_s: WaitS = 300.0,
    expires_in_s: ExpiresIn = None,
    idempotent: Idempotent = False,
    json: Json = False,
) -> None:
    """Queue several commands as one request."""
    document = _read_document(file)
    if atomic and sequence:
        raise ActorError("--atomic and --sequence exclude each other")
    if atomic or sequence:
        document["grouping"] = (Grouping.ATOMIC if atomic else Grouping.SEQUENCE).value
    if expires_in_s is not None:
        document["expiresIn"] = expires_in_s
    if idempotent:
        document["idempotent"] = True
    _queue_document(context, document, wait=wait, wait_s=wait_s)


@device_app.command("list")
def list_all(context: typer.Context, json: Json = False) -> None:
    """Show the newest requests of the device, newest first."""
    with open_database(settings_of(context)) as store:
        rows = store.read_sync(lambda c: service.requests_of(c, context.obj[2]))
    names = ("id", "number", "state", "code", "grouping", "createdAt", "detail")
    habits.show_rows([{name: row[name] for name in names} for row in rows], as_json=as_json(context))


@device_app.command("show")
def show(
    context: typer.Context,
    request_id: Annotated[str | None, typer.Argument(help="The request; the newest without it.")] = None,
    wait: Wait = False,
    wait_s: WaitS = 300.0,
    json: Json = False,
) -> None:
    """Show one request: Statuses and values. Credentials are withheld."""
    device = context.obj[2]
    with open_sealed_database(settings_of(context)) as (store, key):
        shown = request_id or _newest(store, device)

        def read() -> OperatorRequest:
            return store.read_sync(lambda c: service.request_of(c, key, device, shown))

        _print(context, _until_over(read, wait_s) if wait else read())


def _newest(store: Store, device: str) -> str:
    rows = store.read_sync(lambda c: service.requests_of(c, device))
    if not rows:
        raise ActorError(f"nothing was asked of {device} yet", hint="dmserver device DEVICE --help")
    return str(rows[0]["id"])


@device_app.command("cancel")
def cancel(
    context: typer.Context, request_id: Annotated[str, typer.Argument(help="The request.")], json: Json = False
) -> None:
    """Take a request back that was not sent yet."""
    with open_database(settings_of(context)) as store:
        state = store.write_sync(lambda c: service.take_back(c, context.obj[2], request_id))
    habits.show({"id": request_id, "state": state.value}, as_json=as_json(context))


def _value_of(
    value: str | None,
    value_file: Path | None,
    format_: Format | None,
    type_: str | None,
    *,
    node: bool,
    tnds: Path | None,
) -> dict[str, Any]:
    if sum((value is not None, value_file is not None, node, tnds is not None)) > 1:
        raise ActorError("more than one value", hint="one of --value, --value-file, --node, --tnds")
    entry: dict[str, Any] = {} if format_ is None else {"format": format_.value}
    if type_ is not None:
        entry["type"] = type_
    if tnds is not None:
        octets = read_octets(tnds, limit=MAX_VALUE)
        xml = octets.lstrip().startswith((b"<", b"\xef\xbb\xbf"))
        kind, form = (MediaType.TNDS_XML, Format.XML) if xml else (MediaType.TNDS_WBXML, Format.BIN)
        return {"type": kind.value, "format": form.value} | entry | _octets(octets, text=xml)
    if value_file is not None:
        octets = read_octets(value_file, limit=MAX_VALUE)
        return entry | _octets(octets, text=format_ not in (None, Format.BIN, Format.B64))
    if node:
        return entry | {"node": True}
    return entry if value is None else entry | {"value": value}


def _octets(octets: bytes, *, text: bool) -> dict[str, str]:
    if not text:
        return dump_value(octets)
    try:
        return {"value": octets.decode("utf-8")}
    except UnicodeDecodeError as exc:
        raise ActorError("the file is no UTF-8 text", hint="--format bin") from exc


def _read_document(file: Path) -> dict[str, Any]:
    octets = read_octets(file, limit=MAX_FILE)
    try:
        text = octets.decode("utf-8")
        document = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{file}: neither JSON nor TOML that can be read") from exc
    if isinstance(document, list):
        document = {"commands": document}
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: an object with `commands`, or a list of commands")
    return document


def _queue(
    context: typer.Context,
    entry: dict[str, Any],
    *,
    wait: bool,
    wait_s: float,
    expires_in_s: int | None = None,
    idempotent: bool = False,
) -> None:
    document: dict[str, Any] = {"commands": [entry], "idempotent": idempotent}
    if expires_in_s is not None:
        document["expiresIn"] = expires_in_s
    _queue_document(context, document, wait=wait, wait_s=wait_s)


def _queue_document(context: typer.Context, document: dict[str, Any], *, wait: bool, wait_s: float) -> None:
    order, device = parse_request(document), context.obj[2]
    with open_sealed_database(settings_of(context)) as (store, key):
        request, _ = store.write_sync(lambda c: service.queue_request(c, key, device, order, datetime.now(UTC)))
        if not wait:
            habits.show({"id": request.request_id, "state": request.state.value}, as_json=as_json(context))
            return

        def read() -> OperatorRequest:
            return store.read_sync(lambda c: service.request_of(c, key, device, request.request_id))

        _print(context, _until_over(read, wait_s))


def _until_over(read: Callable[[], OperatorRequest], limit_s: float) -> OperatorRequest:
    end = time.monotonic() + limit_s
    while (request := read()).state not in OVER:
        if time.monotonic() >= end:
            raise ActorError(
                f"request {request.request_id} is {request.state} after {limit_s:g} seconds",
                hint=f"it goes on: dmserver device {request.device_id} show {request.request_id}",
            )
        time.sleep(min(POLL_S, max(0.0, end - time.monotonic())))
    return request


def _print(context: typer.Context, request: OperatorRequest) -> None:
    """Exit status 0 only for a request that is done, or not over yet."""
    shown = show_request(request)
    if as_json(context):
        habits.show(shown, as_json=True)
    else:
        commands = shown.pop("commands")
        habits.show(shown, as_json=False)
        for command in commands:
            typer.echo(f"  {command['command']}  {command.get('code', '-')}")
            for status in command.get("statuses", ()):
                typer.echo(f"    {habits.plain(status['uri'])}  {status['code']}")
            for value in [*command.get("results", ()), *command.get("alertItems", ())]:
                said = value.get("value", value.get("valueBase64", ""))
                typer.echo(f"    {habits.plain(value['uri'])} = {habits.plain(said)}")
    if request.state in OVER and request.state is not RequestState.DONE:
        raise typer.Exit(1)
