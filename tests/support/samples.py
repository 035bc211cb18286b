"""samples.py: docs/PROTOCOL.md and docs/asyncapi.yaml say the same. Prints what it has checked, a line each."""

import copy
import re

from asyncapi import DOCS, document, name, read
from tickfan_client import check_message

PAGE = (DOCS / "PROTOCOL.md").read_text("utf-8")


def sections():
    """The page's headings, each with its text."""
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def page_samples():
    """Every line of every JSON block: its channel, and what it says."""
    for title, text in sections().items():
        for block in re.findall(r"^```json\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                yield "publish" if title == "Publishing" else "ws", read(line)


def rows(head):
    """The words of the first cells of the table that begins with this row."""
    table = PAGE.partition(head + "\n")[2].partition("\n\n")[0]
    found = [[cell.strip().strip("`") for cell in row.strip("| ").split("|")] for row in table.splitlines()[1:]]
    assert found, f"no table {head}"
    return found


def places(value, path=()):
    """The path of everything within a message."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield (*path, key)
        yield from places(child, (*path, key))


def samples_of_the_page(doc, samples):
    for channel, sample in samples:
        fault = doc.fault(channel, sample)
        assert fault is None, f"{fault}\n{sample}"
    return len(samples)


def heard(samples):
    """The client of the tests takes what the gateway says."""
    said = [sample for channel, sample in samples if channel == "ws" and "type" in sample]
    for sample in said:
        check_message(sample)
    return len(said)


def examples(doc):
    count = 0
    for messages in doc.messages.values():
        for own, message in messages.items():
            assert message.examples, f"{message.pointer} has no example"
            for example in message.examples:
                assert name(example) == own, f"{message.pointer}: {example}"
                fault = message.fault(example)
                assert fault is None, f"{fault}\n{example}"
                count += 1
    return count


def fields(doc, samples):
    """A schema that lets anything through proves nothing: no field may be of just any type, or unknown."""
    count = 0
    odd = [{"no": ["such", "thing"]}]
    for channel, sample in samples:
        assert doc.fault(channel, sample | {"undocumented": 1}), sample
        for *way, last in places(sample):
            spoilt = copy.deepcopy(sample)
            node = spoilt
            for step in way:
                node = node[step]
            node[last] = odd
            assert doc.fault(channel, spoilt), f"of any type: {last} of {sample}"
            count += 1
    return count


def kinds(doc, samples):
    """The page and the document have the same messages."""
    shown = {(channel, name(sample)) for channel, sample in samples}
    # An answer has the shape of its request's, which may be all that the page shows.
    asked = {(channel, own.replace("op ", "ack ")) for channel, own in shown if own.startswith("op ")}
    described = {(channel, own) for channel, messages in doc.messages.items() for own in messages}
    assert shown <= described, f"only on the page: {shown - described}"
    assert described <= shown | asked, f"only in the document: {described - shown - asked}"
    # What answers `ping` is a `pong`, and a publisher's ticks are not answered.
    assert asked - described == {("ws", "ack ping")}, asked - described
    return len(described)


def operations(doc):
    """Every message is said by somebody."""
    said = set()
    for operation in doc.tree["operations"].values():
        for side in (operation, operation.get("reply", {"messages": []})):
            said |= {reference["$ref"] for reference in side["messages"]}
    there = {
        f"#/channels/{channel}/messages/{own}"
        for channel, described in doc.tree["channels"].items()
        for own in described["messages"]
    }
    assert said == there, said ^ there
    used = {reference["$ref"] for c in doc.tree["channels"].values() for reference in c["messages"].values()}
    described = {f"#/components/messages/{own}" for own in doc.tree["components"]["messages"]}
    assert used == described, used ^ described
    return len(doc.tree["operations"])


def tables(doc):
    """The words of the page's tables are those of the document."""
    schemas, messages = doc.tree["components"]["schemas"], doc.tree["components"]["messages"]
    payload = {own: message["payload"]["properties"] for own, message in messages.items()}

    closing = [(int(code), why) for code, why, _ in rows("| code | `why` | when |")]
    for channel in doc.tree["channels"].values():
        assert closing == [(row["code"], row["why"]) for row in channel["x-close-codes"]], closing
    # The client's own close is not announced, and a publisher hears no `bye`.
    spoken = [row for row in closing if row[0] not in (1000, 4500)]
    pairs = messages["bye"]["payload"]["oneOf"]
    assert spoken == [(p["properties"]["code"]["const"], p["properties"]["why"]["const"]) for p in pairs], spoken
    assert spoken == list(zip(payload["bye"]["code"]["enum"], payload["bye"]["why"]["enum"])), spoken

    words = {
        "| `state` | what it means |": schemas["State"],
        "| `level` | what it means | back |": payload["lag"]["level"],
        "| `resumed` | what follows |": schemas["SubscribedRow"]["properties"]["resumed"],
        "| `past` | what follows |": schemas["SubscribedRow"]["properties"]["past"],
        "| code of an `error` | meaning |": payload["error"]["code"],
        "| code of a rejected symbol | meaning |": schemas["Rejected"]["items"]["properties"]["code"],
        "| mode | while the client keeps up | when it does not |": schemas["Mode"],
    }
    for head, schema in words.items():
        listed = {row[0] for row in rows(head)}
        assert listed <= set(schema["enum"]), f"{head} {listed - set(schema['enum'])}"
    return len(words) + 1


def main():
    doc, samples = document(), list(page_samples())
    print("samples", samples_of_the_page(doc, samples))
    print("examples", examples(doc))
    described = [(channel, e) for channel, ms in doc.messages.items() for m in ms.values() for e in m.examples]
    print("fields", fields(doc, samples + described))
    print("heard", heard(samples + described))
    print("messages", kinds(doc, samples))
    print("operations", operations(doc))
    print("tables", tables(doc))


main()
