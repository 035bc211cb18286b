"""docs/asyncapi.yaml as the tests use it: each message by what it says of itself, with its schema and examples."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import yaml

DOCS = Path(__file__).resolve().parents[2] / "docs"


def name(message):
    """What a message calls itself: its `type` or its `op`, an `ack` with the `op` that it answers."""
    if "type" not in message:
        return f"op {message.get('op')}"
    return f"ack {message.get('op')}" if message["type"] == "ack" else str(message["type"])


@dataclass
class Message:
    pointer: str
    validator: jsonschema.Draft7Validator
    examples: list

    def fault(self, value):
        """What is wrong with a value; `None` if nothing is."""
        fault = jsonschema.exceptions.best_match(self.validator.iter_errors(value))
        if fault is None:
            return None
        return f"{self.pointer}: {'/'.join(map(str, fault.absolute_path)) or 'it'}: {fault.message}"


class Document:
    def __init__(self, path=DOCS / "asyncapi.yaml"):
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self.tree = yaml.load(path.read_text("utf-8"), loader)
        # By channel, then by name.
        self.messages = {channel: self.messages_of(channel) for channel in self.tree["channels"]}

    def at(self, pointer):
        node = self.tree
        for step in pointer.removeprefix("#/").split("/"):
            node = node[step]
        return node

    def closed(self, node):
        """A schema with its references filled in, which forbids fields that are not documented: clients have to
        ignore them, but the gateway has none to send."""
        if isinstance(node, list):
            return [self.closed(child) for child in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return self.closed(self.at(node["$ref"]))
        node = {key: self.closed(child) for key, child in node.items()}
        # Conditions have no `type`, and stay open.
        if node.get("type") == "object" and "properties" in node:
            node.setdefault("additionalProperties", False)
        return node

    def messages_of(self, channel):
        found = {}
        for reference in self.tree["channels"][channel]["messages"].values():
            pointer = reference["$ref"]
            message = self.at(pointer)
            properties = message["payload"]["properties"]
            own = name({key: properties[key]["const"] for key in ("type", "op") if key in properties})
            assert own not in found, f"{channel} has {own} twice"
            schema = self.closed(message["payload"])
            jsonschema.Draft7Validator.check_schema(schema)
            validator = jsonschema.Draft7Validator(schema)
            found[own] = Message(pointer, validator, [e["payload"] for e in message.get("examples", [])])
        return found

    def fault(self, channel, value):
        """What is wrong with a message of a channel; `None` if nothing is."""
        message = self.messages[channel].get(name(value))
        return message.fault(value) if message else f"{channel} has no message {name(value)}"


@functools.cache
def document():
    return Document()


def once(pairs):
    """A JSON object whose keys are each there once."""
    assert len({key for key, _ in pairs}) == len(pairs), f"a key twice: {pairs}"
    return dict(pairs)


def read(text):
    return json.loads(text, object_pairs_hook=once)
