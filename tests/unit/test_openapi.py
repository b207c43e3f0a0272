"""The OpenAPI document: complete, in step with the code, and exactly the source document's Service API."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tof.agent import app_body
from tof.agent.app import AppState
from tof.agent.mirror_body import FIELDS as MIRROR_FIELDS
from tof.agent.mirror_body import FILE_PATTERN, INTERFACE_PATTERN
from tof.agent.service_body import FIELDS, REQUIRED, body_of, parse
from tof.agent.service_check import LONGEST_DOMAIN, MOST_ENTRIES, NAME_PATTERN
from tof.api import render
from tof.api.app_handlers import AppHandlers
from tof.api.apps_port import NoApps
from tof.api.docs import as_openapi_30
from tof.api.document import DOCUMENT, load_document
from tof.api.handlers import Handlers
from tof.api.port import Check, HealthState, HealthView, ServiceState, TunnelQuery, TunnelView
from tof.errors import BadRequest, SetupError
from tof.model import Direction, Mode, TunnelKey, TunnelState, address_text

ROOT = Path(__file__).resolve().parents[2]
DOC = load_document()
SCHEMAS = DOC.content["components"]["schemas"]
CODES = {(op.method, op.path): op.statuses for op in DOC.operations}


def test_the_document_in_the_package_is_the_one_in_openapi():
    assert DOCUMENT.resolve() == ROOT / "openapi" / "tof.yaml"
    assert DOC.content["openapi"].startswith("3.1.")


def test_a_missing_document_is_one_clear_line(tmp_path):
    with pytest.raises(SetupError, match="tools/setup"):
        load_document(tmp_path / "tof.yaml")


def test_every_operation_has_a_handler_and_every_handler_an_operation():
    handled = {*Handlers(None, DOC).by_operation(), *AppHandlers(NoApps()).by_operation()}
    assert {op.operation_id for op in DOC.operations} == handled


def test_the_service_api_answers_the_codes_of_the_source_document_and_503():
    assert CODES["GET", "/service"] == {200}
    assert CODES["POST", "/service"] == {200, 400, 409, 503}
    assert CODES["PUT", "/service/{name}"] == {200, 400, 404, 409, 503}
    # 409: an address that several services have.
    assert CODES["DELETE", "/service/{name}"] == {200, 404, 409, 503}
    assert {path for _, path in CODES if path.startswith("/service")} == {
        "/service",
        "/service/{name}",
        "/service/{name}/status",
    }


def test_the_operations_api_is_complete():
    assert {path for _, path in CODES if not path.startswith(("/service", "/apps"))} == {
        "/policy",
        "/tunnels",
        "/sessions",
        "/usage",
        "/health",
        "/metrics",
        "/openapi.json",
        "/docs",
    }


def test_the_apps_api_is_complete_and_its_bounds_are_the_code_s():
    assert CODES["POST", "/apps"] == {201, 202, 400, 409, 502, 503, 504}
    assert CODES["DELETE", "/apps/{name}"] == {200, 202, 400, 404, 503, 504}
    assert {path for _, path in CODES if path.startswith("/apps")} == {"/apps", "/apps/{name}"}
    schema = SCHEMAS["App"]
    assert tuple(schema["properties"]) == app_body.FIELDS
    assert schema["properties"]["name"]["pattern"] == f"^{app_body.NAME.pattern}$"
    assert schema["properties"]["services"]["maxItems"] == app_body.MOST_SERVICES
    assert SCHEMAS["AppView"]["properties"]["state"]["enum"] == [s.value for s in AppState if s != "gone"]
    flavour = SCHEMAS["Flavour"]["properties"]
    assert (flavour["cpu"]["minimum"], flavour["cpu"]["maximum"]) == (app_body.LEAST_CPU, app_body.MOST_CPU)
    assert flavour["memoryMb"]["maximum"] == app_body.MOST_MB


def test_a_service_is_two_required_strings_and_what_may_be_added():
    schema = SCHEMAS["Service"]
    assert schema["additionalProperties"] is False
    assert tuple(schema["required"]) == REQUIRED
    assert tuple(schema["properties"]) == FIELDS
    assert {schema["properties"][field]["type"] for field in REQUIRED} == {"string"}


@pytest.mark.parametrize("name", ["address", "port", "prefix", "domain", "health", "mirror", "shadow"])
def test_the_examples_of_services_are_services_in_their_canonical_form(name):
    media = DOC.content["components"]["requestBodies"]["Service"]["content"]["application/json"]
    [add] = [op for op in DOC.operations if op.operation_id == "addService"]
    example = media["examples"][name]["value"]
    assert add.check_body(example) == []
    assert body_of(parse(example)) == example
    assert len(media["examples"]) == 8


def test_the_examples_of_fields_make_a_service():
    properties = SCHEMAS["Service"]["properties"]
    for place, other in (("serviceIP", "domain"), ("domain", "serviceIP")):
        left_out = ("applicationPort", "health", "mirror", "spread", other)
        body = {field: properties[field]["examples"][0] for field in FIELDS if field not in left_out}
        assert place in body
        assert body_of(parse(body)) == body
    assert properties["mode"]["enum"] == [mode.value for mode in Mode]


def test_the_bounds_of_document_and_code_are_the_same():
    properties = SCHEMAS["Service"]["properties"]
    for field in ("ports", "dscp", "vlans", "ues", "enbs", "sgws"):
        assert properties[field]["maxItems"] == MOST_ENTRIES
    plain = {"name": "a", "serviceIP": "198.51.100.10", "applicationIP": "192.168.50.10"}
    assert properties["domain"]["maxLength"] > LONGEST_DOMAIN
    for field, schema in properties.items():
        of = schema.get("items", schema)
        for bound, beyond in (("minimum", -1), ("maximum", 1)):
            if bound in of:
                value = of[bound] + beyond
                with pytest.raises(BadRequest) as caught:
                    parse(
                        {
                            **plain,
                            "protocol": 6,
                            "ports": [80],
                            field: [value] if "items" in schema else value,
                        }
                    )
                assert caught.value.field == field


def test_swagger_ui_reads_every_type_of_the_document():
    older = as_openapi_30({"type": ["string", "integer"], "minimum": 0})
    assert older == {"anyOf": [{"type": "string"}, {"type": "integer"}], "nullable": False, "minimum": 0}
    assert as_openapi_30({"type": ["integer", "null"]}) == {"type": "integer", "nullable": True}


def test_the_words_of_document_and_code_are_the_same():
    assert SCHEMAS["Service"]["properties"]["name"]["pattern"] == f"^{NAME_PATTERN.pattern}$"
    mirror = SCHEMAS["Mirror"]["properties"]
    assert tuple(mirror) == MIRROR_FIELDS
    assert mirror["interface"]["pattern"] == f"^{INTERFACE_PATTERN.pattern}$"
    assert mirror["file"]["pattern"] == f"^{FILE_PATTERN.pattern}$"
    assert SCHEMAS["Tunnel"]["properties"]["direction"]["enum"] == [d.value for d in Direction]
    assert SCHEMAS["Tunnel"]["properties"]["state"]["enum"] == [s.value for s in TunnelState]
    assert SCHEMAS["Session"]["properties"]["state"]["enum"] == [s.value for s in TunnelState]
    assert SCHEMAS["ServiceStatus"]["properties"]["state"]["enum"] == [s.value for s in ServiceState]
    assert SCHEMAS["HealthState"]["enum"] == [s.value for s in HealthState]


def test_health_is_as_bad_as_its_worst_check():
    ok, bad = Check("ovs", HealthState.OK), Check("queue", HealthState.DEGRADED, "full")
    assert HealthView(()).state is HealthState.OK
    assert HealthView((ok,)).state is HealthState.OK
    assert HealthView((ok, bad)).state is HealthState.DEGRADED


ADDRESSES = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
KEYS = st.builds(
    TunnelKey,
    ADDRESSES,
    ADDRESSES,
    st.integers(0, 2**32 - 1),
    st.none() | st.integers(0, 4095),
)


@given(st.frozensets(KEYS, max_size=30), st.integers(1, 7))
def test_pages_hold_every_tunnel_once_and_in_one_order(keys, limit):
    everything = TunnelQuery().page(keys)
    assert (
        sorted(everything) == sorted(keys) if all(k.vlan is None for k in keys) else set(everything) == keys
    )
    paged, after = [], None
    while page := TunnelQuery(limit=limit, after=after).page(keys):
        assert len(page) <= limit
        paged += page
        after = page[-1]
    assert paged == everything


def test_a_query_compares_ipv6_ues_by_their_prefix():
    key = TunnelKey(bytes(4), bytes(4), 1)
    prefix = bytes(range(8))
    assert TunnelQuery(ue=prefix).wants(key, [prefix])
    assert TunnelQuery(ue=prefix + bytes(8)).wants(key, [prefix])
    assert not TunnelQuery(ue=bytes(16)).wants(key, [prefix])
    assert TunnelQuery(ue=bytes(4)).wants(key, [bytes(4)])
    assert not TunnelQuery(ue=bytes(4)).wants(key, [])


@given(KEYS)
def test_cursors_come_back(key):
    view = TunnelView(
        Direction.UPLINK,
        key.vlan,
        address_text(key.source),
        address_text(key.destination),
        key.teid,
        (),
        None,
        TunnelState.LEARNT,
        0,
        0,
        datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert render.parse_cursor(render.cursor(view)) == key
