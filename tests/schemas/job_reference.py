"""Writes docs/job.md from the JSON Schema of a job: every field, its type, its default and what it means."""

import json
from typing import Any

SECTIONS = (
    ("Source", "source", "Where images and labels come from. `kind` may be left out where the name tells it."),
    ("Codec", "codec", "What turns images into latents and back. Everything here is in the fingerprint."),
    ("Steps", "steps", "What is done, in this order. Every step may have a `name` that other steps refer to."),
    ("Executor", "executor", "How it is executed. Nothing here changes a result."),
)
PARTS = {"source": ("LabelsSpec",), "codec": ("Preprocess",), "steps": ("Change", "TokenChange", "TrustRegion")}
"""Models inside others, told below the section where they occur."""
ANCHORS = {
    "LabelsSpec": "labels",
    "Preprocess": "preprocess",
    "Change": "changes",
    "TokenChange": "tokens",
    "TrustRegion": "trust",
}
BOUNDS = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
HEAD = """# The job file

Written by a test from the schema that validates jobs (`make golden` renews it). Editors complete and check a job file that
begins with `# yaml-language-server: $schema=<path to>/docs/job.schema.json`. Whole examples: `examples/*.yaml`.
A field without a default is required. On the command line, `--set path=value` overrides any field: `--set executor.kind=local`,
`--set steps.encode.batch_size=64`.
"""


def job_reference(schema: dict[str, Any]) -> str:
    """The page as Markdown."""
    parts = [HEAD, "## Job\n", _table(schema, schema)]
    for title, field, words in SECTIONS:
        parts.append(f"## {title}\n\n{words}\n")
        for model in _members(schema["properties"][field], schema):
            tag = next(p["const"] for p in model["properties"].values() if "const" in p)
            parts.append(f"### `{tag}`\n\n{model['description']}\n")
            parts.append(_table(model, schema))
        for name in PARTS.get(field, ()):
            parts.append(f"### {ANCHORS[name]}\n\n{schema['$defs'][name]['description']}\n")
            parts.append(_table(schema["$defs"][name], schema))
    return "\n".join(parts)


def _table(model: dict[str, Any], schema: dict[str, Any]) -> str:
    rows = ["| field | type | default | |", "|---|---|---|---|"]
    required = model.get("required", [])
    # The field that selects the model comes first, then what must be given.
    fields = sorted(model["properties"].items(), key=lambda f: ("const" not in f[1], f[0] not in required))
    for name, field in fields:
        default = "" if name in required else f"`{_value(field.get('default', {}))}`"
        cells = (f"`{name}`", _type(field, schema), default, field.get("description", ""))
        rows.append("| " + " | ".join(c.replace("\n", " ").replace("|", "\\|") for c in cells) + " |")
    return "\n".join(rows) + "\n"


def _value(default: Any) -> str:
    text = json.dumps(default, ensure_ascii=False)
    return text if len(text) <= 60 else "…"


def _members(field: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The models of a tagged union, in the order of the schema."""
    union = field.get("items", field)
    branches = union.get("oneOf") or union["anyOf"]
    return [schema["$defs"][b["$ref"].rsplit("/", 1)[1]] for b in branches]


def _type(field: dict[str, Any], schema: dict[str, Any]) -> str:
    match field:
        case {"const": value}:
            return f"`{value}`"
        case {"enum": values}:
            return " or ".join(f"`{v}`" for v in values)
        case {"anyOf": branches} | {"oneOf": branches}:
            return " or ".join(dict.fromkeys(_type(b, schema) for b in branches))
        case {"$ref": ref}:
            target = ref.rsplit("/", 1)[1]
            return f"[{target}](#{_anchor(schema['$defs'][target], target)})"
        case {"type": "array", "prefixItems": items}:
            return f"[{', '.join(_type(i, schema) for i in items)}]"
        case {"type": "array", "items": items}:
            return f"list of {_type(items, schema)}"
        case {"type": "object", "additionalProperties": dict() as values}:
            return f"mapping to {_type(values, schema)}"
        case {"type": kind}:
            plain = {"integer": "int", "number": "float", "string": "text", "boolean": "bool", "object": "mapping"}
            bounds = [f"{sign} {field[key]}" for key, sign in BOUNDS if key in field]
            return " ".join([plain.get(kind, kind), *bounds])
    return "anything"


def _anchor(model: dict[str, Any], name: str) -> str:
    tags = [str(p["const"]) for p in model["properties"].values() if "const" in p]
    return tags[0] if tags else ANCHORS[name]
