"""Makes docs/protocol.md: a hand-written preface, then every service, message and enum with the comments of the .proto.

    python proto/reference.py [FILE]

The comments come from protoc itself (a descriptor set with source info), so that the reference says what the protocol
says. Needs grpcio-tools, which is in the extra `dev`.
"""

import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import descriptor_pb2 as pb
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
DOCS = PROTO.parent / "docs"
PACKAGE = "fedstep/v1"

# Numbers of fields in descriptor.proto: the paths by which protoc says what a comment belongs to.
_FILE_MESSAGES, _FILE_ENUMS, _FILE_SERVICES = 4, 5, 6
_IN_MESSAGE_FIELDS = _IN_ENUM_VALUES = _IN_SERVICE_METHODS = 2

_SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in pb.FieldDescriptorProto.Type.items()
    if number not in (pb.FieldDescriptorProto.TYPE_MESSAGE, pb.FieldDescriptorProto.TYPE_ENUM)
}


@dataclass(frozen=True)
class ProtoFile:
    """One .proto file and its comments, by the path of what they belong to."""

    descriptor: pb.FileDescriptorProto
    comments: dict[tuple[int, ...], str] = field(default_factory=dict)

    def comment(self, *path: int) -> str:
        """The comment above that element, in one line; "" when there is none."""
        return self.comments.get(path, "")


def read_protos(folder: Path = PROTO) -> list[ProtoFile]:
    """Every .proto file of the package, by name.

    Args:
        folder: The root that imports are relative to.

    Raises:
        SystemExit: protoc refuses a file; it has said why.
    """
    files = sorted(str(path.relative_to(folder)) for path in (folder / PACKAGE).glob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "descriptors"
        # protoc's own types (Duration, Timestamp) lie in the package.
        well_known = Path(protoc.__file__).parent / "_proto"
        arguments = ["", f"-I{folder}", f"-I{well_known}", "--include_source_info", f"--descriptor_set_out={out}"]
        if protoc.main([*arguments, *files]):
            raise SystemExit("protoc could not read the protocol.")
        found = pb.FileDescriptorSet.FromString(out.read_bytes())
    return [ProtoFile(file, _comments(file)) for file in found.file]


def _comments(file: pb.FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {
        tuple(place.path): " ".join(place.leading_comments.split())
        for place in file.source_code_info.location
        if place.leading_comments.strip()
    }


def reference(preface: str, files: Sequence[ProtoFile]) -> str:
    """The whole page.

    Args:
        preface: Markdown that it begins with.
        files: What follows, in this order.
    """
    notice = "<!-- Made by proto/reference.py from docs/protocol_preface.md and proto/fedstep/v1. Do not edit. -->"
    lines = [notice, "", preface.strip(), "", "# Reference", ""]
    for file in files:
        lines += _services(file)
    for file in files:
        lines += [f"## {file.descriptor.name.rpartition('/')[2]}", ""]
        lines += _messages(file)
        lines += _enums(file)
    return "\n".join(lines).rstrip() + "\n"


def _services(file: ProtoFile) -> Iterator[str]:
    for number, service in enumerate(file.descriptor.service):
        yield from (f"## {service.name}", "", file.comment(_FILE_SERVICES, number), "")
        yield from _table_head("method", "request", "answer", "")
        for index, method in enumerate(service.method):
            said = file.comment(_FILE_SERVICES, number, _IN_SERVICE_METHODS, index)
            request = _stream(method.client_streaming) + _linked(method.input_type)
            answer = _stream(method.server_streaming) + _linked(method.output_type)
            yield _row(f"`{method.name}`", request, answer, said)
        yield ""


def _messages(file: ProtoFile) -> Iterator[str]:
    for number, message in enumerate(file.descriptor.message_type):
        yield from (f"### {message.name}", "")
        said = file.comment(_FILE_MESSAGES, number)
        if said:
            yield from (said, "")
        if not message.field:
            yield from ("It has no fields.", "")
            continue
        yield from _table_head("field", "no.", "type", "")
        for index, entry in enumerate(message.field):
            said = file.comment(_FILE_MESSAGES, number, _IN_MESSAGE_FIELDS, index)
            yield _row(f"`{entry.name}`", str(entry.number), _field_type(message, entry), said)
        yield ""


def _enums(file: ProtoFile) -> Iterator[str]:
    for number, enum in enumerate(file.descriptor.enum_type):
        yield from (f"### {enum.name}", "")
        said = file.comment(_FILE_ENUMS, number)
        if said:
            yield from (said, "")
        yield from _table_head("value", "no.", "")
        for index, value in enumerate(enum.value):
            yield _row(f"`{value.name}`", str(value.number), file.comment(_FILE_ENUMS, number, _IN_ENUM_VALUES, index))
        yield ""


def _field_type(message: pb.DescriptorProto, entry: pb.FieldDescriptorProto) -> str:
    """A field's type in words: `map<string, …>`, `repeated …`, `one of …`."""
    for nested in message.nested_type:
        if nested.options.map_entry and entry.type_name.endswith(f".{nested.name}"):
            key, value = nested.field
            return f"map of {_plain_type(key)} to {_plain_type(value)}"
    text = _plain_type(entry)
    if entry.label == pb.FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {text}"
    if entry.proto3_optional:
        return f"optional {text}"
    if entry.HasField("oneof_index"):
        return f"{text}, one of `{message.oneof_decl[entry.oneof_index].name}`"
    return text


def _plain_type(entry: pb.FieldDescriptorProto) -> str:
    return _linked(entry.type_name) if entry.type_name else _SCALARS[entry.type]


def _linked(type_name: str) -> str:
    """A type of ours as a link to its place on the page; one of protobuf's own by its name."""
    name = type_name.rpartition(".")[2]
    return f"[{name}](#{name.lower()})" if type_name.startswith(".fedstep.") else name


def _stream(streaming: bool) -> str:
    return "stream of " if streaming else ""


def _table_head(*titles: str) -> tuple[str, str]:
    return _row(*titles), _row(*["---"] * len(titles))


def _row(*cells: str) -> str:
    # A bar would end the cell, angle brackets would be HTML.
    safe = (re.sub(r"<([^>]*)>", r"&lt;\1&gt;", cell).replace("|", r"\|") for cell in cells)
    return "| " + " | ".join(safe) + " |"


def main(arguments: Sequence[str]) -> None:
    """Writes the page to the file given, else to docs/protocol.md."""
    out = Path(arguments[0]) if arguments else DOCS / "protocol.md"
    preface = (DOCS / "protocol_preface.md").read_text(encoding="utf-8")
    out.write_text(reference(preface, read_protos()), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
