"""Is an alert what it claims to be? Checked against the OCSF schema itself (extra `demo`: two packages)."""

import functools
from typing import Any

import msgspec

from detector.events.ocsf import CLASS_UID, OCSF_VERSION, PROFILE

ERRORS_MAX = 20


def validate_alert(value: bytes) -> list[str]:
    """What is wrong with an alert's value, as "place: fault"; empty if nothing is.

    Beside the schema: the profile is declared, and `type_uid` is class and activity. Raises ImportError without
    the packages `ocsf-json-schema` and `jsonschema`.
    """
    try:
        event = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return [f"alert: expected JSON; {error}"]
    faults = [f"{fault.json_path}: {fault.message}" for fault in _validator().iter_errors(event)]
    return faults[:ERRORS_MAX] or _consistency(event)


def _consistency(event: dict[str, Any]) -> list[str]:
    faults = []
    if event["metadata"]["version"] != OCSF_VERSION or PROFILE not in event["metadata"].get("profiles", []):
        faults.append(f"$.metadata: expected version {OCSF_VERSION} and profile {PROFILE}")
    if event["type_uid"] != CLASS_UID * 100 + event["activity_id"]:
        faults.append("$.type_uid: expected class_uid * 100 + activity_id")
    return faults


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator
    from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(OCSF_VERSION))
    return Draft202012Validator(schema.get_class_schema(schema.lookup_class_name_from_uid(CLASS_UID), [PROFILE]))
