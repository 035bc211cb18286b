"""docs/asyncapi.yaml as the tests use it: each message by what it says of itself, with its schema and examples."""

import copy
import functools
import json
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

DOCS = Path(__file__).resolve().parents[2] / "docs"
HERE = "urn:tickfan:asyncapi"


def name(message):
    """What a message calls itself: its `type` or its `op`, an `ack` with the `op` that it answers."""
    if "type" not in message:
        return f"op {message.get('op')}"
    return f"ack {message.get('op')}" if message["type"] == "ack" else str(message["type"])


def close(node):
    """Forbids fields that are not documented. Clients have to ignore them; the gateway has none to send."""
    if isinstance(node, dict):
        # Conditions have no `type`, and stay open.
        if node.get("type") == "object" and "properties" in node:
            node.setdefault("additionalProperties", False)
        node = node.values()
    if not isinstance(node, (str, int, float, bool, type(None))):
        for child in node:
            close(child)


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
        closed = copy.deepcopy(self.tree)
        close(closed["components"]["schemas"])
        for message in closed["components"]["messages"].values():
            close(message["payload"])
        self.registry = Registry().with_resource(HERE, Resource(closed, DRAFT7))
        # By channel, then by name.
        self.messages = {channel: self.messages_of(channel) for channel in self.tree["channels"]}

    def at(self, pointer):
        node = self.tree
        for step in pointer.removeprefix("#/").split("/"):
            node = node[step]
        return node

    def messages_of(self, channel):
        found = {}
        for reference in self.tree["channels"][channel]["messages"].values():
            pointer = reference["$ref"]
            message = self.at(pointer)
            properties = message["payload"]["properties"]
            own = name({key: properties[key]["const"] for key in ("type", "op") if key in properties})
            assert own not in found, f"{channel} has {own} twice"
            jsonschema.Draft7Validator.check_schema(message["payload"])
            validator = jsonschema.Draft7Validator(
                {"$ref": f"{HERE}{pointer}/payload"}, registry=self.registry
            )
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
