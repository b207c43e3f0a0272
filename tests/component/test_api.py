"""The API as its callers see it: a real aiohttp server over a port that keeps its state in memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import stat

import aiohttp
import pytest
from memory_port import MemoryPort, tunnel

from tof.agent.accounting import Account, AccountKey, Ledger
from tof.api.app import ApiOptions, create_app
from tof.api.client import connect
from tof.api.server import serve
from tof.errors import BackendError, Conflict, SetupError

VIDEO = {"name": "video", "serviceIP": "198.51.100.10", "applicationIP": "192.168.50.10"}
RADIO = {"name": "radio", "serviceIP": "198.51.100.11", "applicationIP": "192.168.50.10"}
GAMES = {
    "name": "games",
    "serviceIP": "203.0.113.0/24",
    "applicationIP": "192.168.50.10",
    "protocol": "udp",
    "ports": [3478],
    "applicationPort": 3479,
    "dscp": [0, 46],
    "vlans": [0, 100],
    "ues": ["10.45.0.0/16"],
    "enbs": ["10.0.0.1", "2001:db8::/64"],
    "sgws": ["10.0.1.0/24"],
    "priority": 10,
    "mode": "shadow",
}
PROBLEM = "application/problem+json"


@pytest.fixture
def port():
    return MemoryPort()


@pytest.fixture
async def api(port):
    options = ApiOptions(hosts=frozenset({"Edge.Example"}), read_timeout_s=0.3)
    app = create_app(port, options=options)
    async with serve(app, ["http://127.0.0.1:0"]) as (url,), aiohttp.ClientSession(url) as session:
        yield session


async def ask(api, method, path, **more):
    async with api.request(method, path, **more) as response:
        raw = await response.read()
        body = json.loads(raw) if "json" in response.content_type and raw else raw.decode()
        return response, body


def assert_problem(response, body, status, field=None):
    assert response.status == status, body
    assert response.content_type == PROBLEM
    assert set(body) == {"type", "title", "status", "detail", "instance", "errors"}
    assert body["status"] == status
    assert body["detail"]
    if field is not None:
        assert [e["field"] for e in body["errors"]] == [field]
        assert all(e["detail"] for e in body["errors"])


# --- the Service API ---------------------------------------------------------------------------------------


async def test_a_policy_is_everything_or_nothing(api, port):
    response, body = await ask(api, "PUT", "/policy", json={"services": [VIDEO, RADIO]})
    assert (response.status, body) == (200, {"services": [RADIO, VIDEO]})
    response, body = await ask(api, "PUT", "/policy", json={"services": [GAMES, VIDEO]})
    assert (await ask(api, "GET", "/policy"))[1] == body == {"services": [GAMES, VIDEO]}
    for bad, status, field in (
        ({**RADIO, "applicationIP": "192.168.50.1"}, 400, "applicationIP"),
        ({**RADIO, "applicationIP": "x"}, 400, "services[1].applicationIP"),
        ({**RADIO, "serviceIP": VIDEO["serviceIP"]}, 409, "services[1].serviceIP"),
        ({**RADIO, "name": "video"}, 409, "services[1].name"),
    ):
        response, answer = await ask(api, "PUT", "/policy", json={"services": [VIDEO, bad]})
        assert_problem(response, answer, status, field)
    response, answer = await ask(api, "PUT", "/policy", json={"services": [VIDEO, {"name": "x"}]})
    assert response.status == 400
    assert {each["field"] for each in answer["errors"]} == {
        "services.1.serviceIP",
        "services.1.applicationIP",
    }
    port.refuses = BackendError("no switch")
    response, answer = await ask(api, "PUT", "/policy", json={"services": []})
    assert_problem(response, answer, 503)
    assert (await ask(api, "GET", "/policy"))[1] == body


async def test_a_policy_may_be_large(api):
    services = [
        {"name": f"s{n}", "serviceIP": f"10.{n >> 8}.{n & 255}.1", "applicationIP": "192.168.50.10"}
        for n in range(2000)
    ]
    response, body = await ask(api, "PUT", "/policy", json={"services": services})
    assert (response.status, len(body["services"])) == (200, 2000)


async def test_list_is_empty_then_sorted_by_name(api):
    response, body = await ask(api, "GET", "/service")
    assert (response.status, body) == (200, [])
    await ask(api, "POST", "/service", json=VIDEO)
    await ask(api, "POST", "/service", json=RADIO)
    assert (await ask(api, "GET", "/service"))[1] == [RADIO, VIDEO]


async def test_post_answers_200_with_the_service(api):
    response, body = await ask(api, "POST", "/service", json=VIDEO)
    assert (response.status, body) == (200, VIDEO)
    assert response.content_type == "application/json"


async def test_addresses_come_back_in_canonical_form(api):
    sent = {"name": "six", "serviceIP": "2001:DB8:0:0::1", "applicationIP": "2001:db8::00ff"}
    _, body = await ask(api, "POST", "/service", json=sent)
    assert (body["serviceIP"], body["applicationIP"]) == ("2001:db8::1", "2001:db8::ff")


async def test_a_service_with_every_field_comes_back(api):
    for method, path in (("POST", "/service"), ("PUT", "/service/games")):
        response, body = await ask(api, method, path, json=GAMES)
        assert (response.status, body) == (200, GAMES)
    assert (await ask(api, "GET", "/service"))[1] == [GAMES]


async def test_fields_come_back_in_canonical_form_and_only_if_they_say_something(api):
    more = {"protocol": 6, "ports": [81, "80-80", 443], "ues": [], "dscp": [46, 46], "priority": 0}
    _, body = await ask(api, "POST", "/service", json={**VIDEO, **more, "mode": "divert"})
    assert body == {**VIDEO, "protocol": "tcp", "ports": ["80-81", 443], "dscp": [46]}
    _, body = await ask(api, "PUT", "/service/video", json=VIDEO)
    assert body == VIDEO


async def test_a_prefix_with_bits_behind_it_says_which_is_meant(api):
    response, body = await ask(api, "POST", "/service", json={**VIDEO, "serviceIP": "203.0.113.7/24"})
    assert_problem(response, body, 400, "serviceIP")
    assert "203.0.113.0/24" in body["detail"]


async def test_services_share_an_address_while_they_do_not_overlap(api):
    web = {**VIDEO, "protocol": "tcp", "ports": [80]}
    tls = {**VIDEO, "name": "tls", "protocol": "tcp", "ports": [443]}
    for service in (web, tls):
        assert (await ask(api, "POST", "/service", json=service))[0].status == 200
    both = {**VIDEO, "name": "both", "protocol": "tcp", "ports": ["1-100"]}
    response, body = await ask(api, "POST", "/service", json=both)
    assert_problem(response, body, 409, "serviceIP")
    assert all(text in body["detail"] for text in ("video", "both", "priority"))
    assert (await ask(api, "POST", "/service", json={**both, "priority": -1}))[0].status == 200
    response, body = await ask(api, "DELETE", "/service/198.51.100.10")
    assert_problem(response, body, 409, "name")
    assert "both, tls, video" in body["detail"]
    for name in ("both", "video"):
        assert (await ask(api, "DELETE", f"/service/{name}"))[0].status == 200
    assert (await ask(api, "DELETE", "/service/198.51.100.10"))[0].status == 200
    assert (await ask(api, "GET", "/service"))[1] == []


async def test_a_prefix_may_contain_what_an_address_must_not_be(api):
    for name, prefix in (("all", "0.0.0.0/0"), ("near", "8.8.8.0/24"), ("mine", "192.168.50.0/24")):
        response, _ = await ask(api, "POST", "/service", json={**VIDEO, "name": name, "serviceIP": prefix})
        assert response.status == 200
    assert_problem(*await ask(api, "POST", "/service", json={**VIDEO, "serviceIP": "8.8.8.8/32"}), 400)


@pytest.mark.parametrize("key", ["203.0.113.0%2F24", "%3A%3Affff%3A203.0.113.0%2f120"])
async def test_delete_by_prefix(api, key):
    await ask(api, "POST", "/service", json=GAMES)
    assert_problem(*await ask(api, "DELETE", "/service/203.0.113.0"), 404, "name")
    assert_problem(*await ask(api, "DELETE", "/service/203.0.113.0%2F25"), 404, "name")
    response, body = await ask(api, "DELETE", f"/service/{key}")
    assert (response.status, body) == (200, "")
    assert (await ask(api, "GET", "/service"))[1] == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "radio"}, "serviceIP"),
        ({"name": "radio", "serviceIP": "::ffff:198.51.100.10"}, "serviceIP"),
        ({"serviceIP": "198.51.100.11"}, "name"),
    ],
)
async def test_post_of_what_is_taken_is_409(api, change, field):
    await ask(api, "POST", "/service", json=VIDEO)
    assert_problem(*await ask(api, "POST", "/service", json={**VIDEO, **change}), 409, field)
    assert (await ask(api, "GET", "/service"))[1] == [VIDEO]


BAD_SERVICES = [
    ({"name": "198.51.100.9"}, "name"),
    ({"name": "a b"}, "name"),
    ({"name": ""}, "name"),
    ({"name": "x" * 64}, "name"),
    ({"name": None}, "name"),
    ({"serviceIP": 1}, "serviceIP"),
    ({"serviceIP": "example.com"}, "serviceIP"),
    ({"serviceIP": "1" * 65}, "serviceIP"),
    ({"serviceIP": "224.0.0.1"}, "serviceIP"),
    ({"serviceIP": "127.0.0.1"}, "serviceIP"),
    ({"serviceIP": "0.0.0.0"}, "serviceIP"),
    ({"serviceIP": "8.8.8.8"}, "serviceIP"),
    ({"serviceIP": "::ffff:8.8.8.8"}, "serviceIP"),
    ({"serviceIP": "192.168.50.1"}, "serviceIP"),
    ({"applicationIP": "192.168.50.1"}, "applicationIP"),
    ({"applicationIP": "2001:db8::1"}, "applicationIP"),
    ({"applicationIP": ["192.168.50.10"]}, "applicationIP"),
    ({"port": 80}, "port"),
    ({"serviceip": "198.51.100.10"}, "serviceip"),
    ({"serviceIP": "203.0.113.7/24"}, "serviceIP"),
    ({"serviceIP": "224.0.0.0/4"}, "serviceIP"),
    ({"applicationIP": "192.168.50.0/24"}, "applicationIP"),
    ({"protocol": "gopher"}, "protocol"),
    ({"protocol": 256}, "protocol"),
    ({"protocol": 6.0}, "protocol"),
    ({"protocol": None}, "protocol"),
    ({"ports": [80]}, "ports"),
    ({"ports": "80", "protocol": "tcp"}, "ports"),
    ({"ports": [0], "protocol": "tcp"}, "ports.0"),
    ({"ports": [80, "90-80"], "protocol": "tcp"}, "ports"),
    ({"ports": list(range(1, 131, 2)), "protocol": "tcp"}, "ports"),
    ({"ports": [80, 82], "protocol": "tcp", "applicationPort": 8080}, "applicationPort"),
    ({"applicationPort": 8080}, "applicationPort"),
    ({"dscp": [64]}, "dscp.0"),
    ({"vlans": [0] * 65}, "vlans"),
    ({"ues": ["2001:db8::1"]}, "ues"),
    ({"enbs": ["10.0.0.1/8"]}, "enbs"),
    ({"sgws": [1]}, "sgws.0"),
    ({"priority": 1001}, "priority"),
    ({"mode": "mirror"}, "mode"),
]


@pytest.mark.parametrize(("change", "field"), BAD_SERVICES)
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_bad_service_is_400_and_names_the_field(api, method, change, field):
    await ask(api, "POST", "/service", json=VIDEO)
    path = "/service" if method == "POST" else "/service/video"
    assert_problem(*await ask(api, method, path, json={**VIDEO, **change}), 400, field)
    assert (await ask(api, "GET", "/service"))[1] == [VIDEO]


async def test_every_missing_or_unknown_field_is_named(api):
    response, body = await ask(api, "POST", "/service", json={"name": "video", "port": 80})
    assert_problem(response, body, 400)
    assert {e["field"] for e in body["errors"]} == {"serviceIP", "applicationIP", "port"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"video"',
        b"{} {}",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"name": NaN}',
        b'{"name": "\\ud800", "serviceIP": "198.51.100.10", "applicationIP": "192.168.50.10"}',
        b'{"\\ud800": 1}',
        b"[" * 60000,
        b'{"name": ' + b"9" * 5000 + b"}",
        json.dumps(VIDEO).encode("utf-16"),
    ],
)
async def test_what_is_not_the_json_of_a_service_is_400(api, raw):
    headers = {"Content-Type": "application/json"}
    assert_problem(*await ask(api, "POST", "/service", data=raw, headers=headers), 400)
    assert (await ask(api, "GET", "/service"))[1] == []


async def test_a_duplicate_key_is_400(api):
    raw = json.dumps(VIDEO)[:-1] + ', "name": "radio"}'
    headers = {"Content-Type": "application/json"}
    assert_problem(*await ask(api, "POST", "/service", data=raw, headers=headers), 400, "name")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml"])
async def test_another_content_type_is_400(api, kind):
    headers = {"Content-Type": kind}
    response, body = await ask(api, "POST", "/service", data=json.dumps(VIDEO), headers=headers)
    assert_problem(response, body, 400, "Content-Type")


async def test_a_charset_parameter_is_fine(api):
    headers = {"Content-Type": "application/json; charset=utf-8"}
    response, _ = await ask(api, "POST", "/service", data=json.dumps(VIDEO), headers=headers)
    assert response.status == 200


async def test_a_body_over_64_kib_is_400(api):
    big = {**VIDEO, "name": "x" * 70000}
    assert_problem(*await ask(api, "POST", "/service", json=big), 400)

    async def endless():
        for _ in range(200):
            yield b" " * 1024

    headers = {"Content-Type": "application/json"}
    assert_problem(*await ask(api, "POST", "/service", data=endless(), headers=headers), 400)


async def test_a_compressed_body_is_400(api):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    for raw in (gzip.compress(b" " * 3_000_000), b"junk"):
        response, body = await ask(api, "POST", "/service", data=raw, headers=headers)
        assert_problem(response, body, 400, "Content-Encoding")


async def raw_exchange(api, text, timeout_s=5):
    url = api._base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(text.encode())
        await writer.drain()
        async with asyncio.timeout(timeout_s):
            return (await reader.read()).decode()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_body_that_never_comes_is_400_in_bounded_time(api):
    head = "POST /service HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = await raw_exchange(api, head + "Content-Length: 20\r\n\r\n{")
    assert answer.startswith("HTTP/1.1 400 ")
    assert "did not arrive" in answer
    answer = await raw_exchange(api, head + "Content-Length: 99999999\r\n\r\n{")
    assert answer.startswith("HTTP/1.1 400 ")


async def test_a_garbled_or_broken_off_body_is_answered_or_dropped(api, caplog):
    head = "POST /service HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = await raw_exchange(api, head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n")
    assert answer[8:13] == " 400 "
    reader, writer = await asyncio.open_connection(api._base_url.host, api._base_url.port)
    writer.write((head + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n").encode())
    await asyncio.sleep(0.05)
    writer.write(b"zz\r\n")
    assert b" 400 " in await reader.readline()
    writer.close()
    _, writer = await asyncio.open_connection(api._base_url.host, api._base_url.port)
    writer.write((head + "Content-Length: 20\r\n\r\n{").encode())
    await writer.drain()
    writer.transport.abort()
    await asyncio.sleep(0.05)
    assert (await ask(api, "GET", "/service"))[1] == []
    assert not [r for r in caplog.records if r.levelname == "ERROR" and "Unhandled" in r.message]


async def test_put_updates_and_renames(api):
    await ask(api, "POST", "/service", json=VIDEO)
    moved = {**VIDEO, "applicationIP": "192.168.50.11"}
    response, body = await ask(api, "PUT", "/service/video", json=moved)
    assert (response.status, body) == (200, moved)
    renamed = {**moved, "name": "films"}
    response, body = await ask(api, "PUT", "/service/video", json=renamed)
    assert (response.status, body) == (200, renamed)
    assert (await ask(api, "GET", "/service"))[1] == [renamed]


async def test_put_of_nothing_is_404(api):
    assert_problem(*await ask(api, "PUT", "/service/video", json=VIDEO), 404, "name")
    await ask(api, "POST", "/service", json=VIDEO)
    assert_problem(*await ask(api, "PUT", "/service/198.51.100.10", json=VIDEO), 404, "name")


async def test_put_onto_another_service_is_409(api):
    await ask(api, "POST", "/service", json=VIDEO)
    await ask(api, "POST", "/service", json=RADIO)
    assert_problem(*await ask(api, "PUT", "/service/video", json={**VIDEO, "name": "radio"}), 409, "name")
    taken = {**VIDEO, "serviceIP": RADIO["serviceIP"]}
    assert_problem(*await ask(api, "PUT", "/service/video", json=taken), 409, "serviceIP")
    assert (await ask(api, "GET", "/service"))[1] == [RADIO, VIDEO]


@pytest.mark.parametrize(
    "key", ["video", "198.51.100.10", "::ffff:198.51.100.10", "%3A%3Affff%3Ac633%3A640a"]
)
async def test_delete_by_name_or_service_ip_is_200_and_empty(api, key):
    await ask(api, "POST", "/service", json=VIDEO)
    response, body = await ask(api, "DELETE", f"/service/{key}")
    assert (response.status, body, response.content_length) == (200, "", 0)
    assert (await ask(api, "GET", "/service"))[1] == []
    assert_problem(*await ask(api, "DELETE", f"/service/{key}"), 404, "name")


async def test_delete_does_not_take_the_application_ip(api):
    await ask(api, "POST", "/service", json=VIDEO)
    assert_problem(*await ask(api, "DELETE", "/service/192.168.50.10"), 404)
    assert_problem(*await ask(api, "DELETE", "/service/a%2Fb"), 404)


async def test_a_refusing_data_plane_is_503_and_nothing_changed(api, port):
    await ask(api, "POST", "/service", json=VIDEO)
    port.refuses = BackendError("OVS refused the bundle")
    for method, path, more in [
        ("POST", "/service", {"json": RADIO}),
        ("PUT", "/service/video", {"json": {**VIDEO, "name": "films"}}),
        ("DELETE", "/service/video", {}),
    ]:
        response, body = await ask(api, method, path, **more)
        assert_problem(response, body, 503)
        assert body["detail"] == "OVS refused the bundle"
    assert (await ask(api, "GET", "/service"))[1] == [VIDEO]


async def test_status_of_a_service(api, port):
    await ask(api, "POST", "/service", json=VIDEO)
    _, body = await ask(api, "GET", "/service/video/status")
    assert body == {"name": "video", "state": "in_force", "detail": ""}
    port.unresolved.add("video")
    _, body = await ask(api, "GET", "/service/video/status")
    assert body["state"] == "unresolved"
    assert body["detail"]
    assert_problem(*await ask(api, "GET", "/service/radio/status"), 404, "name")


# --- the operations API ------------------------------------------------------------------------------------


async def test_tunnels_have_every_field(api, port):
    port.held = [tunnel(teid=7, qfi=9, vlan=100)]
    response, body = await ask(api, "GET", "/tunnels")
    assert response.status == 200
    assert body == [
        {
            "direction": "uplink",
            "vlan": 100,
            "source": "10.0.0.1",
            "destination": "10.0.1.1",
            "teid": 7,
            "ues": ["10.45.0.2"],
            "qfi": 9,
            "state": "paired",
            "packets": 3,
            "bytes": 252,
            "last_seen": "2026-01-02T03:04:05.500000Z",
        }
    ]


async def test_tunnels_are_filtered(api, port):
    port.held = [
        tunnel(teid=1),
        tunnel(teid=2, source="10.0.0.2"),
        tunnel(teid=3, destination="10.0.1.2"),
        tunnel(teid=4, ues=("2001:db8:0:7::/64",)),
    ]

    async def teids(query):
        return [t["teid"] for t in (await ask(api, "GET", f"/tunnels?{query}"))[1]]

    assert await teids("teid=2") == [2]
    assert await teids("source=10.0.0.2") == [2]
    assert await teids("source=::ffff:10.0.0.2") == [2]
    assert await teids("destination=10.0.1.2") == [3]
    assert await teids("ue=10.45.0.2") == [1, 3, 2]
    assert await teids("ue=2001:db8:0:7::1") == [4]
    assert await teids("ue=2001:db8:0:7::/64") == [4]
    assert await teids("ue=10.45.0.2&source=10.0.0.1") == [1, 3]
    assert await teids("ue=10.45.0.9") == []


async def test_tunnels_are_paged_by_link(api, port):
    port.held = [tunnel(teid=n, source=f"10.0.{n % 3}.1", vlan=n % 2 or None) for n in range(25)]
    seen, path, pages = [], "/tunnels?limit=10&destination=10.0.1.1", 0
    while path:
        response, body = await ask(api, "GET", path)
        seen += [(t["vlan"], t["source"], t["teid"]) for t in body]
        link = response.links.get("next")
        path = link and link["url"].path_qs
        pages += 1
    assert pages == 3
    assert len(seen) == len(set(seen)) == 25
    everything = (await ask(api, "GET", "/tunnels"))[1]
    assert seen == [(t["vlan"], t["source"], t["teid"]) for t in everything]
    response, body = await ask(api, "GET", "/tunnels?limit=25")
    assert len(body) == 25
    assert "Link" not in response.headers


async def test_many_tunnels_come_in_one_answer(api, port):
    port.held = [tunnel(teid=n) for n in range(2100)]
    _, body = await ask(api, "GET", "/tunnels")
    assert [t["teid"] for t in body] == list(range(2100))


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("teid=x", "teid"),
        ("teid=-1", "teid"),
        ("teid=4294967296", "teid"),
        ("teid=1&teid=2", "teid"),
        ("limit=0", "limit"),
        ("limit=", "limit"),
        ("ue=nobody", "ue"),
        ("ue=10.45.0.0/16", "ue"),
        ("ue=2001:db8::1/64", "ue"),
        ("source=1", "source"),
        ("destination=10.0.0.1/32", "destination"),
        ("after=junk", "after"),
        ("after=%C3%A9", "after"),
        ("vlan=1", "vlan"),
    ],
)
async def test_bad_parameters_are_400_and_named(api, query, field):
    assert_problem(*await ask(api, "GET", f"/tunnels?{query}"), 400, field)


async def test_usage(api, port):
    ledger = Ledger()
    keys = [
        AccountKey(bytes((10, 45, 0, 2)), bytes((10, 0, 0, 1)), bytes((10, 0, 1, 1)), vlan, 256)
        for vlan in (None, 7)
    ]
    port.used = ledger.usage({key: Account(1, 2, 100, 200, 5, 6) for key in keys})
    response, body = await ask(api, "GET", "/usage")
    assert response.status == 200
    assert [one["vlan"] for one in body] == [None, 7]
    assert body[0]["uplink"] == {"packets": 1, "bytes": 100}
    assert body[0]["start"] == "2026-01-02T03:04:05.500000Z"
    port.refuses = Conflict("accounting is off")
    assert_problem(*await ask(api, "GET", "/usage"), 409)


async def test_sessions(api, port):
    up, down = tunnel(teid=1), tunnel(teid=2, direction="downlink", source="10.0.1.1", destination="10.0.0.1")
    port.held = [up, down]
    _, body = await ask(api, "GET", "/sessions")
    assert [(s["ue"], s["state"]) for s in body] == [("10.45.0.2", "paired")]
    assert body[0]["uplink"][0]["teid"] == 1
    assert body[0]["downlink"][0]["direction"] == "downlink"
    assert (await ask(api, "GET", "/tunnels"))[1] == [body[0]["uplink"][0], body[0]["downlink"][0]]


async def test_health_is_200_and_degraded_with_its_worst_check(api, port):
    response, body = await ask(api, "GET", "/health")
    assert (response.status, body["state"]) == (200, "ok")
    port.ovs_is_up = False
    response, body = await ask(api, "GET", "/health")
    assert (response.status, body["state"]) == (200, "degraded")
    assert {"name": "ovs", "state": "degraded", "detail": "no answer"} in body["checks"]


async def test_metrics_are_prometheus_text(api):
    response, body = await ask(api, "GET", "/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# TYPE tof_services gauge" in body
    assert "tof_services 0.0" in body


async def test_the_document_is_served(api):
    response, body = await ask(api, "GET", "/openapi.json")
    assert response.status == 200
    assert body["openapi"].startswith("3.1")
    assert "/service/{name}" in body["paths"]


async def test_the_docs_need_nothing_from_elsewhere(api):
    response, page = await ask(api, "GET", "/docs")
    assert response.content_type == "text/html"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(loaded) == 4
    for path in loaded:
        assert path.startswith("/docs/")
        async with api.get(path) as asset:
            assert asset.status == 200
            assert len(await asset.read()) > 50
    _, older = await ask(api, "GET", "/docs/openapi-3.0.json")
    assert older["openapi"] == "3.0.3"
    assert older["components"]["schemas"]["Tunnel"]["properties"]["vlan"]["nullable"] is True
    assert '"null"' not in json.dumps(older)


# --- HTTP itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/services", "/service/", "/docs/../tof.yaml", "/service/a/b"])
async def test_nothing_there_is_a_404_problem(api, path):
    assert_problem(*await ask(api, "GET", path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/service/video", {"PUT", "DELETE"}),
        ("DELETE", "/service", {"GET", "POST"}),
        ("PATCH", "/service/video", {"PUT", "DELETE"}),
        ("POST", "/tunnels", {"GET"}),
    ],
)
async def test_another_method_is_a_405_problem(api, method, path, allowed):
    response, body = await ask(api, method, path)
    assert_problem(response, body, 405)
    assert set(response.headers["Allow"].split(",")) == allowed


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:9", "[::1]:8080", "edge.example."]
)
async def test_hosts_that_name_this_machine(api, host):
    response, _ = await ask(api, "GET", "/service", headers={"Host": host})
    assert response.status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:8080", "[::2]", ""])
async def test_hosts_that_do_not_are_421(api, host):
    assert_problem(*await ask(api, "GET", "/service", headers={"Host": host}), 421)
    assert_problem(*await ask(api, "POST", "/service", json=VIDEO, headers={"Host": host}), 421)
    assert (await ask(api, "GET", "/service"))[1] == []


async def test_changes_at_once_are_all_there(api):
    wanted = [{**VIDEO, "name": f"s{n:02}", "serviceIP": f"198.51.100.{n}"} for n in range(20)]
    answers = await asyncio.gather(*(ask(api, "POST", "/service", json=s) for s in wanted + wanted))
    assert sorted(r.status for r, _ in answers) == [200] * 20 + [409] * 20
    assert (await ask(api, "GET", "/service"))[1] == wanted


# --- listening ---------------------------------------------------------------------------------------------


async def test_a_unix_socket_takes_any_host_and_goes_away(port, tmp_path):
    path = tmp_path / "run" / "api.sock"
    async with serve(create_app(port), [f"unix:{path}"]) as bound:
        assert bound == (f"unix:{path}",)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        async with connect([f"unix:{path}"]) as client:
            assert await client.get("/service") == []
        connector = aiohttp.UnixConnector(str(path))
        async with aiohttp.ClientSession("http://evil.example", connector=connector) as session:
            assert (await ask(session, "GET", "/service"))[0].status == 200
    assert not path.exists()


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(port, tmp_path):
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with serve(create_app(port), [f"unix:{path}"]):
        with pytest.raises(SetupError, match="another agent"):
            async with serve(create_app(port), [f"unix:{path}"]):
                pass
        async with connect([f"unix:{path}"]) as client:
            assert await client.get("/service") == []


async def test_a_socket_that_someone_else_put_there_stays(port, tmp_path):
    path = tmp_path / "api.sock"
    async with serve(create_app(port), [f"unix:{path}"]):
        path.unlink()
        path.write_text("other")
    assert path.read_text() == "other"
    with pytest.raises(SetupError, match="not a socket"):
        async with serve(create_app(port), [f"unix:{path}"]):
            pass
    path.unlink()
    async with serve(create_app(port), [f"unix:{path}"]):
        path.unlink()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://0.0.0.0:8080", "TLS"),
        ("http://192.0.2.1:8080", "TLS"),
        ("http://[::]:8080", "TLS"),
        ("http://edge.example:8080", "TLS"),
        ("https://127.0.0.1:8443", "neither"),
        ("http://127.0.0.1:8080/api", "neither"),
        ("127.0.0.1:8080", "neither"),
        ("http://127.0.0.1:99999", "api.listen"),
        ("unix:run/api.sock", "neither"),
        ("", "neither"),
    ],
)
async def test_addresses_that_are_refused(port, address, says):
    with pytest.raises(SetupError, match=says):
        async with serve(create_app(port), [address]):
            pass


async def test_a_port_in_use_is_one_clear_line_and_frees_the_rest(port, tmp_path):
    path = tmp_path / "api.sock"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"cannot listen on 127.0.0.1:{number}"):
            async with serve(create_app(port), [f"unix:{path}", f"http://127.0.0.1:{number}"]):
                pass
    assert not path.exists()


async def test_the_client_says_when_an_agent_breaks_off(tmp_path):
    path = str(tmp_path / "api.sock")
    server = await asyncio.start_unix_server(lambda reader, writer: writer.close(), path)
    async with server, connect([f"unix:{tmp_path}/absent.sock", f"unix:{path}"]) as client:
        with pytest.raises(BackendError, match="broke off"):
            await client.get("/service")


async def test_both_loopbacks(port):
    async with serve(create_app(port), ["http://localhost:0", "http://[::1]:0"]) as bound:
        for url in bound:
            async with connect([url]) as client:
                assert (await client.get("/health"))["state"] == "ok"


async def test_a_place_that_cannot_hold_a_socket(port, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot listen on"):
        async with serve(create_app(port), [f"unix:{tmp_path}/file/api.sock"]):
            pass
